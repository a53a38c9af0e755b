// What the page shows: the facts of the model, the input it gets, its answer, the checks.

import { ranked } from "./model.mjs";

const SHOWN = 10; // classes that have a bar
const CLOSE = 0.02; // bars this close keep their order during a stroke, or they would flicker

export const $ = (id) => document.getElementById(id);

/** Make an element with these properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Say what the manifest says. */
export function describe(manifest) {
  const { name, input, labels, model, metrics, dataset, license, proved } = manifest;
  const kind = { 1: "grey", 3: "colour" }[input.channels] ?? `× ${input.channels}`;
  document.title = name;
  $("name").textContent = name;
  $("size").textContent = `${input.width} × ${input.height} ${kind}`;
  $("rule").textContent =
    "A drawing is fitted and centred as the data set’s own examples are: an aid for drawing. " +
    `A picture is taken by the model’s own rule: ${input.picture}.`;
  const { accuracy } = metrics ?? {};
  const facts = {
    "Data set": dataset,
    "Accuracy on its test set": Number.isFinite(accuracy)
      ? `${(accuracy * 100).toFixed(2)} %`
      : "not measured",
    Proved: proved ?? "as its proof.json claims",
    Size: `${model.bytes.toLocaleString("en")} bytes, ${model.precision}`,
    Licence: license && license !== "unknown" ? license : "not stated",
    "SHA-256": `${model.sha256.slice(0, 12)}…`,
  };
  for (const [term, fact] of Object.entries(facts)) {
    const pair = [make("dt", { textContent: term }), make("dd", { textContent: fact })];
    $("facts").append(make("div", {}, ...pair));
  }
  hint(input, labels);
  const longest = Math.max(...labels.map((label) => label.length));
  $("bars").style.setProperty("--label", `${Math.min(longest * 0.62 + 0.6, 8)}em`);
  $("bars").style.setProperty("--rows", Math.min(labels.length, SHOWN));
  $("bars").append(...labels.map(barOf));
}

function hint(input, labels) {
  const [big, small] = $("hint").children;
  const signs = isSigns({ input, labels });
  const sign = labels.every((label) => /^\d+$/.test(label)) ? "digit" : "character";
  big.textContent = signs ? `Draw a ${sign}` : "Drop a picture";
  small.textContent = signs
    ? "or drop, paste or choose a picture"
    : "or paste one, choose one, or draw";
  $("choose").classList.toggle("primary", !signs);
  $("frame").style.aspectRatio = `${input.width} / ${input.height}`;
}

/** Whether the classes are signs that a person would write: digits, letters. */
export const isSigns = ({ input, labels }) =>
  input.channels === 1 && labels.every((label) => [...label].length <= 2);

function barOf(label, k) {
  const row = make(
    "li",
    {},
    make("span", { className: "who", textContent: label, title: label }),
    make("span", { className: "track" }, make("i", { className: "bar" })),
    make("span", { className: "much" }),
  );
  row.style.setProperty("--rank", k);
  row.dataset.label = label;
  return row;
}

/** Paint the very bytes that the model gets, one pixel for each. */
export function showInput(input, { channels, height, width }) {
  const canvas = $("preview");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, width, height);
  if (!input) return;
  const image = context.createImageData(width, height);
  const area = width * height;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[i * 4 + c] = input[channels === 1 ? i : c * area + i];
    image.data[i * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** A share of one, without decimals where they say nothing. */
const percent = (p) => `${(p * 100).toFixed(1).replace(/^(0|100)\.0$/, "$1")} %`;

let order = [];

/** Show the probabilities as bars, or none; `settled` says that no stroke is under way. */
export function showAnswer(found, labels, settled = true) {
  const before = order.length && found ? order : labels.map((_, i) => i);
  order = found ? reordered(before, found, settled) : before;
  const rows = $("bars").children;
  order.forEach((k, rank) => {
    const row = rows[k];
    row.style.setProperty("--rank", Math.min(rank, SHOWN));
    row.style.setProperty("--p", found ? found[k] : 0);
    row.classList.toggle("first", Boolean(found) && rank === 0);
    row.classList.toggle("away", rank >= SHOWN);
    row.dataset.probability = found ? found[k] : "";
    row.lastChild.textContent = found ? percent(found[k]) : "";
  });
  const label = found ? labels[order[0]] : "?";
  $("label").textContent = label;
  $("label").classList.toggle("long", label.length > 2);
  $("share").textContent = found
    ? percent(found[order[0]])
    : document.body.dataset.ready
      ? ""
      : "loading";
  speak(found ? `${label}, ${percent(found[order[0]])}` : "");
}

/** Sort the classes anew, stably; while a stroke lasts, only clear differences change places. */
function reordered(order, found, settled) {
  const best = ranked(found)[0];
  const rest = order.filter((k) => k !== best);
  const slack = settled ? 0 : CLOSE;
  for (let i = 1; i < rest.length; i++)
    for (let j = i; j > 0 && found[rest[j]] > found[rest[j - 1]] + slack; j--)
      [rest[j], rest[j - 1]] = [rest[j - 1], rest[j]];
  return [best, ...rest];
}

let times = [];

/** Show how long an inference takes: the median of the last ones. */
export function showTime(milliseconds) {
  times = [...times.slice(-20), milliseconds];
  const usual = [...times].sort((a, b) => a - b)[times.length >> 1];
  $("time").textContent = `${usual < 0.05 ? "under 0.1" : usual.toFixed(1)} ms`;
}

let speaking;

/** Tell a screen reader once the answer has settled. */
function speak(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("spoken").textContent = text), 700);
}

/** Show one check of the self-test. */
export function showCheck({ name, passed, text }) {
  const mark = make("span", { className: "mark", textContent: passed ? "✓" : "✗", role: "img" });
  mark.ariaLabel = passed ? "passed" : "failed";
  const rest = [
    make("span", { textContent: name }),
    make("span", { className: "text", textContent: text }),
  ];
  $("checks").append(make("li", { className: passed ? "passed" : "failed" }, mark, ...rest));
}

/** Say in one sentence what went wrong, or nothing. */
export function trouble(text = "") {
  $("trouble").textContent = text && `${text.replace(/\.$/, "")}.`;
  $("trouble").hidden = !text;
}
