// The page: a drawing or a picture in, probabilities out, live. The model runs here.

import { decode } from "./decode.mjs";
import { MOST_BYTES } from "./headers.mjs";
import { firstLine, openModel, parse, parseManifest } from "./model.mjs";
import { measure, render, trace } from "./pad.mjs";
import { toInput } from "./picture.mjs";
import { checks } from "./selftest.mjs";
import {
  $,
  describe,
  isSigns,
  showAnswer,
  showCheck,
  showInput,
  showTime,
  trouble,
} from "./show.mjs";

const OFF_PAGE = /^(README\.md|proof\.json|requirements\.txt|package\.json|run\.(py|mjs))$/;

const state = { strokes: [], stroke: null, picture: null, style: null, latest: 0 };
let manifest, ort, run;

/** Read a file of the folder. */
async function read(name) {
  const answer = await fetch(new URL(name, import.meta.url), { cache: "no-cache" }).catch(
    () => null,
  );
  if (!answer?.ok) throw new Error(`${name} is missing beside this page`);
  return new Uint8Array(await answer.arrayBuffer());
}

const canvasOf = (width, height) =>
  Object.assign(document.createElement("canvas"), { width, height });

// --- from a drawing or a picture to the bars ----------------------------------------------

/** Whether the pad's ground is light: as the data set has it, or the reverse with invert. */
const paper = () => state.style.light !== $("invert").checked;

function currentInput() {
  const invert = $("invert").checked;
  if (state.picture) return toInput(state.picture.pixels, manifest.input, invert);
  if (!state.strokes.length) return null;
  const how = { style: state.style, centre: $("centre").checked, paper: paper() };
  return toInput(render(state.strokes, manifest.input, how), manifest.input, invert);
}

let waiting = false;

/** Show what changed, at most once a frame, the model's answer included. */
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(async () => {
    waiting = false;
    const turn = ++state.latest;
    paintPad();
    const input = currentInput();
    showInput(input, manifest.input);
    advise(input);
    if (!input || !run) return showAnswer(null, manifest.labels);
    const start = performance.now();
    try {
      const [found] = await run(input);
      showTime(performance.now() - start);
      if (turn === state.latest) showAnswer(found, manifest.labels, !state.stroke);
    } catch (error) {
      trouble(`The model could not be run: ${firstLine(error)}`);
    }
  });
}

function paintPad() {
  const pad = $("pad");
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [pad.clientWidth * scale, pad.clientHeight * scale].map(Math.round);
  if (pad.width !== width || pad.height !== height) Object.assign(pad, { width, height });
  const context = pad.getContext("2d");
  const used = Boolean(state.picture || state.strokes.length);
  context.clearRect(0, 0, width, height);
  if (state.picture) {
    const { image } = state.picture;
    const zoom = Math.max(width / image.width, height / image.height);
    const [w, h] = [image.width * zoom, image.height * zoom];
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
  } else if (state.strokes.length) {
    context.strokeStyle = paper() ? "#000" : "#fff";
    trace(context, state.strokes, width, height, state.style.thickness);
  }
  $("frame").classList.toggle("light", paper());
  document.body.classList.toggle("used", used);
  document.body.classList.toggle("idle", !used);
  $("undo").disabled = $("clear").disabled = !used;
  const what = state.picture ? `the picture ${state.picture.name}` : "your drawing";
  pad.setAttribute("aria-label", `Drawing area; ${used ? what : "nothing"} on it`);
}

/** Say so where a picture's ground is not the data set's; photographed ink on paper is not. */
function advise(input) {
  const { width: w, height: h } = manifest.input;
  const corners = input ? [0, w - 1, (h - 1) * w, w * h - 1].map((i) => input[i]) : [];
  const other = state.style.light ? (value) => value < 80 : (value) => value > 175;
  const asks = state.picture && isSigns(manifest) && corners.every(other);
  $("advice").textContent = asks ? `(${state.style.light ? "dark" : "light"} ground?)` : "";
}

// --- what a person does -------------------------------------------------------------------

function clear() {
  Object.assign(state, { strokes: [], stroke: null, picture: null });
  trouble();
  refresh();
}

function undo() {
  if (state.picture) return clear();
  state.strokes = state.strokes.slice(0, -1);
  refresh();
}

async function show(file) {
  trouble();
  try {
    if (file.size > MOST_BYTES)
      throw new Error(`it is larger than ${MOST_BYTES.toLocaleString("en-US")} bytes`);
    const pixels = await decode(new Uint8Array(await file.arrayBuffer()));
    const image = canvasOf(pixels.width, pixels.height);
    const data = new Uint8ClampedArray(pixels.data);
    image.getContext("2d").putImageData(new ImageData(data, pixels.width, pixels.height), 0, 0);
    Object.assign(state, { strokes: [], picture: { pixels, image, name: file.name } });
  } catch (error) {
    trouble(`“${file.name}” is no readable picture: ${firstLine(error)}`);
  }
  refresh();
}

function drawing() {
  const pad = $("pad");
  const point = (event) => {
    const at = pad.getBoundingClientRect();
    return [(event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height];
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    pad.setPointerCapture(event.pointerId);
    if (state.picture) clear();
    state.strokes.push((state.stroke = [point(event)]));
    refresh();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!state.stroke || !event.isPrimary) return;
    const events = event.getCoalescedEvents?.() ?? [];
    state.stroke.push(...(events.length ? events : [event]).map(point));
    refresh();
  });
  const end = (event) => {
    if (!state.stroke || !event.isPrimary) return;
    state.stroke = null;
    refresh();
  };
  pad.addEventListener("pointerup", end);
  pad.addEventListener("pointercancel", end);
  new ResizeObserver(refresh).observe(pad);
}

function wire() {
  drawing();
  $("undo").onclick = undo;
  $("clear").onclick = clear;
  $("invert").onchange = $("centre").onchange = refresh;
  $("choose").onclick = () => $("file").click();
  $("file").onchange = (event) => {
    if (event.target.files[0]) show(event.target.files[0]);
    event.target.value = "";
  };
  $("selftest").onclick = selftest;
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) show(event.clipboardData.files[0]);
  });
  const over = (on) => (event) => {
    event.preventDefault();
    $("frame").classList.toggle("over", on);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
    else trouble("What was dropped is no file");
  });
}

/** Whether a picture can become an input: one of 2 or 4 channels is no picture. */
const takesPictures = () => [1, 3].includes(manifest.input.channels);

function noPictures() {
  $("selftest").onclick = selftest;
  $("choose").disabled = true;
  $("hint").replaceChildren();
  const { channels } = manifest.input;
  trouble(`This model takes no pictures: its input has ${channels} channels. Its self-test runs`);
}

async function selftest() {
  $("selftest").disabled = true;
  $("checks").replaceChildren();
  delete document.body.dataset.selftest;
  let passed = true;
  const covers = (name) => !OFF_PAGE.test(name);
  for await (const check of checks({ read, decode, ort, covers })) {
    passed &&= check.passed;
    showCheck(check);
    $("outcome").textContent = `${$("checks").children.length} checks so far …`;
  }
  const verdict = Object.assign(document.createElement("b"), {
    textContent: passed ? "Yes" : "No",
  });
  const why = passed ? ": this browser gives the recorded answers." : ": do not trust its answers.";
  $("outcome").replaceChildren(verdict, why);
  $("selftest").disabled = false;
  document.body.dataset.selftest = passed ? "yes" : "no";
}

// --- the start ----------------------------------------------------------------------------

async function start() {
  $("unserved").hidden = true;
  manifest = parseManifest(await read("model.json"));
  describe(manifest);
  const golden = await read(manifest.golden).then(
    (bytes) => parse(bytes, manifest.golden),
    () => null,
  );
  state.style = measure(golden?.tensors ?? { inputs: "", shape: [0] }, manifest.input);
  $("hint").style.setProperty("--edge", `${Math.max((1 - state.style.box) / 2, 0.05) * 100}%`);
  if (takesPictures()) wire();
  else noPictures();
  refresh();
  const web = new URL("./ort/", import.meta.url).href;
  ort = await import(`${web}ort.wasm.min.mjs`).catch(() => {
    const cure = "bundle again without --no-web, or put onnxruntime-web's files there";
    throw new Error(`The folder ort/ is missing beside this page: ${cure}`);
  });
  ort.env.wasm.wasmPaths = web;
  ort.env.wasm.numThreads = 1;
  $("selftest").disabled = false;
  const opened = await openModel(ort, manifest, await read(manifest.model.file));
  const { channels, height, width } = manifest.input;
  await opened(new Uint8Array(channels * height * width)); // the first run is slower than any other
  run = opened;
  document.body.dataset.ready = "yes";
  refresh();
}

try {
  await start();
} catch (error) {
  trouble(firstLine(error));
  document.body.dataset.ready = "no";
}
if (new URLSearchParams(location.search).has("selftest")) {
  if (ort) await selftest();
  else document.body.dataset.selftest = "no";
}
