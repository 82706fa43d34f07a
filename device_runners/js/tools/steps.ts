/**
 * `npm run steps -- BUNDLE...`: a training step on one thread, in Python, on onnxruntime-node, and on the WebAssembly of
 * onnxruntime-web, of the same bundle, in turn.
 *
 * Each round asks each of them for some steps, one behind the other, so that other work on the machine slows all of them
 * alike. Printed are medians of CPU time over all steps, their ratios, and in brackets the least and the largest ratio of
 * a round. A page cannot ask for CPU time, so the WebAssembly runs in Node, whose engine is that of Chromium.
 */

import { basename, resolve } from 'node:path';
import * as web from 'onnxruntime-web/wasm';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FIXTURES, runtime } from './onNode.js';
import { type StepTime, TimedSteps } from './stepTimes.js';
import { cpuTime, median, PythonScript } from './timing.js';

const ROUNDS = 12;
// Milliseconds of steps of each side in a round.
const BURST = 250;
web.env.wasm.numThreads = 1;

interface Side {
  run(count: number): Promise<readonly StepTime[]>;
  close(): Promise<void>;
}

function inPython(bundle: string): Side {
  const python = new PythonScript('step_times.py', bundle);
  return {
    run: async (count) =>
      ((await python.ask(String(count))) as number[]).map((step) => ({ step, outside: 0 })),
    close: async () => python.close(),
  };
}

const stepOf = (times: readonly StepTime[]): number => median(times.map(({ step }) => step));

/** For each side its rounds. */
async function inTurn(sides: readonly Side[]): Promise<StepTime[][][]> {
  const counts: number[] = [];
  for (const side of sides) counts.push(Math.max(3, Math.round(BURST / stepOf(await side.run(5)))));
  const rounds: StepTime[][][] = sides.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [at, side] of sides.entries()) rounds[at]!.push([...(await side.run(counts[at]!))]);
  }
  return rounds;
}

function cells(rounds: readonly StepTime[][], python: readonly StepTime[][]): string[] {
  const all = rounds.flat();
  const ratios = rounds.map((one, round) => stepOf(one) / stepOf(python[round]!));
  const ratio = stepOf(all) / stepOf(python.flat());
  const share = median(all.map(({ step, outside }) => outside / step));
  return [
    `${stepOf(all).toFixed(1)} ms`,
    `${ratio.toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    `${(100 * share).toFixed(1)} %`,
  ];
}

const bundles = process.argv.slice(2);
console.log(
  '| bundle | Python | Node | of Python | JavaScript share | wasm | of Python | JavaScript share |',
);
console.log('|---|---|---|---|---|---|---|---|');
for (const given of bundles.length ? bundles : [resolve(FIXTURES, 'bundle')]) {
  const bundle = resolve(given);
  const sides: Side[] = [inPython(bundle)];
  for (const one of [runtime, web]) sides.push(await TimedSteps.open(new FolderBundle(bundle), one, cpuTime));
  const [python, node, wasm] = await inTurn(sides);
  for (const side of sides) await side.close();
  const first = [basename(bundle), `${stepOf(python!.flat()).toFixed(1)} ms`];
  console.log(`| ${[...first, ...cells(node!, python!), ...cells(wasm!, python!)].join(' | ')} |`);
}
