// Strokes of a mouse, a finger or a pen, as the model's data set would have drawn them.
// Points are in units of the frame, 0..1 across and down.

import { fromBase64 } from "./model.mjs";

const FINE = 8; // pixels drawn for each of the input's
const LARGEST = 4; // a dot is not blown up to a digit
const MNIST = { box: 20 / 28, thickness: 0.085 };

/** Measure how the data set draws: the share of the frame it fills, its stroke, its ground. */
export function measure({ inputs, shape }, input) {
  const { width: w, height: h } = input;
  const usual = { ...MNIST, thickness: Math.max(MNIST.thickness, 1.2 / Math.min(w, h)) };
  if (input.channels !== 1) return { ...usual, light: true };
  const bytes = fromBase64(inputs);
  const images = Array.from({ length: shape[0] }, (_, i) =>
    bytes.subarray(i * w * h, (i + 1) * w * h),
  );
  const corners = images.flatMap((p) => [p[0], p[w - 1], p[(h - 1) * w], p[w * h - 1]]);
  const light = median(corners) > 127;
  const found = images.map((pixels) => measureOne(pixels, w, h, light));
  const box = median(found.map((one) => one.box));
  const thickness = median(found.map((one) => one.thickness));
  return box > 0 && thickness > 0 ? { box, thickness, light } : { ...usual, light };
}

function measureOne(pixels, w, h, light) {
  const ink = (x, y) => {
    if (x < 0 || y < 0 || x >= w || y >= h) return 0;
    return (light ? 255 - pixels[y * w + x] : pixels[y * w + x]) / 255;
  };
  let [area, edges, left, right, top, bottom] = [0, 0, w, -1, h, -1];
  for (let y = 0; y <= h; y++)
    for (let x = 0; x <= w; x++) {
      const here = ink(x, y);
      area += here;
      edges += Math.abs(here - ink(x - 1, y)) + Math.abs(here - ink(x, y - 1));
      if (here > 0.25) {
        [left, right] = [Math.min(left, x), Math.max(right, x)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      }
    }
  const box = Math.max((right - left + 1) / w, (bottom - top + 1) / h);
  // A line has two edges; counted along the axes, an edge of any direction is 4/pi too long.
  return { box, thickness: edges ? ((8 / Math.PI) * area) / edges / Math.min(w, h) : 0 };
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

/** Draw strokes on a 2D context whose frame is `width` x `height` pixels. */
export function trace(context, strokes, width, height, thickness) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = thickness * Math.min(width, height);
  for (const points of strokes) {
    const at = points.map(([x, y]) => [x * width, y * height]);
    context.beginPath();
    context.moveTo(...at[0]);
    for (let i = 1; i < at.length - 1; i++)
      context.quadraticCurveTo(
        ...at[i],
        (at[i][0] + at[i + 1][0]) / 2,
        (at[i][1] + at[i + 1][1]) / 2,
      );
    context.lineTo(...at.at(-1));
    context.stroke();
  }
}

/** Render strokes as RGBA pixels; `centre` fits and centres them as the data set does. */
export function render(strokes, { width, height }, { style, centre, paper }) {
  const [w, h] = [width * FINE, height * FINE];
  const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const draw = (lines) => {
    context.fillStyle = paper ? "#fff" : "#000";
    context.fillRect(0, 0, w, h);
    context.strokeStyle = paper ? "#000" : "#fff";
    trace(context, lines, w, h, style.thickness);
    return context.getImageData(0, 0, w, h);
  };
  if (!centre) return draw(strokes);
  const fitted = fit(strokes, style);
  return draw(balance(fitted, draw(fitted), style.thickness / 2 + 1 / width, paper));
}

/** Scale strokes so that their longer side fills the data set's box, in the frame's middle. */
function fit(strokes, { box, thickness }) {
  const [[left, right], [top, bottom]] = spans(strokes);
  const longest = Math.max(right - left, bottom - top, 1e-6);
  const scale = Math.min((box - thickness) / longest, LARGEST);
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  return moved(strokes, ([a, b]) => [0.5 + (a - x) * scale, 0.5 + (b - y) * scale]);
}

/** Move strokes so that their centre of mass is in the middle, as far as the frame allows. */
function balance(strokes, { width, height, data }, margin, paper) {
  let [mass, sumX, sumY] = [0, 0, 0];
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i += 4) {
      const ink = paper ? 255 - data[i] : data[i];
      mass += ink;
      sumX += ink * (x + 0.5);
      sumY += ink * (y + 0.5);
    }
  if (!mass) return strokes;
  const [spanX, spanY] = spans(strokes);
  const dx = kept(0.5 - sumX / mass / width, spanX, margin);
  const dy = kept(0.5 - sumY / mass / height, spanY, margin);
  return moved(strokes, ([x, y]) => [x + dx, y + dy]);
}

function kept(shift, [start, end], margin) {
  const [least, most] = [margin - start, 1 - margin - end];
  return least > most ? 0 : Math.min(Math.max(shift, least), most);
}

function spans(strokes) {
  return [0, 1].map((axis) => {
    const values = strokes.flat().map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
}

const moved = (strokes, move) => strokes.map((points) => points.map(move));
