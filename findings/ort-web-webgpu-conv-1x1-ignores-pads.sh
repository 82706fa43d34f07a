#!/usr/bin/env bash
# A Conv with a 1x1 kernel and pads on one side: onnxruntime-web's WebGPU provider computes it as a matrix product of the input as it is,
# and fills an output of the padded shape with that. Shape and dtype are right, no warning, other numbers: of the image 1 2 / 3 4
# with a kernel of 1 and pads [0, 0, 1, 1] the WebAssembly provider gives 1 2 0 / 3 4 0 / 0 0 0. Gradients of a convolution with
# strides have such nodes, and train on other numbers by a tenth. (onnxruntime-web 1.30.0, Chromium with its software adapter.)
# Expected: both providers give the same. Exits 1 where that is so. Needs Node 20, Chromium (CHROMIUM=PATH).
set -euo pipefail
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
cd "$at"
echo '{"private": true}' > package.json
npm install --silent --ignore-scripts --no-audit --no-fund onnxruntime-web@1.30.0 playwright-core@1.65.1
cat > run.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';

const types = { mjs: 'text/javascript', wasm: 'application/wasm' };
const server = createServer(({ url }, response) => {
  if (url === '/') return response.writeHead(200, { 'content-type': 'text/html' }).end('<p>');
  try {
    const file = readFileSync(`node_modules/onnxruntime-web/dist${url}`);
    response.writeHead(200, { 'content-type': types[url.split('.').at(-1)] ?? 'text/plain' }).end(file);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'],
});
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);
// y = Conv(x, w), x 1x1x2x2, w a single 1, kernel_shape [1, 1], pads [0, 0, 1, 1].
const model =
  'CAg6jQEKOQoBeAoBdxIBeSIEQ29udioVCgxrZXJuZWxfc2hhcGVAAUABoAEHKhEKBHBhZHNAAEAAQAFAAaABBxIBZyoTCAEIAQgBCAEQAUIBd0oEAACA' +
  'P1obCgF4EhYKFAgBEhAKAggBCgIIAQoCCAIKAggCYhsKAXkSFgoUCAESEAoCCAEKAggBCgIIAwoCCANCBAoAEBE=';
const found = await page.evaluate(async (text) => {
  if (!(await navigator.gpu?.requestAdapter())) return undefined;
  const ort = await import('/ort.webgpu.min.mjs');
  ort.env.wasm.wasmPaths = '/';
  ort.env.wasm.numThreads = 1;
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const all = { version: ort.env.versions.common };
  for (const name of ['wasm', 'webgpu']) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: [name] });
    const { y } = await session.run({ x: new ort.Tensor('float32', [1, 2, 3, 4], [1, 1, 2, 2]) });
    all[name] = `${y.dims.join('x')}: ${[...y.data].join(' ')}`;
  }
  return all;
}, model);
await browser.close();
server.close();
if (!found) {
  console.log('This Chromium has no WebGPU.');
  process.exit(2);
}
console.log(`onnxruntime-web ${found.version}\nwasm   ${found.wasm}\nwebgpu ${found.webgpu}`);
const right = '1x1x3x3: 1 2 0 3 4 0 0 0 0';
process.exit(found.wasm === right && found.webgpu !== right ? 0 : 1);
JS
node run.mjs
