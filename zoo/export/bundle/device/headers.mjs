// What a picture file says of itself before it is decoded: format, size, whether it is whole.

export const MOST_PIXELS = 89_478_485; // as many as Python decodes
export const MOST_BYTES = 2 ** 30;

const NO_FRAME = [0xc4, 0xc8, 0xcc]; // among the markers of JPEG's frames, those that are none

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

/** Tell a file's format by its contents; null where it is none of those below. */
export function formatOf(bytes) {
  if (text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (text(bytes, 0, 3) === "\xff\xd8\xff") return "jpeg";
  if (/^GIF8[79]a$/.test(text(bytes, 0, 6))) return "gif";
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP") return "webp";
  if (/^(II[*+]\0|MM\0[*+])$/.test(text(bytes, 0, 4))) return "tiff";
  if (/^ftyp/.test(text(bytes, 4, 8)) && /avi[fs]/.test(text(bytes, 8, 32))) return "avif";
  if (text(bytes, 0, 2) === "BM") return "bmp";
  return null;
}

/** Throw an Error with one clear sentence where a picture is larger than what is read. */
export function checkSize(width, height) {
  const told = (count) => count.toLocaleString("en-US");
  if (width * height > MOST_PIXELS)
    throw new Error(
      `it has ${told(width * height)} pixels, and ${told(MOST_PIXELS)} are read here at most;` +
        " make it smaller",
    );
}

/** Throw where a JPEG is cut short, which decoders fill up, or of inks, which they differ about. */
export function checkJpeg(bytes) {
  let at = 2;
  while (at + 3 < bytes.length) {
    const kind = bytes[at + 1];
    if (bytes[at] !== 0xff || kind === 0 || kind === 0xff || (kind >= 0xd0 && kind <= 0xd7)) {
      const next = bytes.indexOf(0xff, at + 1);
      at = next < 0 ? bytes.length : next;
      continue;
    }
    if (kind === 0xd9) return;
    if (kind >= 0xc0 && kind <= 0xcf && !NO_FRAME.includes(kind) && bytes[at + 9] === 4)
      throw new Error("its colours are those of inks, which are not read here; save it as RGB");
    at += 2 + ((bytes[at + 2] << 8) | bytes[at + 3]);
  }
  if (bytes[bytes.length - 2] !== 0xff || bytes[bytes.length - 1] !== 0xd9)
    throw new Error("the JPEG file is cut short");
}

/** Throw where decoders differ about a GIF: too large, or not filled by its first frame. */
export function checkGif(bytes) {
  const short = (at) => bytes[at] | (bytes[at + 1] << 8);
  const [width, height] = [short(6), short(8)];
  checkSize(width, height);
  let at = 13 + (bytes[10] & 0x80 ? 3 << ((bytes[10] & 7) + 1) : 0);
  while (bytes[at] === 0x21)
    for (at += 2; at < bytes.length && bytes[at++] !== 0;) at += bytes[at - 1];
  if (bytes[at] !== 0x2c) throw new Error("the GIF file is damaged");
  if (short(at + 1) || short(at + 3) || short(at + 5) !== width || short(at + 7) !== height)
    throw new Error("its first frame does not fill it; save it as PNG");
}

/** Throw where a BMP's header is of no length that there is; browsers take any. */
export function checkBmp(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 18 || ![12, 40, 52, 56, 64, 108, 124].includes(view.getUint32(14, true)))
    throw new Error("the BMP file's header is damaged");
}

/** Throw where a TIFF's colours are none of those that all decoders read alike. */
export function checkTiff(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = bytes[0] === 0x49;
  const tags = {};
  try {
    const big = view.getUint16(2, little) === 43;
    const long = (at) => (big ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little));
    const first = long(big ? 8 : 4);
    const count = big ? long(first) : view.getUint16(first, little);
    for (let i = 0; i < count; i++) {
      const at = first + (big ? 8 + i * 20 : 2 + i * 12);
      tags[view.getUint16(at, little)] = view.getUint16(at + (big ? 12 : 8), little);
    }
  } catch {
    throw new Error("the TIFF file is damaged");
  }
  const { 259: compression, 262: colours } = tags;
  // Grey, RGB and a palette; YCbCr within a JPEG alone, which is another decoder's.
  if (!(colours <= 3) && !(colours === 6 && compression === 7))
    throw new Error("its colours are of a kind that is not read here; save it as RGB");
}

/** Take the rotation out of a WebP, about which browsers differ: the bytes, and what it is. */
export function takeRotation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 12; at + 8 <= bytes.length;) {
    const size = view.getUint32(at + 4, true);
    if (text(bytes, at, at + 4) === "EXIF") {
      const block = bytes.subarray(at + 8, at + 8 + size);
      const start = text(block, 0, 6) === "Exif\0\0" ? 6 : 0;
      const rest = bytes.slice();
      rest.set([88, 88, 88, 88], at); // a chunk that nobody knows
      return { bytes: rest, orientation: orientationOf(block.subarray(start)) };
    }
    at += 8 + size + (size & 1);
  }
  return { bytes, orientation: 1 };
}

/** Read EXIF tag 0x0112, the rotation, from a TIFF block; 1 where there is none. */
export function orientationOf(block) {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    if (view.getUint16(2, little) !== 42) return 1;
    const first = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(first, little); i++) {
      const entry = first + 2 + i * 12;
      if (view.getUint16(entry, little) !== 0x0112) continue;
      const kind = view.getUint16(entry + 2, little);
      if (view.getUint32(entry + 4, little) !== 1) return 1;
      if (kind === 1) return view.getUint8(entry + 8);
      if (kind === 4) return view.getUint32(entry + 8, little);
      return kind === 3 ? view.getUint16(entry + 8, little) : 1;
    }
  } catch {
    // A damaged EXIF block says nothing.
  }
  return 1;
}
