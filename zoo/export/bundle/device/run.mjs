// Classify picture files with the model beside this file, by onnxruntime-node.

import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import process from "node:process";

import {
  MOST_BYTES,
  checkGif,
  checkJpeg,
  checkSize,
  checkTiff,
  formatOf,
} from "./headers.mjs";
import { firstLine, openModel, parseManifest, ranked } from "./model.mjs";
import { toInput } from "./picture.mjs";
import { decodePng } from "./png.mjs";
import { checks } from "./selftest.mjs";

const HELP = `Classify picture files with the model beside this file.

    node run.mjs PICTURE… [--invert] [--top N] [--json]
    node run.mjs selftest

\`--invert\` is for dark strokes on a light ground, where the model was trained on light on dark.
\`selftest\` checks every file of the folder, and the model's answers on the golden vectors.
Exit status: 0; 1 with one line on stderr; 2 for wrong usage.
Once, before the first run: npm install --ignore-scripts`;

const REASONS = {
  ENOENT: "it is missing",
  EISDIR: "it is a folder",
  EACCES: "access is denied",
  ENOSPC: "no space is left on the device",
};

const SHARP = ["jpeg", "webp", "gif", "tiff", "avif"];
const SPACES = ["srgb", "b-w", "rgb16", "grey16"];
const DEPTHS = ["uchar", "ushort"];

// Read when onnxruntime is loaded: newer versions would write a device's identity and a log of what
// was run into the user's cache folder, to be sent to their makers.
process.env.ORT_DISABLE_TELEMETRY ??= "1";
// Whoever wrote is told of it; unheard, it would end the process with a traceback.
process.stdout.on("error", () => {});

const NO_WAIT = constants.O_NONBLOCK ?? 0;

class Fault extends Error {}
class Usage extends Fault {}
class Unwritten extends Error {}

const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** A text as one line: what would move a terminal's cursor stands as its escape. */
function shown(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (letter) => {
    if ("\u00ad\u200c\u200d".includes(letter)) return letter; // of words and emoji
    const code = letter.codePointAt(0);
    const [mark, digits] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
    return NAMED[letter] ?? `\\${mark}${code.toString(16).padStart(digits, "0")}`;
  });
}

/** Print lines, and wait until they are written: a pipe may be closed, a disk full. */
function say(...lines) {
  return new Promise((resolve, reject) => {
    process.stdout.write(`${lines.map(shown).join("\n")}\n`, (error) => {
      if (!error) resolve();
      else reject(new Unwritten(REASONS[error.code] ?? error.code, { cause: error }));
    });
  });
}

/** Load a package of package.json, or say how to install it. */
async function load(name) {
  try {
    const found = await import(name);
    return found.default ?? found;
  } catch (error) {
    const hint = error.code === "ERR_MODULE_NOT_FOUND" ? "is not installed" : "does not load";
    throw new Fault(`${name} ${hint}. Type: npm install --ignore-scripts`);
  }
}

const MOST_OF_MANIFEST = 64 * 2 ** 20; // of model.json; every other file's size stands in it

/** Read a file of this folder of at most so many bytes; no pipe and no device is waited for. */
async function read(name, most = MOST_OF_MANIFEST) {
  let file;
  try {
    file = await open(new URL(encodeURI(name), import.meta.url), constants.O_RDONLY | NO_WAIT);
    const found = await file.stat();
    if (!found.isFile()) throw new Fault(`${name} is no file`);
    if (found.size > most) throw new Fault(`${name} was changed: it has more than ${most} bytes`);
    return new Uint8Array(await file.readFile());
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault(`${name} cannot be read: ${REASONS[error.code] ?? error.code}`);
  } finally {
    await file?.close();
  }
}

/** Decode a picture: PNG by itself, and by sharp what that reads as Python does. */
async function decode(bytes) {
  const format = formatOf(bytes);
  if (format === "png") return decodePng(bytes);
  if (!SHARP.includes(format))
    throw new Error("it is of no format that Node reads; save it as PNG or JPEG");
  if (format === "jpeg") checkJpeg(bytes);
  if (format === "tiff") checkTiff(bytes);
  if (format === "gif") checkGif(bytes);
  const sharp = await load("sharp");
  const picture = sharp(bytes, { ignoreIcc: true, limitInputPixels: false });
  const { width, height, space, depth } = await picture.metadata();
  checkSize(width, height);
  if (!SPACES.includes(space) || !DEPTHS.includes(depth))
    throw new Error(`it is of kind ${space}, ${depth}, which Node does not read; save it as PNG`);
  const decoded = picture.autoOrient().toColourspace("srgb").ensureAlpha();
  const { data, info } = await decoded.raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data };
}

/** Read a regular file; never waits for the writer of a pipe. */
async function readWhole(file) {
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const found = await handle.stat();
    if (found.isDirectory()) throw new Fault(`'${file}' is a folder; name the pictures in it`);
    const unreadable = `'${file}' is no readable picture: it is`;
    if (!found.isFile()) throw new Fault(`${unreadable} a pipe or a device, not a file`);
    if (found.size > MOST_BYTES)
      throw new Fault(`${unreadable} larger than ${MOST_BYTES.toLocaleString("en-US")} bytes`);
    return new Uint8Array(await handle.readFile());
  } finally {
    await handle.close();
  }
}

async function readPicture(file, input, invert) {
  let bytes;
  try {
    bytes = await readWhole(file);
  } catch (error) {
    if (error instanceof Fault) throw error;
    if (error.code === "ENOENT") throw new Fault(`There is no picture '${file}'`);
    throw new Fault(`'${file}' cannot be read: ${REASONS[error.code] ?? error.code}`);
  }
  try {
    return toInput(await decode(bytes), input, invert);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault(`'${file}' is no readable picture: ${firstLine(error)}`);
  }
}

async function classify({ pictures, invert, top, json }) {
  const manifest = parseManifest(await read("model.json"));
  const { channels } = manifest.input;
  if (channels !== 1 && channels !== 3)
    throw new Fault(`Pictures have 1 or 3 channels; the input has ${channels}`);
  const { file } = manifest.model;
  const bytes = await read(file, manifest.files[file].bytes);
  const run = await openModel(await load("onnxruntime-node"), manifest, bytes);
  const inputs = [];
  for (const file of pictures) inputs.push(await readPicture(file, manifest.input, invert));
  const found = await run(new Uint8Array(Buffer.concat(inputs)));
  if (json) {
    await say(toJson(pictures, found, manifest.labels));
    return;
  }
  for (const [i, row] of found.entries())
    for (const k of ranked(row).slice(0, top))
      await say(`${pictures[i]}  ${manifest.labels[k]}  ${(row[k] * 100).toFixed(2)} %`);
}

/** Write what `zoo predict --json` writes; an object would put classes named by numbers first. */
function toJson(pictures, found, labels) {
  const predictions = found.map((row, i) => {
    const order = ranked(row);
    const classes = order.map((k) => `${JSON.stringify(labels[k])}: ${row[k]}`).join(", ");
    const best = `"label": ${JSON.stringify(labels[order[0]])}, "probability": ${row[order[0]]}`;
    return `{"picture": ${JSON.stringify(pictures[i])}, ${best}, "classes": {${classes}}}`;
  });
  const text = `{"predictions": [${predictions.join(", ")}]}`;
  return text.replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

async function selftest() {
  const ort = await load("onnxruntime-node");
  let passed = true;
  for await (const check of checks({ read, decode, ort })) {
    passed &&= check.passed;
    await say(`${check.passed ? "ok    " : "FAILED"}  ${check.name}: ${check.text}`);
  }
  await say(`selftest: ${passed ? "yes" : "no"}`);
  return passed;
}

function parseWords(words) {
  const found = { pictures: [], invert: false, top: 1, json: false };
  while (words.length) {
    const word = words.shift();
    const [name, value] = word.split("=", 2);
    if (word === "--") found.pictures.push(...words.splice(0));
    else if (word === "--invert") found.invert = true;
    else if (word === "--json") found.json = true;
    else if (name === "--top") {
      const count = value ?? words.shift() ?? "";
      if (!/^[1-9][0-9]*$/.test(count))
        throw new Usage(`--top takes a whole number from 1, not '${count}'`);
      found.top = Number(count);
    } else if (word.startsWith("-")) throw new Usage(`There is no option '${word}'`);
    else if (word === "selftest")
      throw new Usage("selftest stands alone; a picture of that name is ./selftest");
    else found.pictures.push(word);
  }
  if (!found.pictures.length) throw new Usage("Name a picture");
  return found;
}

async function main(words) {
  try {
    if (words.includes("-h") || words.includes("--help")) await say(...HELP.split("\n"));
    else if (words.length === 1 && words[0] === "selftest")
      process.exitCode = (await selftest()) ? 0 : 1;
    else await classify(parseWords(words));
  } catch (error) {
    if (error instanceof Unwritten) return unwritten(error);
    const line = firstLine(error);
    const usage = error instanceof Usage;
    const end = usage ? ". See: node run.mjs --help" : line.includes(" Type: ") ? "" : ".";
    console.error(`Error: ${shown(line)}${end}`);
    process.exitCode = usage ? 2 : 1;
  }
}

function unwritten(error) {
  process.exitCode = 1;
  // A reader that has closed the pipe has seen enough.
  if (error.cause.code !== "EPIPE")
    console.error(`Error: the answer cannot be written: ${error.message}.`);
}

await main(process.argv.slice(2));
