// A picture file -> upright RGBA pixels, in a browser.

import {
  checkBmp,
  checkGif,
  checkJpeg,
  checkSize,
  formatOf,
  takeRotation,
} from "./headers.mjs";
import { upright } from "./picture.mjs";
import { decodePng } from "./png.mjs";

const FORMATS = ["png", "jpeg", "webp", "gif", "avif", "bmp"];
const UNKNOWN = "this browser cannot read it";

/** Decode a picture: PNG by itself, and as the browser does what that reads as Python does. */
export async function decode(bytes) {
  const format = formatOf(bytes);
  if (!FORMATS.includes(format))
    throw new Error("it is of no format that this page reads; save it as PNG or JPEG");
  if (format === "png" && "DecompressionStream" in window) return decodePng(bytes);
  if (format === "jpeg") checkJpeg(bytes);
  if (format === "gif") checkGif(bytes);
  if (format === "bmp") checkBmp(bytes);
  if (format === "avif" && new TextDecoder("latin1").decode(bytes).includes(":auxiliary:alpha"))
    throw new Error("browsers differ about an AVIF's transparency; save it as PNG");
  const taken = format === "webp" ? takeRotation(bytes) : { bytes, orientation: 1 };
  const blob = new Blob([taken.bytes]);
  await checkSizeOf(blob);
  const options = {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  };
  const bitmap = await createImageBitmap(blob, options).catch(() => {
    throw new Error(UNKNOWN);
  });
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // On white at once: a canvas keeps less of what is transparent.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return upright({ width, height, data }, taken.orientation);
}

/** Throw where a picture is too large, before it is decoded: one that is not shown is not. */
async function checkSizeOf(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new Error(UNKNOWN));
    });
    checkSize(image.naturalWidth, image.naturalHeight);
  } finally {
    URL.revokeObjectURL(image.src);
  }
}
