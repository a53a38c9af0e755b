// Open a page in a real headless browser at several widths: {modules, browser, file, widths} as JSON
// on stdin, what was seen at each as JSON on stdout.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { modules, browser, file, widths } = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(path.join(modules, "here.js"));
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const launched = await puppeteer.launch({ executablePath: browser, args: ["--no-sandbox"] });
const seen = [];
for (const width of widths) {
  for (const scheme of ["light", "dark"]) {
    const page = await launched.newPage();
    const said = [];
    const requests = [];
    page.on("console", (message) => said.push(message.text()));
    page.on("pageerror", (error) => said.push(error.message));
    page.on("request", (request) => {
      if (!request.url().startsWith("data:")) requests.push(request.url());
    });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setViewport({ width, height: 800 });
    await page.goto(pathToFileURL(file).href);
    const found = await page.evaluate(() => {
      for (const each of document.querySelectorAll("details")) each.open = true;
      const root = document.documentElement;
      const shown = (one) => one.getBoundingClientRect();
      return {
        overflow: root.scrollWidth - root.clientWidth,
        pictures: document.images.length,
        broken: [...document.images].filter((one) => !one.naturalWidth).length,
        flat: [...document.images, ...document.querySelectorAll("svg")].filter(
          (one) => shown(one).width < 8 || shown(one).height < 8,
        ).length,
        ground: getComputedStyle(document.body).backgroundColor,
        charts: [...document.querySelectorAll("svg text")].map((one) => getComputedStyle(one).fill),
        scripts: document.scripts.length,
      };
    });
    seen.push({ width, scheme, ...found, said, requests });
    await page.close();
  }
}
console.log(JSON.stringify(seen));
await launched.close();
