/** `make sweep`: vectors on onnxruntime-web's WebAssembly, in Node: no browser is needed. Arguments: VECTORS RESULT. */

import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import * as ort from 'onnxruntime-web';
import { FolderBundle } from '../src/node/folderBundle.js';
import { runCase } from './conformance.js';
import { versionOf } from './onNode.js';

const [vectors, out] = process.argv.slice(2).map((path) => resolve(path)) as [string, string];
const runtime = `onnxruntime-web ${versionOf('onnxruntime-web')} (wasm)`;
const { cases: names } = JSON.parse(readFileSync(resolve(vectors, 'index.json'), 'utf8')) as {
  cases: string[];
};
ort.env.wasm.numThreads = 1;
const source = new FolderBundle(vectors);
const cases = [];
for (const name of names) {
  const { status, reason, deviations } = await runCase(source, ort, name);
  const off = deviations
    .filter(({ deviation, tolerance }) => deviation === null || !(deviation <= tolerance))
    .map(({ output, deviation, tolerance }) => [output, deviation, tolerance]);
  cases.push({ name, status, reason, deviations: off });
}
await writeFile(out, JSON.stringify({ runtime, cases }));
const failed = cases.filter(({ status }) => status === 'failed').length;
console.log(`${runtime}: ${cases.length} cases, ${failed} failed`);
