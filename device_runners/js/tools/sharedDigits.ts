/** The digits tasks that every platform learns, in states that go from one platform to another (docs/conformance.md). */

import type { BundleSource } from '../src/bundle/source.js';
import { sha256 } from '../src/formats/bytes.js';
import { decode } from '../src/formats/safetensors.js';
import type { Tensors } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import type { Runtime } from '../src/runtime/sessions.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { type Labelled, SHARED } from './digits.js';

const SIZE = 8;

/** What a state knows: of each task's test images, the class among all classes. */
export interface Told {
  /** The mean of the tasks' accuracies, in percent. */
  readonly accuracy: number;
  readonly predictions: Readonly<Record<string, readonly string[]>>;
}

/** What became of a state on this platform. */
export interface Visited {
  /** What it knew when it was opened; missing where it was new. */
  readonly opened?: Told;
  readonly told: Told;
  /** Of learning. */
  readonly seconds: number;
}

/** Open the state in `storage`, learn the tasks on top of it, and tell before and after. */
export async function visit(
  folder: BundleSource,
  runtime: Runtime,
  storage: Storage,
  tasks: readonly string[],
): Promise<Visited> {
  const file = await folder.read('digits.safetensors');
  if (!file) throw new Error(`${folder.name} has no digits.safetensors: run tests/conformance/digits.py`);
  const { tensors } = decode(file);
  const bundle: BundleSource = {
    name: `${folder.name}/bundle`,
    read: (name) => folder.read(`bundle/${name}`),
  };
  const learner = await Learner.open({ runtime, bundle, storage, config: SHARED });
  const opened = learner.tasks.length ? { opened: await tell(learner, tensors) } : {};
  const begun = performance.now();
  for (const name of tasks) {
    await learner.learn({ name, classes: classesOf(name), ...labelled(tensors, `${name}/train`) });
  }
  const seconds = Math.round((performance.now() - begun) / 10) / 100;
  const told = await tell(learner, tensors);
  await learner.close();
  return { ...opened, told, seconds };
}

async function tell(learner: Learner, tensors: Tensors): Promise<Told> {
  const predictions: Record<string, readonly string[]> = {};
  let sum = 0;
  for (const name of ['base', ...learner.tasks.map((task) => task.name)]) {
    const members = name === 'base' ? learner.bundle.manifest.classes : classesOf(name);
    const test = labelled(tensors, `${name}/test`);
    const { labels } = await learner.predict(test.pictures);
    predictions[name] = labels;
    const right = labels.filter((label, i) => label === members[test.labels[i]!]).length;
    sum += (100 * right) / labels.length;
  }
  return { accuracy: Math.round((100 * sum) / Object.keys(predictions).length) / 100, predictions };
}

function classesOf(task: string): string[] {
  return task.split('-').slice(1);
}

function labelled(tensors: Tensors, name: string): Labelled {
  const pixels = tensors.get(`${name}/images`)!.data as Uint8Array;
  const labels = Array.from(tensors.get(`${name}/labels`)!.data as BigInt64Array, Number);
  const area = SIZE * SIZE;
  const picture = (i: number) => ({
    width: SIZE,
    height: SIZE,
    data: pixels.subarray(i * area, (i + 1) * area),
  });
  return { pictures: labels.map((_, i) => picture(i)), labels };
}

/** The files of a state, by path: what a browser can hand out, in base64. */
export type Files = Readonly<Record<string, string>>;

/** Carry a state out of a storage, by the library's own `copyState`. */
export async function carriedOut(storage: Storage): Promise<{ files: Files; sha256: Files }> {
  const copy = new MemoryStorage();
  await copyState(storage, copy);
  const entries = [...copy.files];
  const text = (bytes: Uint8Array): string => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
  return {
    files: Object.fromEntries(entries.map(([path, bytes]) => [path, btoa(text(bytes))])),
    sha256: Object.fromEntries(entries.map(([path, bytes]) => [path, sha256(bytes)])),
  };
}

/** And into an empty one. */
export async function carryIn(files: Files, storage: Storage): Promise<void> {
  const copy = new MemoryStorage();
  for (const [path, content] of Object.entries(files)) {
    copy.files.set(
      path,
      Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)),
    );
  }
  await copyState(copy, storage);
}
