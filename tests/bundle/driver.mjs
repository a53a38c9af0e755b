// Drive a page in a real headless browser: steps as JSON on stdin, what was seen as JSON on stdout.
// puppeteer-core is taken from the node_modules folder named, the browser is the system's.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { modules, browser, steps } = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(path.join(modules, "here.js"));
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const launched = await puppeteer.launch({ executablePath: browser, args: ["--no-sandbox"] });
const page = await launched.newPage();
const requests = [];
const errors = [];
page.on("request", (request) => requests.push(request.url()));
page.on("pageerror", (error) => errors.push(error.message));

const frames = () =>
  page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
  );

/** All that a person could see, and the very bytes in the preview. */
function seen() {
  return page.evaluate(() => {
    const $ = (id) => document.getElementById(id);
    const { width, height } = $("preview");
    const rows = [...document.querySelectorAll("#bars li")];
    const top = (row) => row.getBoundingClientRect().top;
    return {
      probabilities: rows.map((row) =>
        row.dataset.probability === "" ? null : +row.dataset.probability,
      ),
      order: rows.toSorted((a, b) => top(a) - top(b)).map((row) => row.dataset.label),
      label: $("label").textContent,
      share: $("share").textContent,
      time: $("time").textContent,
      spoken: $("spoken").textContent,
      advice: $("advice").textContent,
      facts: $("facts").innerText,
      hint: $("hint").innerText,
      trouble: $("trouble").hidden ? "" : $("trouble").textContent,
      unserved: !$("unserved").hidden,
      pixels: [...$("preview").getContext("2d").getImageData(0, 0, width, height).data],
      selftest: document.body.dataset.selftest ?? null,
      checks: [...document.querySelectorAll("#checks li")].map((row) => [
        row.className,
        row.innerText,
      ]),
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      unnamed: [...document.querySelectorAll("button, input, canvas")].filter(
        (one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()),
      ).length,
    };
  });
}

const actions = {
  async open({ url, width = 1280, height = 800 }) {
    await page.setViewport({ width, height });
    await page.goto(url);
    const ended = () => document.body.dataset.ready;
    if (url.startsWith("http")) await page.waitForFunction(ended, { timeout: 60_000 });
    else await new Promise((done) => setTimeout(done, 2000));
  },
  async resize({ width, height }) {
    await page.setViewport({ width, height });
  },
  /** Draw with the mouse; what is shown on the way is told as well. */
  async draw({ strokes }) {
    const pad = await page.$("#pad");
    const box = await pad.boundingBox();
    const along = [];
    for (const stroke of strokes) {
      const at = stroke.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
      await page.mouse.move(...at[0]);
      await page.mouse.down();
      for (const point of at.slice(1)) {
        await page.mouse.move(...point, { steps: 4 });
        await frames();
        along.push((await seen()).probabilities);
      }
      await page.mouse.up();
    }
    return along;
  },
  async click({ what }) {
    await page.click(what);
  },
  async press({ keys }) {
    for (const key of keys) await page.keyboard.down(key);
    for (const key of keys.toReversed()) await page.keyboard.up(key);
  },
  async choose({ file }) {
    const input = await page.$("#file");
    await input.uploadFile(file);
  },
  async drop({ file, by = "drop" }) {
    const data = readFileSync(file).toString("base64");
    const act = ({ data, name, by }) => {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name));
      const how = { bubbles: true, cancelable: true };
      const event =
        by === "drop"
          ? new DragEvent("drop", { ...how, dataTransfer: transfer })
          : new ClipboardEvent("paste", { ...how, clipboardData: transfer });
      document.body.dispatchEvent(event);
    };
    await page.evaluate(act, { data, name: path.basename(file), by });
  },
  async selftest() {
    await page.waitForFunction(() => document.body.dataset.selftest, { timeout: 60_000 });
  },
};

const told = [];
for (const { act, ...how } of steps) {
  const along = await actions[act](how);
  // A picture is decoded apart, bars move to their places, and speech waits for both.
  await new Promise((done) => setTimeout(done, how.pause ?? 450));
  await frames();
  told.push({ ...(await seen()), along: along ?? null });
}
console.log(JSON.stringify({ told, requests, errors }));
await launched.close();
