/**
 * `npm run steps -- BUNDLE...`: a training step on one thread, in Python, on onnxruntime-node, and on the WebAssembly of
 * onnxruntime-web, of the same bundle.
 *
 * CPU time of the fastest step, since other work on the machine is then left out. A page cannot ask for it, so the
 * WebAssembly runs in Node, whose engine is that of Chromium.
 */

import { execFileSync } from 'node:child_process';
import { basename, resolve } from 'node:path';
import * as web from 'onnxruntime-web/wasm';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FIXTURES, HERE, runtime } from './onNode.js';
import { timeSteps } from './stepTimes.js';

const STEPS = 30;
web.env.wasm.numThreads = 1;

/** Milliseconds of CPU that this process took, all its threads together. */
function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function inPython(bundle: string): number {
  const program = process.env.PYTHON ?? resolve(HERE, '../../.venv/bin/python');
  const env = { ...process.env, OMP_NUM_THREADS: '1' };
  const script = [resolve(HERE, 'tools/step_times.py'), bundle, String(STEPS)];
  return (JSON.parse(execFileSync(program, script, { env, encoding: 'utf8' })) as { step: number }).step;
}

const bundles = process.argv.slice(2);
console.log(
  '| bundle | Python | Node | of Python | JavaScript share | wasm | of Python | JavaScript share |',
);
console.log('|---|---|---|---|---|---|---|---|');
for (const given of bundles.length ? bundles : [resolve(FIXTURES, 'bundle')]) {
  const bundle = resolve(given);
  const python = inPython(bundle);
  const cells: string[] = [];
  for (const one of [runtime, web]) {
    const { step, outside } = await timeSteps(new FolderBundle(bundle), one, STEPS, cpuTime);
    const share = `${((100 * outside) / step).toFixed(1)} %`;
    cells.push(`${step.toFixed(1)} ms`, (step / python).toFixed(2), share);
  }
  console.log(`| ${[basename(bundle), `${python.toFixed(1)} ms`, ...cells].join(' | ')} |`);
}
