// The self-test of a bundle, shared by run.mjs and the page: files, seals, golden vectors.

import {
  checkSeal,
  firstLine,
  fromBase64,
  openModel,
  parse,
  parseManifest,
  ranked,
  sha256,
  TOLERANCES,
} from "./model.mjs";
import { toInput } from "./picture.mjs";

const LOOSE = 0.05; // how far a probability may be off where another decoder gave other pixels

/**
 * Yield each check as { name, passed, text }, in order, whatever the ones before it found.
 * `read(name, most)` gives a file's bytes, at most so many, `decode(bytes)` a picture's upright
 * RGBA pixels, `ort` is onnxruntime, and `covers(name)` says which files this runner answers for.
 */
export async function* checks({ read, decode, ort, covers = () => true }) {
  let manifest, golden, run;
  yield await check("model.json", async () => {
    manifest = parseManifest(await read("model.json"));
    return "matches its seal";
  });
  if (!manifest) return;
  const sizeOf = (name) => manifest.files[name].bytes;
  yield await check("files", () => checkFiles(manifest.files, read, covers));
  yield await check(manifest.model.file, async () => {
    const bytes = await read(manifest.model.file, sizeOf(manifest.model.file));
    checkSeal(bytes);
    run = await openModel(ort, manifest, bytes);
    return "matches its seal; loaded";
  });
  yield await check("golden.json", async () => {
    golden = parse(await read(manifest.golden, sizeOf(manifest.golden)), manifest.golden);
    const [examples, pictures] = [golden.tensors.shape[0], golden.pictures.length];
    if (!(examples >= 1)) throw new Error("it has no golden tensors");
    if ([1, 3].includes(manifest.input.channels) && !pictures)
      throw new Error("it has no golden pictures");
    if (!golden.pictures.every(({ file }) => Object.hasOwn(manifest.files, file)))
      throw new Error("it names a picture that is not of the bundle");
    return `${examples} examples, ${pictures} pictures`;
  });
  if (!run || !golden) return;
  const bound = TOLERANCES[manifest.model.precision];
  for (const batch of [golden.tensors.shape[0], 1])
    yield await check(`golden tensors, batch ${batch}`, () =>
      checkTensors(run, golden.tensors, bound, batch),
    );
  for (const entry of golden.pictures)
    yield await check(entry.file, async () => {
      const picture = await decode(await read(entry.file, sizeOf(entry.file)));
      return checkPicture(run, toInput(picture, manifest.input, entry.invert), entry, bound);
    });
}

async function check(name, judge) {
  try {
    return { name, passed: true, text: await judge() };
  } catch (error) {
    return { name, passed: false, text: firstLine(error) };
  }
}

async function checkFiles(files, read, covers) {
  const names = Object.keys(files).filter(covers);
  const wrong = [];
  for (const name of names) {
    const sum = await read(name, files[name].bytes).then(sha256, () => null);
    if (sum !== files[name].sha256) wrong.push(`${name} ${sum ? "was changed" : "is missing"}`);
  }
  if (wrong.length) throw new Error(wrong.join(", "));
  return `${names.length} with the SHA-256 recorded`;
}

/** Hold the answers against the recorded ones; a label may differ in a tie alone. */
async function checkTensors(run, { inputs, probabilities }, bound, batch) {
  const found = await run(fromBase64(inputs), batch);
  const difference = Math.max(...found.map((row, i) => apart(row, probabilities[i])));
  const flips = found.filter((row, i) => flipped(row, probabilities[i], bound)).length;
  const text = `${found.length} examples, ${difference.toExponential(1)} off; at most ${bound}`;
  if (!(difference <= bound) || flips) throw new Error(`${text}; ${flips} labels differ`);
  return text;
}

/** Hold a picture's bytes against the recorded ones, or say by how much they are off. */
async function checkPicture(run, input, entry, bound) {
  const off = apart(input, fromBase64(entry.input));
  const [found] = await run(input);
  const difference = apart(found, entry.probabilities);
  const same = off === 0 ? "the same bytes" : `bytes up to ${off} off`;
  const text = `${entry.what}: ${same}, probabilities ${difference.toExponential(1)} off`;
  const label = ranked(found)[0] === entry.label;
  if (!(difference <= (off ? Math.max(bound, LOOSE) : bound)) || !label)
    throw new Error(label ? text : `${text}, another label`);
  return text;
}

function apart(found, wanted) {
  if (found.length !== wanted.length) return NaN;
  let most = 0;
  for (let i = 0; i < found.length; i++) most = Math.max(most, Math.abs(found[i] - wanted[i]));
  return most;
}

function flipped(found, wanted, bound) {
  return wanted[ranked(wanted)[0]] - wanted[ranked(found)[0]] > 2 * bound;
}
