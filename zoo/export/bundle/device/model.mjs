// The model file: its SHA-256, its seal, and its answers. The same in Node and in a browser,
// with onnxruntime-node or onnxruntime-web as `ort`.

import { toLayout } from "./picture.mjs";

const CHANGED = "was changed: its bytes do not match its seal";
const BLANK = new Uint8Array(64).fill(48);
// The entry `zoo.sha256` of an ONNX file's metadata, as protobuf writes it, before its value.
const MARK = [10, 10, ...new TextEncoder().encode("zoo.sha256"), 18, 64];
// On whose word the proof stands: what zoo/export/bundle/manifest.py writes.
const PROVED = [
  "where it was bundled, by the run that it came from",
  "as its proof.json claims; not proved where it was bundled",
];
const OUTPUTS = { logits: "logits", probabilities: "probabilities" };
/** How far a probability may be off from one runtime to another, by precision. */
export const TOLERANCES = { fp32: 1e-4, fp16: 0.01, int8: 0.05 };

/** Read JSON; throws an Error with one clear sentence. */
export function parse(bytes, name) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Error(`${name} is damaged`);
  }
}

/** Read model.json, as it was sealed: it names files of its own folder alone. */
export function parseManifest(bytes) {
  const found = parse(bytes, "model.json");
  const parts = ["input", "outputs", "labels", "model", "files", "tolerance", "golden"];
  if (parts.some((name) => !found?.[name]) || typeof found.sha256 !== "string") throw new Error("model.json is damaged");
  const { files, model, golden } = found;
  const sound = (each) => typeof each?.sha256 === "string" && Number.isInteger(each.bytes);
  if (!Object.values(files).every(sound)) throw new Error("model.json is damaged");
  if (!sealed(bytes, find(bytes, found.sha256), found.sha256))
    throw new Error(`model.json ${CHANGED}`);
  if (Object.keys(files).some((name) => /[\\:\0]|^$|(^|\/)(\.{0,2})(\/|$)/.test(name)))
    throw new Error("model.json names files outside its folder");
  for (const name of [model.file, golden])
    if (!Object.hasOwn(files, name))
      throw new Error("model.json names a file that is not of its bundle");
  return found;
}

/** Name what the manifest says otherwise than the model's own metadata. */
function contradictions(manifest, metadata) {
  const { labels, metrics, license, input, outputs, model, tolerance } = manifest;
  const said = parse(metadata.get("zoo.input"), "the model's metadata");
  const size = said.shape[0];
  const read = (key) => parse(metadata.get(key), "the model's metadata");
  const text = (key) => new TextDecoder().decode(metadata.get(key));
  const fields = ["layout", "channels", "height", "width", "dtype", "range", "picture"];
  const sides = {
    name: [manifest.name, text("zoo.model")],
    run: [manifest.run, text("zoo.run")],
    dataset: [manifest.dataset, text("zoo.dataset")],
    components: [manifest.components, read("zoo.components")],
    proved: [PROVED.includes(manifest.proved), true],
    labels: [labels, read("zoo.labels")],
    metrics: [metrics, read("zoo.metrics")],
    license: [license, text("license")],
    input: [fields.map((name) => input[name]), fields.map((name) => said[name])],
    names: [[input.name, outputs], ["image", OUTPUTS]],
    batch: [input.batch, size === "batch" ? null : size],
    precision: [model.precision, text("zoo.precision")],
    tolerance: [tolerance.probabilities, TOLERANCES[model.precision]],
  };
  return Object.keys(sides).filter((name) => !equal(...sides[name]));
}

/** Whether two values of JSON are equal, in whatever order their keys are. */
function equal(a, b) {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return a === b;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => equal(a[key], b[key]));
}

/** Read an ONNX file's metadata, field 14 of its outermost message: key -> the value's bytes. */
function metadataOf(bytes) {
  const found = new Map();
  for (const [field, value] of fieldsOf(bytes)) {
    if (field !== 14) continue;
    const pair = new Map(fieldsOf(value));
    found.set(new TextDecoder().decode(pair.get(1)), pair.get(2));
  }
  return found;
}

/** Yield the fields of a protobuf message that have a length, each [number, bytes]. */
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error("the model is damaged");
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    if (key % 8 === 2) {
      const size = varint();
      yield [Math.floor(key / 8), bytes.subarray(at, at + size)];
      at += size;
    } else if (key % 8 === 0) varint();
    else if (key % 8 === 1 || key % 8 === 5) at += key % 8 === 1 ? 8 : 4;
    else throw new Error("the model is damaged"); // a group, which ONNX has no use for
  }
}

/** Hold the model's bytes against the seal within them. */
export function checkSeal(bytes) {
  const at = find(bytes, MARK) + MARK.length;
  const seal = new TextDecoder().decode(bytes.subarray(at, at + 64));
  if (at < MARK.length || !sealed(bytes, at, seal)) throw new Error(CHANGED);
}

/** Whether the SHA-256 of the bytes is the one they hold at a place, taken with zeros there. */
function sealed(bytes, at, seal) {
  if (at < 0 || !/^[0-9a-f]{64}$/.test(seal)) return false;
  const blank = bytes.slice();
  blank.set(BLANK, at);
  return sha256(blank) === seal;
}

/** Find the only place of a sequence of bytes, or -1. */
function find(bytes, wanted) {
  const sequence = typeof wanted === "string" ? new TextEncoder().encode(wanted) : wanted;
  let found = -1;
  for (let at = bytes.indexOf(sequence[0]); at >= 0; at = bytes.indexOf(sequence[0], at + 1)) {
    if (!sequence.every((value, i) => bytes[at + i] === value)) continue;
    if (found >= 0) return -1;
    found = at;
  }
  return found;
}

/** Open the file that the manifest describes; throws an Error with one clear sentence. */
export async function openModel(ort, manifest, bytes) {
  const { input, outputs, labels, model } = manifest;
  if (sha256(bytes) !== model.sha256)
    throw new Error(`${model.file} is not the file that model.json describes: it was changed`);
  const wrong = contradictions(manifest, metadataOf(bytes));
  if (wrong.length)
    throw new Error(`model.json contradicts ${model.file}: ${wrong.join(", ")}`);
  const options = { intraOpNumThreads: 1, logSeverityLevel: 4 };
  const session = await ort.InferenceSession.create(bytes, options).catch((error) => {
    throw new Error(`onnxruntime cannot load ${model.file}: ${firstLine(error)}`);
  });
  const size = input.channels * input.height * input.width;
  const shape = [input.channels, input.height, input.width];
  if (input.layout === "NHWC") shape.push(shape.shift());

  /** Run up to a whole batch; one of a fixed size is filled up with zeros. */
  async function runBatch(inputs) {
    const count = inputs.length / size;
    const filled = new Uint8Array((input.batch ?? count) * size);
    filled.set(toLayout(inputs, input));
    const image = new ort.Tensor("uint8", filled, [filled.length / size, ...shape]);
    const names = Object.values(outputs);
    const found = await session.run({ [input.name]: image }, names);
    if (!names.every((name) => found[name].data.every(Number.isFinite)))
      throw new Error("the model's output contains NaN or infinity");
    return found[outputs.probabilities].data.slice(0, count * labels.length);
  }

  /** Raw bytes, N x C x H x W -> probabilities, one array of the classes for each. */
  return async function run(inputs, batch = 64) {
    const step = (input.batch ?? batch) * size;
    const rows = [];
    for (let at = 0; at < inputs.length; at += step) {
      const flat = await runBatch(inputs.subarray(at, at + step));
      for (let i = 0; i < flat.length; i += labels.length)
        rows.push(Array.from(flat.subarray(i, i + labels.length)));
    }
    return rows;
  };
}

/** Classes from the likeliest down; equal ones keep their order. */
export function ranked(probabilities) {
  return probabilities
    .map((_, i) => i)
    .sort((a, b) => probabilities[b] - probabilities[a] || a - b);
}

export const firstLine = (error) =>
  String(error?.message ?? error)
    .split("\n")[0]
    .trim()
    .replace(/\.$/, "")
    .slice(0, 300);

export const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// SHA-256 by FIPS 180-4. A browser's own is absent where a page is not served from https or
// localhost, as from one's own machine to one's own phone.

const K = new Int32Array(64);
const START = new Int32Array(8);
for (let n = 2, found = 0; found < 64; n++) {
  if (Array.from({ length: n - 2 }, (_, i) => i + 2).some((d) => n % d === 0)) continue;
  const fraction = (root) => ((root - Math.floor(root)) * 2 ** 32) | 0;
  if (found < 8) START[found] = fraction(Math.sqrt(n));
  K[found++] = fraction(Math.cbrt(n));
}

export function sha256(bytes) {
  const padded = new Uint8Array(((bytes.length + 72) >> 6) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length << 3) >>> 0);
  const state = START.slice();
  const w = new Int32Array(64);
  for (let at = 0; at < padded.length; at += 64) compress(state, view, at, w);
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

const turn = (x, n) => (x >>> n) | (x << (32 - n));

function compress(state, view, at, w) {
  for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + i * 4);
  for (let i = 16; i < 64; i++) {
    const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
    const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
    const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] += value));
}
