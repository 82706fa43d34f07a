/** The digits task of the demo: three tasks of two classes each, and the accuracy over all ten classes. */

import type { BundleSource } from '../src/bundle/source.js';
import type { Picture } from '../src/data/pictures.js';
import { textOf } from '../src/formats/bytes.js';
import { decode } from '../src/formats/safetensors.js';
import { Learner } from '../src/learner.js';
import type { Runtime } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';

/** What tools/fixtures.py wrote beside the bundle. */
export interface Digits {
  readonly names: readonly string[];
  readonly tasks: Readonly<Record<string, readonly number[]>>;
  /** Percent over all classes, of the Python SDK with the same settings. */
  readonly accuracy: number;
  readonly train: Labelled;
  readonly test: Labelled;
}

export interface Labelled {
  readonly pictures: readonly Picture[];
  readonly labels: readonly number[];
}

/** As the demo's: more and larger steps than the defaults, for 270 images of 8x8 pixels. */
export const SETTINGS = {
  epochs: 10,
  patience: 0,
  learningRate: 0.05,
  threads: 1,
  fewShot: 0,
  train: 'centers',
} as const;

export async function readDigits(fixtures: BundleSource): Promise<Digits> {
  const facts = await fixtures.read('digits.json');
  const file = await fixtures.read('digits.safetensors');
  if (!facts || !file) throw new Error(`${fixtures.name} has no digits: run npm run fixtures`);
  const { tensors } = decode(file);
  const labelled = (split: string): Labelled => {
    const pixels = tensors.get(`${split}/images`)!.data as Uint8Array;
    const labels = Array.from(tensors.get(`${split}/labels`)!.data as BigInt64Array, Number);
    const pictures = labels.map((_, i) => ({
      width: 8,
      height: 8,
      data: pixels.subarray(i * 64, (i + 1) * 64),
    }));
    return { pictures, labels };
  };
  const read = JSON.parse(textOf(facts)) as Omit<Digits, 'train' | 'test'>;
  return { ...read, train: labelled('train'), test: labelled('test') };
}

/** Those of some digits; labels are places in `members`. */
export function only({ pictures, labels }: Labelled, members: readonly number[]): Labelled {
  const index = labels.flatMap((label, i) => (members.includes(label) ? [i] : []));
  return {
    pictures: index.map((i) => pictures[i]!),
    labels: index.map((i) => members.indexOf(labels[i]!)),
  };
}

export function openDigits(
  fixtures: BundleSource,
  runtime: Runtime,
  storage: Storage = new MemoryStorage(),
): Promise<Learner> {
  const bundle: BundleSource = {
    name: `${fixtures.name}/bundle`,
    read: (name) => fixtures.read(`bundle/${name}`),
  };
  return Learner.open({ runtime, bundle, storage, config: SETTINGS });
}

/** Percent of the test images, of all classes, that are predicted right among all classes. */
export async function accuracyOf(learner: Learner, { names, test }: Digits): Promise<number> {
  const { labels } = await learner.predict(test.pictures);
  const right = labels.filter((label, i) => label === names[test.labels[i]!]).length;
  return (100 * right) / labels.length;
}

/** Learn all tasks; accuracy over all classes in percent, and the seconds that learning took. */
export async function learnDigits(
  fixtures: BundleSource,
  runtime: Runtime,
  storage?: Storage,
): Promise<{ accuracy: number; seconds: number }> {
  const digits = await readDigits(fixtures);
  const learner = await openDigits(fixtures, runtime, storage);
  const begun = performance.now();
  for (const [name, members] of Object.entries(digits.tasks)) {
    const classes = members.map((digit) => digits.names[digit]!);
    await learner.learn({ name, classes, ...only(digits.train, members) });
  }
  const seconds = (performance.now() - begun) / 1000;
  const accuracy = await accuracyOf(learner, digits);
  await learner.close();
  return { accuracy: Math.round(accuracy * 100) / 100, seconds: Math.round(seconds * 100) / 100 };
}

/** The settings of tests/conformance/digits.py. */
const SHARED = { epochs: 3, learningRate: 0.02, shift: 1, threads: 1, fewShot: 0, train: 'centers' } as const;
const SHARED_TASKS = ['01-four-five', '02-six-seven'];

export { SHARED, SHARED_TASKS };
