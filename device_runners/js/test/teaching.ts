/** Digits taught to a learner, with whatever names, and how many of others it then knows. */

import { expect } from 'vitest';
import type { Task } from '../src/data/task.js';
import { Learner } from '../src/learner.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { SETTINGS } from '../tools/digits.js';
import { digits, memoryBundle, runtime } from './fixtures.js';

/** Heads on the network as it is. */
export const HEADS = { ...SETTINGS, fewShot: 1e6 } as const;
export const TASKS = { '01': [4, 5], '02': [6, 7], '03': [8, 9] } as const;
export const NAMES = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'];

export async function device(
  tasks: readonly (keyof typeof TASKS)[] = [],
  config: object = SETTINGS,
  storage: Storage = new MemoryStorage(),
): Promise<Learner> {
  const learner = await Learner.open({ runtime, bundle: await memoryBundle(), storage, config });
  for (const name of tasks) await learner.learn(await task(name, TASKS[name]));
  return learner;
}

/** Images of these digits, each under a name of its own or one that is told; those after the first `skip` of each. */
export async function task(
  name: string,
  chosen: readonly number[],
  told: readonly string[] = chosen.map((digit) => NAMES[digit]!),
  { skip = 0, count = 40 } = {},
): Promise<Task> {
  const { train } = await digits();
  const classes = [...new Set(told)];
  const index = chosen.map((digit) =>
    train.labels.flatMap((label, i) => (label === digit ? [i] : [])).slice(skip, skip + count),
  );
  const labels = index.flatMap((rows, at) => rows.map(() => classes.indexOf(told[at]!)));
  return { name, classes, pictures: index.flat().map((i) => train.pictures[i]!), labels };
}

/** Of test images of these digits: what each is taken for. */
export async function said(learner: Learner, chosen: readonly number[], of?: string): Promise<string[]> {
  const { test } = await digits();
  const pictures = test.pictures.filter((_, i) => chosen.includes(test.labels[i]!));
  return [...(await learner.predict(pictures, of === undefined ? {} : { task: of })).labels];
}

/** The share of test images of these digits that get their name, or the one that is told. */
export async function accuracy(
  learner: Learner,
  chosen: readonly number[],
  of?: string,
  told: Readonly<Record<number, string>> = {},
): Promise<number> {
  let [right, all] = [0, 0];
  for (const digit of chosen) {
    const labels = await said(learner, [digit], of);
    right += labels.filter((label) => label === (told[digit] ?? NAMES[digit])).length;
    all += labels.length;
  }
  expect(all).toBeGreaterThan(0);
  return right / all;
}
