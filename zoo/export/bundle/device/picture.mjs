// The picture rule: RGBA pixels -> the input's bytes, as `zoo predict` makes them, byte for byte.
// Transparency on white; grey by BT.601 luma or RGB; the largest centred part with the input's
// aspect ratio; Pillow's antialiased bilinear filter; with invert, 255 minus each value.

const PRECISION = 22; // bits after the point in Pillow's 8-bit filter coefficients

/** Turn upright 8-bit RGBA pixels of any size into uint8 C x H x W. */
export function toInput(
  { width, height, data },
  { channels, height: h, width: w },
  invert = false,
) {
  if (channels !== 1 && channels !== 3)
    throw new Error(`Pictures have 1 or 3 channels; the input has ${channels}`);
  const box = centredBox(width, height, w, h);
  const planes = channels === 1 ? [grey(data)] : [0, 1, 2].map((c) => plane(data, c));
  const out = new Uint8Array(channels * h * w);
  planes.forEach((p, c) => out.set(resize(p, width, height, w, h, box), c * h * w));
  return invert ? out.map((value) => 255 - value) : out;
}

/** Scale 16-bit grey to 8 bits; 65535 / 257 is 255, and no value falls between two. */
export function grey16to8(values) {
  return Uint8Array.from(values, (value) => Math.round(value / 257));
}

/** Lay C x H x W inputs out as the model wants them. */
export function toLayout(inputs, { channels, height, width, layout }) {
  if (layout !== "NHWC" || channels === 1) return inputs;
  const area = height * width;
  const out = new Uint8Array(inputs.length);
  for (let start = 0; start < inputs.length; start += channels * area)
    for (let c = 0; c < channels; c++)
      for (let i = 0; i < area; i++) out[start + i * channels + c] = inputs[start + c * area + i];
  return out;
}

/** Turn RGBA pixels upright by an EXIF orientation, 1 to 8. */
export function upright({ width, height, data }, orientation = 1) {
  if (!(orientation >= 2 && orientation <= 8)) return { width, height, data };
  const from = new Uint32Array(data.buffer, data.byteOffset, width * height);
  const swapped = orientation >= 5;
  const [w, h] = swapped ? [height, width] : [width, height];
  const mirrorX = [2, 3, 7, 8].includes(orientation);
  const mirrorY = [3, 4, 6, 7].includes(orientation);
  const out = new Uint32Array(w * h);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      let [u, v] = swapped ? [y, x] : [x, y];
      if (mirrorX) u = width - 1 - u;
      if (mirrorY) v = height - 1 - v;
      out[y * w + x] = from[v * width + u];
    }
  return { width: w, height: h, data: new Uint8Array(out.buffer) };
}

/** Composite one value on white as Pillow's integer arithmetic does. */
function onWhite(value, alpha) {
  if (alpha === 255) return value;
  const sum = (value * alpha + 255 * (255 - alpha)) * 128 + 128 * 128;
  return ((sum >> 8) + sum) >> 15;
}

function plane(data, channel) {
  const out = new Uint8Array(data.length / 4);
  for (let i = 0, j = 0; i < out.length; i++, j += 4)
    out[i] = onWhite(data[j + channel], data[j + 3]);
  return out;
}

function grey(data) {
  const out = new Uint8Array(data.length / 4);
  for (let i = 0, j = 0; i < out.length; i++, j += 4) {
    const alpha = data[j + 3];
    const red = onWhite(data[j], alpha);
    const green = onWhite(data[j + 1], alpha);
    const blue = onWhite(data[j + 2], alpha);
    out[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  }
  return out;
}

/** The box of ImageOps.fit, centred; Pillow's C code takes its corners as 32-bit floats. */
function centredBox(width, height, w, h) {
  const wanted = w / h;
  let [cropWidth, cropHeight] = [width, height];
  if (width / height > wanted) cropWidth = wanted * height;
  else if (width / height < wanted) cropHeight = width / wanted;
  const left = (width - cropWidth) * 0.5;
  const top = (height - cropHeight) * 0.5;
  return [left, top, left + cropWidth, top + cropHeight].map(Math.fround);
}

/** Pillow's two passes; since Pillow 13 the vertical one is first where it shrinks far more. */
function resize(pixels, width, height, w, h, [x0, y0, x1, y1]) {
  const across = w !== width || x0 !== 0 || x1 !== w ? filter(width, x0, x1, w) : null;
  const down = h !== height || y0 !== 0 || y1 !== h ? filter(height, y0, y1, h) : null;
  if (height > h && height - h > (width - w) * 2) {
    const rows = down ? vertically(pixels, width, down) : pixels;
    return across ? horizontally(rows, width, h, across) : rows;
  }
  const columns = across ? horizontally(pixels, width, height, across) : pixels;
  return down ? vertically(columns, w, down) : columns;
}

/** For each output position, the first input position and the fixed-point weights from there. */
function filter(size, start, end, count) {
  const scale = Math.fround(end - start) / count;
  const support = Math.max(scale, 1);
  const inverse = 1 / support;
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), size);
    const raw = new Float64Array(last - first);
    let sum = 0;
    for (let k = 0; k < raw.length; k++) {
      raw[k] = Math.max(1 - Math.abs((k + first - centre + 0.5) * inverse), 0);
      sum += raw[k];
    }
    const unit = 1 << PRECISION;
    return [first, Int32Array.from(raw, (v) => Math.trunc(0.5 + (sum ? v / sum : v) * unit))];
  });
}

const clip = (sum) => Math.min(sum >> PRECISION, 255);

function horizontally(pixels, width, height, taps) {
  const out = new Uint8Array(height * taps.length);
  for (let y = 0; y < height; y++)
    taps.forEach(([first, weights], x) => {
      let sum = 1 << (PRECISION - 1);
      const from = y * width + first;
      for (let k = 0; k < weights.length; k++) sum += pixels[from + k] * weights[k];
      out[y * taps.length + x] = clip(sum);
    });
  return out;
}

function vertically(pixels, width, taps) {
  const out = new Uint8Array(taps.length * width);
  taps.forEach(([first, weights], y) => {
    for (let x = 0; x < width; x++) {
      let sum = 1 << (PRECISION - 1);
      for (let k = 0; k < weights.length; k++) sum += pixels[(first + k) * width + x] * weights[k];
      out[y * width + x] = clip(sum);
    }
  });
  return out;
}
