// Run one file by one runtime: node worker.mjs NAME PACKAGE FOLDER. The folder holds model.onnx,
// images (raw bytes) and task.json; it writes version, then logits and probabilities (raw
// float32), or problem.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const OUTPUTS = ["logits", "probabilities"];
const [name, place, folder] = process.argv.slice(2);
const require = createRequire(import.meta.url);

async function main() {
  const task = JSON.parse(readFileSync(join(folder, "task.json"), "utf8"));
  const images = readFileSync(join(folder, "images"));
  writeFileSync(join(folder, "version"), require(join(place, "package.json")).version);
  const ort = require(place);
  // Several threads would need workers, which a page gets only with special headers.
  if (name === "onnxruntime-web") ort.env.wasm.numThreads = 1;
  const model = readFileSync(join(folder, "model.onnx"));
  const session = await ort.InferenceSession.create(model);
  const [count, ...shape] = task.shape;
  const bytes = shape.reduce((product, size) => product * size, 1);
  const found = { logits: [], probabilities: [] };
  for (let start = 0; start < count; start += task.batch) {
    const size = Math.min(task.batch, count - start);
    const given = Uint8Array.from(images.subarray(start * bytes, (start + size) * bytes));
    const image = new ort.Tensor("uint8", given, [size, ...shape]);
    const answer = await session.run({ image });
    for (const output of OUTPUTS) {
      const rows = answer[output].dims[0];
      if (rows !== size) throw new Error(`a batch of ${size} got ${rows} answers`);
      // A copy: a runtime may hand out the same memory at every call.
      const data = Float32Array.from(answer[output].data);
      found[output].push(Buffer.from(data.buffer));
    }
  }
  for (const output of OUTPUTS) writeFileSync(join(folder, output), Buffer.concat(found[output]));
}

main().catch((error) => writeFileSync(join(folder, "problem"), `${error.message ?? error}`));
