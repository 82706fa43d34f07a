/** A class that cannot be told from a known one, as Python leaves it out of decisions over all classes. */

import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { only } from '../tools/digits.js';
import { BUNDLE, digits, FIXTURES, python, runtime, temporaryFolder } from './fixtures.js';

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

  const expected = () => learner.tasks[0]!.expected!.classes as Record<string, { confused: string }>;
  expect(expected().drei!.confused).toBe('three');
  await learner.rename('drei', 'trois');
  expect(Object.keys(expected()).sort()).toEqual(['four', 'trois']);
  await learner.forget({ classes: ['four'] });
  expect(learner.tasks[0]!.classes).toEqual(['trois']);
  expect(Object.keys(expected())).toEqual(['trois']);
});
