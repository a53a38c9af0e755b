// Read the pictures that stdin names as a bundle's run.mjs does, or as its page does in a browser.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { module, url, modules, browser, paths, inputs } = JSON.parse(readFileSync(0, "utf8"));
const told = (bytes) => `=${Buffer.from(bytes).toString("base64")}`;
const say = (lines) => process.stdout.write(`${JSON.stringify(lines)}\n`);

async function inNode() {
  const { readPicture } = await import(pathToFileURL(module));
  for (const file of paths) {
    const lines = [];
    for (const input of inputs)
      lines.push(await readPicture(file, input, false).then(told, (error) => error.message));
    say(lines);
  }
}

async function inPage() {
  const require = createRequire(path.join(modules, "here.js"));
  const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));
  const launched = await puppeteer.launch({ executablePath: browser, args: ["--no-sandbox"] });
  const page = await launched.newPage();
  page.on("pageerror", (error) => console.error(error.message));
  await page.goto(`${url}blank.html`);
  const read = async ({ data, inputs }) => {
    const { decode } = await import("/decode.mjs");
    const { toInput } = await import("/picture.mjs");
    const lines = [];
    for (const input of inputs)
      try {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        lines.push({ pixels: [...toInput(await decode(bytes), input)] });
      } catch (error) {
        lines.push({ said: error.message });
      }
    return lines;
  };
  for (const file of paths) {
    const data = readFileSync(file).toString("base64");
    const lines = await page.evaluate(read, { data, inputs });
    say(lines.map(({ pixels, said }) => (pixels ? told(pixels) : said)));
  }
  await launched.close();
}

await (url ? inPage() : inNode());
