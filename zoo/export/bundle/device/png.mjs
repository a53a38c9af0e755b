// A PNG file -> upright 8-bit RGBA pixels, by the picture rule: 16-bit grey is scaled, 16-bit
// colour keeps its high byte, one transparent colour is compared at the file's own depth. No
// dependency: the same bytes in Node and in a browser.

import { checkSize, formatOf, orientationOf } from "./headers.mjs";
import { grey16to8, upright } from "./picture.mjs";

const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // colour type -> samples a pixel
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// prettier-ignore
const ADAM7 = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];
const CRC = Int32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** Decode a PNG file; throws an Error with one clear sentence where it is none. */
export async function decodePng(bytes) {
  const file = chunks(bytes);
  const { width, height, depth, colour } = file;
  const passes = file.interlaced ? ADAM7 : [[0, 0, 1, 1]];
  const raw = await inflate(file.data, passes.reduce((sum, pass) => sum + sizeOf(file, pass), 0));
  const values = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * SAMPLES[colour]);
  let at = 0;
  for (const pass of passes) at = readPass(file, raw, at, pass, values);
  const data = toRgba(file, values);
  return upright({ width, height, data }, file.orientation);
}

function chunks(bytes) {
  if (formatOf(bytes) !== "png") throw new Error("it is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const file = { orientation: 1, palette: null, transparent: null };
  const data = [];
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length) throw new Error("the PNG file is cut short");
    // The pixels have a sum of their own.
    if (name !== "IDAT" && at + 12 + length <= bytes.length && !sound(view, bytes, at + 4, length))
      throw new Error("the PNG file is damaged");
    if (name === "IHDR") header(file, view, at + 8);
    else if (name === "PLTE") file.palette = body;
    else if (name === "tRNS") file.transparent = body;
    else if (name === "eXIf") file.orientation = orientationOf(body);
    else if (name === "IDAT") data.push(body);
    else if (name === "IEND") break;
    at += 12 + length;
  }
  if (!file.width || !data.length) throw new Error("the PNG file holds no picture");
  if (file.colour === 3 && !file.palette) throw new Error("the PNG file lacks its palette");
  return { ...file, data };
}

/** Whether a chunk's CRC, which is behind its name and its bytes, is theirs. */
function sound(view, bytes, at, length) {
  let sum = -1;
  for (let i = at; i < at + 4 + length; i++) sum = CRC[(sum ^ bytes[i]) & 255] ^ (sum >>> 8);
  return (sum ^ -1) === view.getInt32(at + 4 + length);
}

function header(file, view, at) {
  file.width = view.getUint32(at);
  file.height = view.getUint32(at + 4);
  file.depth = view.getUint8(at + 8);
  file.colour = view.getUint8(at + 9);
  file.interlaced = view.getUint8(at + 12) === 1;
  if (!file.width || !file.height || !DEPTHS[file.colour]?.includes(file.depth))
    throw new Error("the PNG file's header is damaged");
  checkSize(file.width, file.height);
}

/** Inflate so many bytes, and no more: what lies behind may be without end. */
async function inflate(parts, size) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const pieces = [];
  let count = 0;
  try {
    while (count < size) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      count += value.length;
    }
  } catch {
    throw new Error("the PNG file's pixels are damaged");
  }
  reader.cancel().catch(() => {});
  if (count < size) throw new Error("the PNG file is cut short");
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** Columns, rows, and bytes in a row, of one pass: the whole picture, or one of Adam7's seven. */
function shapeOf({ width, height, depth, colour }, [x0, y0, dx, dy]) {
  const columns = Math.max(Math.ceil((width - x0) / dx), 0);
  const rows = columns && Math.max(Math.ceil((height - y0) / dy), 0);
  return [columns, rows, Math.ceil((columns * SAMPLES[colour] * depth) / 8)];
}

function sizeOf(file, pass) {
  const [, rows, stride] = shapeOf(file, pass);
  return rows * (stride + 1);
}

/** Undo the filters of one pass. */
function readPass(file, raw, at, pass, values) {
  const { width, depth, colour } = file;
  const [x0, y0, dx, dy] = pass;
  const [columns, rows, stride] = shapeOf(file, pass);
  const samples = SAMPLES[colour];
  const step = Math.max((samples * depth) >> 3, 1);
  let above = new Uint8Array(stride);
  for (let row = 0; row < rows; row++, at += stride + 1) {
    const line = raw.subarray(at + 1, at + 1 + stride);
    unfilter(raw[at], line, above, step);
    above = line;
    for (let i = 0; i < columns * samples; i++) {
      const x = x0 + Math.floor(i / samples) * dx;
      values[((y0 + row * dy) * width + x) * samples + (i % samples)] = sample(line, i, depth);
    }
  }
  return at;
}

function sample(line, i, depth) {
  if (depth === 8) return line[i];
  if (depth === 16) return (line[2 * i] << 8) | line[2 * i + 1];
  const bit = i * depth;
  return (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
}

function unfilter(kind, line, above, step) {
  if (kind > 4) throw new Error("the PNG file's pixels are damaged");
  for (let i = 0; kind && i < line.length; i++) {
    const left = i >= step ? line[i - step] : 0;
    const corner = i >= step ? above[i - step] : 0;
    if (kind === 1) line[i] += left;
    else if (kind === 2) line[i] += above[i];
    else if (kind === 3) line[i] += (left + above[i]) >> 1;
    else line[i] += paeth(left, above[i], corner);
  }
}

function paeth(left, up, corner) {
  const [a, b, c] = [up - corner, left - corner, left + up - 2 * corner].map(Math.abs);
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** Read the transparent colour: two bytes a sample, of which as many bits count as it has. */
function keyOf(transparent, depth, samples) {
  if (samples !== 1 && samples !== 3) return null;
  if (transparent.length < 2 * samples) throw new Error("the PNG file's tRNS is damaged");
  const level = (i) => (transparent[2 * i] << 8) | transparent[2 * i + 1];
  return Array.from({ length: samples }, (_, i) => level(i) & (2 ** depth - 1));
}

function toRgba({ width, height, depth, colour, palette, transparent }, values) {
  const out = new Uint8Array(width * height * 4);
  let eight = values;
  if (depth === 16) eight = colour === 0 ? grey16to8(values) : values.map((value) => value >> 8);
  else if (depth < 8 && colour === 0) eight = values.map((v) => (v * 255) / ((1 << depth) - 1));
  const key = transparent && colour !== 3 ? keyOf(transparent, depth, SAMPLES[colour]) : null;
  for (let i = 0, to = 0; to < out.length; i += SAMPLES[colour], to += 4) {
    let [red, green, blue, alpha] = [eight[i], eight[i], eight[i], 255];
    if (colour === 0) alpha = key && values[i] === key[0] ? 0 : 255;
    else if (colour === 4) alpha = eight[i + 1];
    else if (colour === 3) {
      [red, green, blue] = [0, 1, 2].map((c) => palette[eight[i] * 3 + c] ?? 0);
      alpha = transparent?.[eight[i]] ?? 255;
    } else {
      [green, blue] = [eight[i + 1], eight[i + 2]];
      if (colour === 6) alpha = eight[i + 3];
      else if (key) alpha = key.every((level, c) => values[i + c] === level) ? 0 : 255;
    }
    out[to] = red;
    out[to + 1] = green;
    out[to + 2] = blue;
    out[to + 3] = alpha;
  }
  return out;
}
