/** Whole tasks under the guards: accepted, refused and learned by heads alone where the Python SDK does. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DEFAULTS, type TrainingConfig } from '../src/config.js';
import type { Picture } from '../src/data/pictures.js';
import { ConfigError, LabelError, TaskError } from '../src/errors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { only } from '../tools/digits.js';
import { BUNDLE, digits, FIXTURES, python, runtime, temporaryFolder } from './fixtures.js';

/** A task of tools/guards.py: its images, Python's settings, and its report or its refusal. */
interface GuardedTask {
  readonly members: readonly number[];
  readonly count: number;
  readonly shuffled: boolean;
  readonly inverted: boolean;
  readonly earlier: readonly number[];
  readonly settings: Readonly<Record<string, unknown>>;
  readonly error?: string;
  readonly epochs: number;
  readonly loss: number;
  readonly forgetting: number;
  readonly heads_only: boolean;
  readonly heads_only_because: string;
  readonly known: readonly string[];
  readonly stopped: string;
  readonly warnings: readonly string[];
  readonly protected: Readonly<Record<string, string>>;
}

const said = JSON.parse(readFileSync(join(FIXTURES, 'guards.json'), 'utf8')) as {
  tasks: Record<string, GuardedTask>;
};

/** The settings that both have, under the names of this runner. */
function settingsOf(name: string): Partial<TrainingConfig> {
  const camel = (snake: string): string =>
    snake.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  const given = Object.entries(said.tasks[name]!.settings).map(([key, value]) => [camel(key), value]);
  return Object.fromEntries(given.filter(([key]) => Object.hasOwn(DEFAULTS, key as string)));
}

/** Options of a command as settings of this runner, and numbers that shuffling decides left out. */
function inOtherWords(sentence: string): string {
  return sentence
    .replace('--no-label-check (label_check = false)', 'labelCheck: false')
    .replace('--on-forgetting heads-only', "onForgetting: 'heads-only'")
    .replace('--train centers', "train: 'centers'")
    .replaceAll(/--few-shot (?=\d)/g, 'fewShot: ')
    .replaceAll(/--([a-z]+(?:-[a-z]+)*)/g, (_, option: string) =>
      option.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()),
    )
    .replaceAll(/about [\d.]+ percentage points/g, 'about N percentage points')
    .replace(/correctly in \d+ %/, 'correctly in N %');
}

/** The task, as Python had it. */
async function taskOf(name: string) {
  return digitsOf('task', said.tasks[name]!);
}

async function digitsOf(
  name: string,
  given: Pick<GuardedTask, 'members' | 'count' | 'shuffled' | 'inverted'>,
) {
  const { members, count, shuffled, inverted } = given;
  const { names, train } = await digits();
  const pictures = members.map((digit) => only(train, [digit]).pictures.slice(0, count));
  const inverse = (picture: Picture): Picture => ({
    ...picture,
    data: picture.data.map((value) => 255 - value),
  });
  return {
    name,
    classes: members.map((digit) => names[digit]!),
    pictures: pictures.flat().map((picture) => (inverted ? inverse(picture) : picture)),
    labels: pictures.flatMap((own, label) => own.map((_, i) => (shuffled ? i % members.length : label))),
  };
}

async function open(storage: Storage = new MemoryStorage()): Promise<Learner> {
  return Learner.open({ runtime, bundle: new FolderBundle(BUNDLE), storage });
}

describe('a task is learned as by the Python SDK', () => {
  it.each(Object.entries(said.tasks).filter(([, { error }]) => !error))('%s', async (name, expected) => {
    const learner = await open();
    if (expected.earlier.length) {
      const plain = { members: expected.earlier, count: 1000, shuffled: false, inverted: false };
      await learner.learn(await digitsOf('earlier', plain), settingsOf(name));
    }
    const report = await learner.learn(await taskOf(name), settingsOf(name));
    await learner.close();
    expect(report.epochs).toBe(expected.epochs);
    expect(report.headsOnly).toBe(expected.heads_only);
    expect(report.headsOnlyBecause).toBe(expected.heads_only_because);
    expect(report.known).toEqual(expected.known);
    expect(report.stopped).toBe(expected.stopped);
    expect(report.warnings.map(inOtherWords)).toEqual(expected.warnings.map(inOtherWords));
    expect(Object.keys(report.protected)).toEqual(Object.keys(expected.protected));
    const learned = learner.tasks.at(-1);
    expect(learned!.notes).toEqual(report.warnings);
    expect(learned!.protected).toEqual(report.protected);
    expect(learned!.epochs).toBe(report.epochs);
    // Another order of images is another network; that it forgets, or not, is the same.
    expect(report.forgetting > 3).toBe(expected.forgetting > 3);
    if (expected.heads_only_because === 'few-shot') expect(report.loss).toBeCloseTo(expected.loss, 5);
  });
});

it('heads alone leave the network, and what it said before, as they were', async () => {
  for (const name of ['few', 'costs']) {
    const learner = await open();
    const before = learner.generation.tensors;
    const { test } = await digits();
    const asked = only(test, [0, 1, 2, 3]).pictures.slice(0, 20);
    const { probabilities } = await learner.predict(asked, { task: 'base' });
    const task = await taskOf(name);
    await learner.learn(task, settingsOf(name));
    for (const [key, tensor] of before) {
      if (/^(center|head)\//.test(key)) expect(learner.generation.tensors.get(key)).toEqual(tensor);
    }
    expect((await learner.predict(asked, { task: 'base' })).probabilities).toEqual(probabilities);
    const { labels } = await learner.predict(task.pictures);
    const right = labels.filter((label, i) => label === task.classes[task.labels[i]!]).length;
    expect(right / labels.length).toBeGreaterThan(0.9);
    await learner.close();
  }
});

describe('refused with the sentence of the Python SDK, and nothing is committed:', () => {
  it('labels that say nothing, unless they are to be believed', async () => {
    const learner = await open();
    const task = await taskOf('shuffled');
    const error = await learner.learn(task).catch((reason: unknown) => reason);
    if (!(error instanceof LabelError)) throw error;
    expect(inOtherWords(error.message)).toBe(inOtherWords(said.tasks.shuffled!.error!));
    expect(error.evidence.accuracy).toBeLessThan(error.evidence.chance + 0.1);
    expect(learner.generation.number).toBe(0);
    const report = await learner.learn(task, { labelCheck: false, epochs: 1, train: 'centers' });
    expect(report.generation).toBe(1);
    await learner.close();
  });

  it('a task that costs older ones too much, where it is to be refused', async () => {
    const learner = await open();
    const refused = learner.learn(await taskOf('refused'), settingsOf('refused'));
    await expect(refused).rejects.toThrow(TaskError);
    const sentence = await refused.catch((error: Error) => error.message);
    expect(inOtherWords(sentence as string)).toBe(inOtherWords(said.tasks.refused!.error!));
    expect(learner.generation.number).toBe(0);
    await learner.close();
  });

  it('a budget that is not enough for a step', async () => {
    const learner = await open();
    const refused = learner.learn(await taskOf('no step'), settingsOf('no step'));
    await expect(refused).rejects.toThrow(ConfigError);
    const sentence = await refused.catch((error: Error) => error.message);
    expect(sentence).toBe(said.tasks['no step']!.error);
    await learner.close();
  });
});

it('what a task was warned of is in the record, as the Python SDK reads and writes it', async () => {
  const state = join(temporaryFolder(), 'state');
  const learner = await open(new FolderStorage(state));
  const report = await learner.learn(await taskOf('few'));
  await learner.close();
  expect(report.warnings).toHaveLength(1);
  const script = `
import json, sys
from csk_sdk import Learner
from csk_sdk.workspace.verification import verify
(task,) = Learner.open(*sys.argv[1:]).tasks
kept = {name: task.config[name] for name in ("label_check", "max_forgetting", "on_forgetting", "few_shot", "seconds")}
print(json.dumps({"notes": task.notes, "epochs": task.epochs, **kept, "verified": verify(*sys.argv[1:]).ok}))
`;
  expect(JSON.parse(python(script, BUNDLE, state))).toEqual({
    ...{
      notes: report.warnings,
      epochs: 0,
      label_check: true,
      max_forgetting: 3,
      on_forgetting: 'heads-only',
    },
    ...{ few_shot: 30, seconds: null, verified: true },
  });
  // And the other way round.
  const pythons = await open(new FolderStorage(join(FIXTURES, 'tasks/costs')));
  expect(pythons.tasks[0]!.notes).toEqual(said.tasks.costs!.warnings);
  expect(pythons.tasks[0]!.protected).toEqual(said.tasks.costs!.protected);
  await pythons.close();
});
