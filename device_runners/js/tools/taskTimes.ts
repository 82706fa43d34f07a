/**
 * `npm run task-times -- [CLASSESxIMAGESxEPOCHS] [heads] BUNDLE...`: what a task, of 5x100x2 unless told otherwise, takes in
 * front of its steps, in an epoch of them, and behind them, on one thread, in Python, on onnxruntime-node and on the
 * WebAssembly of onnxruntime-web. With `heads`, there are no steps.
 *
 * Each side learns a task that is not counted, and then one that is, in a new state, in turn for some rounds. Printed
 * are medians of CPU time. A page cannot ask for CPU time, so the WebAssembly runs in Node, whose engine is Chromium's.
 */

import { basename, resolve } from 'node:path';
import * as web from 'onnxruntime-web/wasm';
import { Bundle } from '../src/bundle/bundle.js';
import type { Picture } from '../src/data/pictures.js';
import { Learner } from '../src/learner.js';
import { Random } from '../src/method/random.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import type { Runtime } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { FIXTURES, runtime } from './onNode.js';
import { cpuTime, median, PythonScript } from './timing.js';

const ROUNDS = 3;
const SIZE = /^(\d+)x(\d+)x(\d+)$/;
const [CLASSES, PICTURES, EPOCHS] = process.argv
  .flatMap((one) => SIZE.exec(one)?.slice(1, 4).map(Number) ?? [])
  .concat(5, 100, 2) as [number, number, number];
const TRAIN = process.argv.includes('heads') ? 'heads' : 'centers';
// A class is a mosaic of so many colours in each direction, with noise of so many levels.
const TILES = 4;
const NOISE = 40;
web.env.wasm.numThreads = 1;

const PARTS = ['in front of the steps', 'an epoch of steps', 'behind them'] as const;
/** Seconds of CPU of each of PARTS, as tools/task_times.py answers. */
type Times = readonly number[];

async function inJavaScript(bundle: string, ort: Runtime): Promise<Times> {
  const config = { threads: 1, epochs: EPOCHS, patience: 0, train: TRAIN } as const;
  const learner = await Learner.open({
    runtime: ort,
    bundle: new FolderBundle(bundle),
    storage: new MemoryStorage(),
    config,
  });
  await learner.learn(mosaics(learner, 0));
  const begun: Record<string, number> = {};
  const start = cpuTime();
  await learner.learn(mosaics(learner, 1), {
    onProgress: ({ phase }) => {
      begun[phase] ??= cpuTime();
    },
  });
  const end = cpuTime();
  await learner.close();
  const { consolidate, train = consolidate } = begun as { consolidate: number; train?: number };
  return [train - start, (consolidate - train) / EPOCHS, end - consolidate].map((ms) => ms / 1000);
}

/** A task whose classes can be told apart, so that none of the guards ends it. */
function mosaics(learner: Learner, task: number) {
  const { channels, size } = learner.bundle.manifest.input;
  const [height, width] = size as [number, number];
  const random = new Random(task);
  const colours = Array.from(
    { length: CLASSES * TILES * TILES * channels },
    () => 55 + 145 * random.uniform(),
  );
  const labels = Array.from({ length: CLASSES * PICTURES }, (_, i) => i % CLASSES);
  const picture = (label: number): Picture => {
    const data = new Uint8Array(height * width * channels);
    for (let at = 0; at < data.length; at++) {
      const pixel = Math.floor(at / channels);
      const row = Math.floor((TILES * Math.floor(pixel / width)) / height);
      const column = Math.floor((TILES * (pixel % width)) / width);
      const tile = (label * TILES + row) * TILES + column;
      data[at] = colours[tile * channels + (at % channels)]! + NOISE * (random.uniform() - 0.5);
    }
    return { data, width, height, channels };
  };
  return {
    name: `task ${task}`,
    classes: Array.from({ length: CLASSES }, (_, i) => `task ${task}, class ${i}`),
    labels,
    pictures: labels.map(picture),
  };
}

console.log(`| bundle | features | ${CLASSES} x ${PICTURES} images | Python | Node | wasm |`);
console.log('|---|---|---|---|---|---|');
const given = process.argv.slice(2).filter((one) => !SIZE.test(one) && one !== 'heads');
for (const bundle of (given.length ? given : [resolve(FIXTURES, 'bundle')]).map((one) => resolve(one))) {
  const python = new PythonScript('task_times.py', bundle);
  const sides: readonly (() => Promise<Times>)[] = [
    async () => (await python.ask(`${CLASSES} ${PICTURES} ${EPOCHS} ${TRAIN}`)) as number[],
    () => inJavaScript(bundle, runtime),
    () => inJavaScript(bundle, web),
  ];
  const rounds: Times[][] = sides.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [at, side] of sides.entries()) rounds[at]!.push(await side());
  }
  python.close();
  const { head } = (await Bundle.open(new FolderBundle(bundle))).manifest;
  for (const [at, part] of PARTS.entries()) {
    const cells = rounds.map((times) => `${median(times.map((one) => one[at]!)).toFixed(2)} s`);
    console.log(`| ${[basename(bundle), head.features, part, ...cells].join(' | ')} |`);
  }
}
