/** A class that cannot be told from a known one takes nothing from it, and a lesson says what to expect of it: as in Python. */

import { join } from 'node:path';
import { expect, it } from 'vitest';
import { TwinError } from '../src/errors.js';
import { fleet } from '../src/index.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { only } from '../tools/digits.js';
import { BUNDLE, digits, FIXTURES, python, runtime, temporaryFolder } from './fixtures.js';
import { accuracy, device, HEADS, said, task } from './teaching.js';

const TEACH = `
import sys
import numpy as np
from safetensors.numpy import load_file
from csk_sdk import Learner, Task
bundle, state, file = sys.argv[1:]
data = load_file(file)
images, labels = data["train/images"][..., None], data["train/labels"]
three, four = images[labels == 3], images[labels == 4]
given = np.concatenate([three, four])
task = Task.from_arrays("01", given, np.repeat([0, 1], [len(three), len(four)]), ["drei", "four"])
learner = Learner.open(bundle, state, {"threads": 1, "few_shot": 10**6})
said = [one for one in learner.learn(task).warnings if "drei" in one]
assert said[0].startswith("'drei' cannot be told from 'three'"), said
print(" ".join(learner.predict(data["test/images"][..., None]).labels))
`;

it('a state whose decisions leave a class out predicts, forgets and renames as in Python', async () => {
  const state = temporaryFolder();
  const told = python(TEACH, BUNDLE, state, join(FIXTURES, 'digits.safetensors')).trim().split(' ');
  const options = { runtime, bundle: new FolderBundle(BUNDLE), config: { threads: 1 } };
  const learner = await Learner.open({ ...options, storage: new FolderStorage(state) });
  const { test } = await digits();
  const { labels } = await learner.predict(test.pictures);
  expect(labels.filter((label, i) => label !== told[i])).toEqual([]);
  expect(labels).toContain('three');
  expect(labels).not.toContain('drei');
  const own = await learner.predict(only(test, [3]).pictures, { task: '01' });
  expect(new Set(own.labels)).toEqual(new Set(['drei']));

  const exported = await fleet.export(learner, { name: 'twins' });
  expect([...exported.classes.keys()]).toEqual(['four']);
  expect(exported.leftOut).toEqual([
    expect.stringContaining("'drei' of task '01' stays here: it takes no part in decisions"),
  ]);

  const expected = () => learner.tasks[0]!.expected!.classes as Record<string, { confused: string }>;
  expect(expected().drei!.confused).toBe('three');
  await learner.rename('drei', 'trois');
  expect(Object.keys(expected()).sort()).toEqual(['four', 'trois']);
  await learner.forget({ classes: ['four'] });
  expect(learner.tasks[0]!.classes).toEqual(['trois']);
  expect(Object.keys(expected())).toEqual(['trois']);
});

it('what more images of known classes cost the others is not told', async () => {
  const learner = await device();
  const first = await learner.learn(await task('01', [4, 5]), HEADS);
  expect(first.expected.lost).toBeGreaterThanOrEqual(0);
  const more = await learner.learn(await task('02', [4, 5]), HEADS);
  expect(more.known).toEqual(['four', 'five']);
  expect(more.expected.lost).toBeUndefined();
  expect(Object.keys(more.expected.classes)).toEqual(['four', 'five']);
});

/** Images of the base's three under another name, and beside them those of four. */
const drei = () => task('twins', [3, 4], ['drei', 'four']);

it.each([
  ['trained', { fewShot: 0, train: 'centers' }],
  ['heads only', HEADS],
] as const)('a twin takes nothing from a known class (%s)', async (_, config) => {
  const learner = await device();
  const before = await accuracy(learner, [3]);
  const report = await learner.learn(await drei(), config);
  const [sentence] = report.warnings.filter((one) => one.includes('drei'));
  expect(sentence).toMatch(/^'drei' cannot be told from 'three': \d+ % of 'three' would be called 'drei'/);
  expect(sentence).toContain('merge("three", "drei")');
  expect(sentence).toContain('maxForgetting: 100');
  expect(report.twins.drei!.old).toBe('three');
  expect(report.expected.classes.drei).toMatchObject({ allClasses: 0, confused: 'three' });
  expect(report.expected.classes.four!.allClasses).toBeGreaterThan(0.9);
  expect(await accuracy(learner, [3])).toBeGreaterThanOrEqual(before - 0.03);
  expect(await accuracy(learner, [0, 1, 2, 4])).toBeGreaterThan(0.95);
  expect(new Set(await said(learner, [3], 'twins'))).toContain('drei');
  // What is learned later does not bring it back, and one name for both is one class.
  await learner.learn(await task('02', [6, 7]));
  await learner.merge('three', 'drei');
  expect(learner.tasks[0]!.classes).toEqual(['three', 'four']);
  expect(await accuracy(learner, [3])).toBeGreaterThanOrEqual(before - 0.05);
  await learner.close();
});

it('the twin is refused where forgetting is, and where there is nothing else to learn', async () => {
  const learner = await device();
  const refused = learner.learn(await drei(), { onForgetting: 'refuse' });
  await expect(refused).rejects.toThrow(
    /^Task 'twins' teaches 'drei', which cannot be told from 'three': \d+ %/,
  );
  const alone = await learner.learn(await task('one', [3], ['drei'])).catch((error: unknown) => error);
  if (!(alone instanceof TwinError)) throw alone;
  expect(alone.found.get('drei')!.old).toBe('three');
  expect(learner.generation.number).toBe(0);
  await learner.close();
});

it('the owner may count it all the same', async () => {
  const learner = await device();
  const before = await accuracy(learner, [3]);
  const report = await learner.learn(await drei(), { ...HEADS, maxForgetting: 100 });
  const now = await said(learner, [3]);
  const taken = now.filter((label) => label === 'drei').length / now.length;
  expect(taken).toBeGreaterThan(0.2);
  expect(before - (await accuracy(learner, [3]))).toBeCloseTo(taken, 1);
  expect(Math.abs(report.twins.drei!.taken - taken)).toBeLessThan(0.25);
  expect(report.warnings.join()).toContain("will be called 'drei'");
  await learner.close();
});

const EXPECTS = `
import json, sys
import numpy as np
from safetensors.numpy import load_file
from csk_sdk import Learner, Task
from csk_sdk.workspace.verification import verify
bundle, state, file, mine = sys.argv[1:]
data = load_file(file)
images, labels = data["train/images"][..., None], data["train/labels"]
names = ["three", "four", "eight", "nine"]
given = np.concatenate([images[labels == digit][:40] for digit in (3, 4, 8, 9)])
task = Task.from_arrays("01", given, np.repeat(np.arange(4), 40), names)
learner = Learner.open(bundle, state, {"threads": 1, "few_shot": 10**6})
theirs = learner.learn(task).expected
(seen,) = Learner.open(bundle, mine).tasks
print(json.dumps({"theirs": theirs, "mine": seen.expected, "verified": verify(bundle, mine).ok}))
`;

it('what is expected of a lesson is what Python expects, and in the record', async () => {
  const [mine, state] = [temporaryFolder(), temporaryFolder()];
  const learner = await device([], HEADS, new FolderStorage(mine));
  const report = await learner.learn(await task('01', [3, 4, 8, 9]));
  await learner.close();
  const found = JSON.parse(python(EXPECTS, BUNDLE, state, join(FIXTURES, 'digits.safetensors'), mine));
  expect(found.verified).toBe(true);
  for (const [name, one] of Object.entries(report.expected.classes)) {
    const { allClasses, ...rest } = one;
    expect(found.mine.classes[name]).toEqual({ all_classes: allClasses, ...rest });
    // An image on the edge may be on either side of it.
    const { all_classes: theirs, task: among } = found.theirs.classes[name];
    expect(Math.abs(allClasses - theirs)).toBeLessThanOrEqual(0.03);
    expect(Math.abs(one.task - among)).toBeLessThanOrEqual(0.03);
  }
  expect(Object.keys(report.expected.classes)).toEqual(['three', 'four', 'eight', 'nine']);
  // Other images are made up.
  expect(Math.abs(report.expected.lost! - found.theirs.old.lost)).toBeLessThan(3);
  expect(found.mine.old.lost).toBe(report.expected.lost);
});

it('two new classes of the same images are a guess', async () => {
  const learner = await device([], { ...HEADS, labelCheck: false });
  const { pictures } = await task('01', [4], undefined, { count: 1 });
  const others = await task('01', [6], undefined, { count: 3 });
  const same = {
    name: '01',
    classes: ['left', 'right', 'six'],
    pictures: [...Array.from({ length: 6 }, () => pictures[0]!), ...others.pictures],
    labels: [0, 0, 0, 1, 1, 1, 2, 2, 2],
  };
  const { expected, warnings } = await learner.learn(same);
  expect(expected.classes.left).toEqual({ allClasses: 0, task: 0, confused: 'right', share: 1 });
  expect(expected.classes.right).toEqual({ allClasses: 0, task: 0, confused: 'left', share: 1 });
  expect(expected.classes.six!.task).toBeGreaterThan(0.6);
  expect(warnings.filter((one) => one.includes('told apart')).map((one) => one.split(':')[0])).toEqual([
    "'left' and 'right' cannot be told apart by these images",
  ]);
});
