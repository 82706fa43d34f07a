/**
 * `node out/build/tools/lesson.js node|wasm FOLDER`: one lesson that `benchmarks/lesson_times.py` wrote into FOLDER, in this
 * process and on one thread, into a new state in FOLDER; what it took and what it is worth goes into `found.json` there.
 *
 * `lesson.json` has the folder of the bundle, names of task and classes, those of the base, and settings as Python names
 * them; `lesson.safetensors` images `(n, h, w, 3)` and labels of `train`, `test` and `base`. A page cannot ask for CPU
 * time, so the WebAssembly runs in Node, whose engine is Chromium's. Linux only: the peak of memory is begun anew.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainingConfig } from '../src/config.js';
import { SETTINGS } from '../src/contract/settings.js';
import { decode } from '../src/formats/safetensors.js';
import type { Tensors } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import type { Runtime } from '../src/runtime/sessions.js';
import type { Labelled } from './digits.js';
import { runtime } from './onNode.js';
import { cpuTime } from './timing.js';

interface Lesson {
  readonly bundle: string;
  readonly name: string;
  readonly classes: readonly string[];
  readonly base: readonly string[];
  readonly settings: Readonly<Record<string, unknown>>;
}

async function runtimeOf(name: string | undefined): Promise<Runtime> {
  if (name === 'node') return runtime;
  const web = await import('onnxruntime-web/wasm');
  web.env.wasm.numThreads = 1;
  return web;
}

/** A line of the process's memory in MiB, such as VmRSS. */
function memory(name: string): number {
  const line = readFileSync('/proc/self/status', 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${name}:`));
  return Number(line!.split(/\s+/)[1]) / 1024;
}

function labelled(tensors: Tensors, split: string): Labelled {
  const { shape, data } = tensors.get(`${split}/images`)!;
  const [, height, width, channels] = shape as [number, number, number, number];
  const size = height * width * channels;
  const labels = Array.from(tensors.get(`${split}/labels`)!.data as BigInt64Array, Number);
  const pictures = labels.map((_, i) => {
    return { data: (data as Uint8Array).subarray(i * size, (i + 1) * size), width, height, channels };
  });
  return { pictures, labels };
}

function settingsOf(given: Lesson['settings']): Partial<TrainingConfig> {
  const named = Object.entries(SETTINGS).filter(([, { record }]) => record in given);
  return Object.fromEntries(named.map(([name, { record }]) => [name, given[record]]));
}

const [kind, folder] = process.argv.slice(2) as [string, string];
const ort = await runtimeOf(kind);
const lesson = JSON.parse(readFileSync(join(folder, 'lesson.json'), 'utf8')) as Lesson;
const { tensors } = decode(readFileSync(join(folder, 'lesson.safetensors')));
const { name, classes } = lesson;
const train = labelled(tensors, 'train');

writeFileSync('/proc/self/clear_refs', '5');
const before = memory('VmRSS');
const [begun, used] = [performance.now(), cpuTime()];
const phases: Record<string, number> = {};
const learner = await Learner.open({
  runtime: ort,
  bundle: new FolderBundle(lesson.bundle),
  storage: new FolderStorage(join(folder, 'state')),
  config: { threads: 1, ...settingsOf(lesson.settings) },
});
await learner.learn(
  { name, classes, ...train },
  {
    onProgress: ({ phase }) => {
      phases[phase] ??= cpuTime();
    },
  },
);
const end = cpuTime();
const wall = performance.now() - begun;
const peak = memory('VmHWM') - before;

async function right(split: string, names: readonly string[], task?: string): Promise<number> {
  const { pictures, labels } = labelled(tensors, split);
  const said = await learner.predict(pictures, task === undefined ? {} : { task });
  return (100 * labels.filter((label, i) => said.labels[i] === names[label]).length) / labels.length;
}

const consolidate = phases.consolidate!;
const found = {
  cpu: (end - used) / 1000,
  wall: wall / 1000,
  peak,
  front: ((phases.train ?? consolidate) - used) / 1000,
  steps: (consolidate - (phases.train ?? consolidate)) / 1000,
  behind: (end - consolidate) / 1000,
  task: await right('test', classes, name),
  all: await right('test', classes),
  base: await right('base', lesson.base),
};
await learner.close();
writeFileSync(join(folder, 'found.json'), JSON.stringify(found));
