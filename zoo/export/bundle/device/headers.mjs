// What a picture file says of itself before it is decoded: its format, its size, whether it is whole.

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
      `it has ${told(width * height)} pixels, and ${told(MOST_PIXELS)} are read here at most; make it smaller`,
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
