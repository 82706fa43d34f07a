/** A state with blocks that one language wrote, the other one goes on with, and writes no block again that stays as it is. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { STATE } from '../src/contract/thresholds.js';
import { StateError } from '../src/errors.js';
import { decode } from '../src/formats/safetensors.js';
import type { StoredTensor } from '../src/formats/tensors.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { unseal } from '../src/state/record.js';
import { BUNDLE, python, temporaryFolder } from './fixtures.js';
import { device, HEADS, TASKS, task } from './teaching.js';

const USUAL = STATE.blockClasses;
const CLOSED = 2;

beforeEach(() => {
  (STATE as { blockClasses: number }).blockClasses = CLOSED;
});

afterEach(() => {
  (STATE as { blockClasses: number }).blockClasses = USUAL;
});

interface Told {
  readonly ok: boolean;
  readonly tasks: readonly string[];
  readonly classes: readonly string[];
  readonly tensors: Map<string, StoredTensor>;
}

/** What Python says of a state, once `steps` of a script were made with the `learner`; it is given images of digits. */
async function inPython(state: string, steps: string, name: keyof typeof TASKS = '03'): Promise<Told> {
  const { pictures } = await task(name, TASKS[name]);
  const pixels = JSON.stringify(pictures.map(({ data }) => [...data]));
  const settings = { epochs: 10, patience: 0, learning_rate: 0.05, threads: 1, few_shot: 1e6 };
  const script = `
import json, sys
from pathlib import Path
import numpy as np
from csk_sdk import Learner, Task
from csk_sdk.state import blocks
from csk_sdk.state.tensorfile import packed
from csk_sdk.workspace.verification import verify
blocks.BLOCK_CLASSES = ${CLOSED}
images = np.array(json.loads(sys.argv[3]), np.uint8).reshape(-1, 8, 8, 1)
learner = Learner.open(sys.argv[1], sys.argv[2], json.loads(sys.argv[4]))
def learn(name, classes):
    learner.learn(Task.from_arrays(name, images, np.repeat([0, 1], len(images) // 2), classes))
${steps}
learner = Learner.open(sys.argv[1], sys.argv[2])
generation = learner.generation
tensors = {name: np.array(tensor) for name, tensor in generation.tensors.items()}
Path(sys.argv[5]).write_bytes(packed(tensors))
names = [task.name for task in generation.tasks]
print(json.dumps([verify(sys.argv[1], sys.argv[2]).ok, names, list(learner.classes)]))
`;
  const file = join(temporaryFolder(), 'tensors');
  const said = python(script, BUNDLE, state, pixels, JSON.stringify(settings), file);
  const [ok, tasks, classes] = JSON.parse(said) as [boolean, string[], string[]];
  return { ok, tasks, classes, tensors: decode(readFileSync(file)).tensors };
}

async function blocksOf(state: string, number: number): Promise<string[]> {
  const record = await unseal(new FolderStorage(state), `generations/00000${number}.json`);
  return record.blocks as string[];
}

async function expectKnown(state: string, told: Told, ok = true): Promise<void> {
  const learner = await device([], HEADS, new FolderStorage(state));
  expect(told.ok).toBe(ok);
  expect(learner.tasks.map(({ name }) => name)).toEqual(told.tasks);
  expect(learner.classes).toEqual(told.classes);
  const sorted = (tensors: Iterable<[string, StoredTensor]>) => new Map([...tensors].sort());
  expect(sorted(learner.generation.tensors)).toEqual(sorted(told.tensors));
}

describe('a state with blocks', () => {
  it('of JavaScript goes on in Python, and back, and old blocks stay what they are', async () => {
    const state = join(temporaryFolder(), 'state');
    await device(['01', '02'], HEADS, new FolderStorage(state));
    expect(await blocksOf(state, 1)).toHaveLength(1);
    expect(await blocksOf(state, 2)).toHaveLength(2);
    await expectKnown(state, await inPython(state, ''));
    await expectKnown(state, await inPython(state, 'learn("03", ["eight", "nine"])'));
    const [first, second, third] = [1, 2, 3].map((number) => blocksOf(state, number));
    expect((await second!).slice(0, 1)).toEqual(await first!);
    expect((await third!).slice(0, 2)).toEqual(await second!);
    expect(await third!).toHaveLength(3);
    const learner = await device([], HEADS, new FolderStorage(state));
    await learner.learn(await task('04', [4, 8], ['vier', 'acht'], { skip: 40 }));
    expect((await blocksOf(state, 4)).slice(0, 3)).toEqual(await third!);
    await expectKnown(state, await inPython(state, ''));
  });

  it('of Python goes on in JavaScript, is forgotten from in both, and goes back in both', async () => {
    const state = join(temporaryFolder(), 'state');
    const steps = 'learn("01", ["eight", "nine"])\nlearn("02", ["acht", "neun"])';
    await expectKnown(state, await inPython(state, steps));
    const before = await blocksOf(state, 2);
    const learner = await device([], HEADS, new FolderStorage(state));
    await learner.learn(await task('03', [4, 5]));
    expect((await blocksOf(state, 3)).slice(0, 2)).toEqual(before);
    await expectKnown(state, await inPython(state, 'learner.rollback("01")'));
    await learner.refresh();
    await learner.rollback('03');
    await expectKnown(state, await inPython(state, 'learner.rename("neun", "nueve")'));
    await learner.refresh();
    await learner.forget({ classes: ['eight'] });
    await expectKnown(state, await inPython(state, ''));
    await expectKnown(state, await inPython(state, 'learner.forget("five")'));
  });

  it('that lost one file of a block is whole, and mended by Python, or by what is learned here', async () => {
    const state = join(temporaryFolder(), 'state');
    const storage = new FolderStorage(state);
    await device(['01', '02'], HEADS, storage);
    const shared = await blocksOf(state, 1);
    const lost = (await blocksOf(state, 2)).filter((name) => shared.includes(name));
    expect(lost.length).toBeGreaterThan(0);
    const paths = lost.map((name) => `blocks/${name}.safetensors`);
    for (const path of paths) await storage.remove(path);
    await expectKnown(state, await inPython(state, ''), false);
    await expectKnown(state, await inPython(state, 'verify(sys.argv[1], sys.argv[2], repair=True)'));
    for (const path of paths) {
      expect(await storage.size(path)).toBeGreaterThan(0);
      await storage.replace(path, Uint8Array.of(1));
    }
    await device(['03'], HEADS, storage);
    await expectKnown(state, await inPython(state, ''));
  });

  it('that lost a block, and its copy, is as damaged in Python, in the same words', async () => {
    const state = join(temporaryFolder(), 'state');
    const storage = new FolderStorage(state);
    await device(['01', '02'], HEADS, storage);
    const [, name] = await blocksOf(state, 2);
    for (const ending of ['', '.copy']) await storage.remove(`blocks/${name}${ending}.safetensors`);
    const said = `${state}/blocks/${name}.safetensors is missing or damaged, and so is its copy. `;
    const failed = device([], HEADS, storage);
    await expect(failed).rejects.toThrow(StateError);
    await expect(failed).rejects.toThrow(`${said}rollback('01') returns to generation 1, which is intact.`);
    await expect(inPython(state, '')).rejects.toThrow(said);
  });
});
