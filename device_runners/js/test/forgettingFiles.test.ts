/** What is forgotten is in no file of a state, however the commit that forgets it ends; and nothing else is lost. */

import { describe, expect, it } from 'vitest';
import { StateError, StorageError } from '../src/errors.js';
import { textOf } from '../src/formats/bytes.js';
import { bytesOf, float32 } from '../src/formats/tensors.js';
import type { Learner } from '../src/learner.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { DyingStorage } from './storing.js';
import { device, HEADS, NAMES, task } from './teaching.js';

const EVERY = ['01', '02', '03'] as const;
const GENERATION = /^generations\/0*(\d+)\.safetensors$/;

function copyOf(storage: MemoryStorage): MemoryStorage {
  const copy = new MemoryStorage();
  for (const [path, content] of storage.files) copy.files.set(path, content.slice());
  return copy;
}

/** The bytes of the mean of a class, each as one character. */
function meanOf(learner: Learner, name: string): string {
  const { tensors } = learner.generation;
  const classes = JSON.parse(textOf(bytesOf(tensors.get('statistics.classes')!))) as string[];
  const means = tensors.get('statistics.means')!;
  const width = bytesOf(means).length / classes.length;
  const at = classes.indexOf(name) * width;
  return latin(bytesOf(means).slice(at, at + width));
}

function latin(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

function holding(storage: MemoryStorage, marks: readonly string[]): string[] {
  const has = (data: Uint8Array): boolean => marks.some((mark) => latin(data).includes(mark));
  return [...storage.files].filter(([, data]) => has(data)).map(([path]) => path);
}

function stored(storage: MemoryStorage): number[] {
  const numbers = [...storage.files.keys()].flatMap((path) => GENERATION.exec(path)?.[1] ?? []);
  return numbers.map(Number).sort((a, b) => a - b);
}

/** All contributions of what is known are there. */
async function expectKnown(storage: MemoryStorage, tasks: readonly string[]): Promise<Learner> {
  const learner = await device([], HEADS, storage);
  expect(learner.tasks.map(({ name }) => name)).toEqual(tasks);
  for (const { contributions } of learner.tasks) {
    for (const file of contributions.values()) await learner.state.contribution(file);
  }
  return learner;
}

/** Back to a generation that ends with the same task as those after it. */
async function backTo(learner: Learner, number: number): Promise<void> {
  await learner.state.locked(() => learner.state.rollback(number));
  await learner.refresh();
}

describe('what a killed lesson left', () => {
  it('is no generation, though its number is that of the next commit', async () => {
    const storage = new MemoryStorage();
    await device(EVERY, HEADS, storage);
    const dying = new DyingStorage(storage.files, 1e9);
    const { replace } = dying;
    dying.replace = async (path, data) => {
      if (path === 'HEAD') throw new Error('killed');
      await replace.call(dying, path, data);
    };
    const learner = await device([], HEADS, dying);
    await expect(learner.learn(await task('04', [1, 2]), { replace: true })).rejects.toThrow('killed');
    const survivor = copyOf(dying);
    expect(stored(survivor)).toEqual([1, 2, 3, 4]);
    const again = await device([], HEADS, survivor);
    expect((await again.forget({ classes: ['six'] })).removed).toBe(2);
    expect(stored(survivor)).toEqual([1, 4]);
    await expectKnown(survivor, EVERY);
  });
});

describe('a class with another name', () => {
  it.each([
    ['renamed', 'sechs', [1, 5]],
    ['merged', 'seven', [1, 5]],
    ['merged across tasks', 'four', [5]],
    ['renamed on a branch', 'six', [1, 5]],
    ['merged on a branch', 'six', [1, 5]],
  ] as const)('is forgotten with it: %s', async (how, name, left) => {
    const storage = new MemoryStorage();
    const learner = await device(EVERY, HEADS, storage);
    const marks = [meanOf(learner, 'six'), 'six', 'sechs'];
    if (how.startsWith('renamed')) await learner.rename('six', 'sechs');
    else await learner.merge(how === 'merged across tasks' ? 'four' : 'seven', 'six');
    if (how.includes('branch')) await backTo(learner, 3);
    marks.push(meanOf(learner, name));
    expect(holding(storage, marks)).not.toEqual([]);
    expect((await learner.forget({ classes: [name] })).classes).toEqual([name]);
    expect(holding(storage, marks)).toEqual([]);
    expect(stored(storage)).toEqual(left);
  });

  it('of a lesson on a branch is followed through its renaming, and another lesson of that task is not', async () => {
    const storage = new MemoryStorage();
    const learner = await device(['01', '02'], HEADS, storage);
    await learner.learn(await task('03', [8, 9], ['zwilling', 'more']));
    await learner.rename('zwilling', 'doppel');
    await learner.rollback('02');
    await learner.learn(await task('03', [3, 2], ['else', 'too']));
    await learner.rollback('02');
    await learner.learn(await task('04', [9, 8], ['zwilling', 'nine']));
    await learner.forget({ classes: ['zwilling'] });
    expect(stored(storage)).toEqual([1, 2, 5, 7]);
    expect(holding(storage, ['zwilling', 'doppel'])).toEqual([]);
  });
});

describe('a forgetting that is interrupted', () => {
  const NEXT: Record<string, [(learner: Learner) => Promise<unknown>, readonly string[]]> = {
    'a lesson': [async (learner) => learner.learn(await task('04', [1, 8])), [...EVERY, '04']],
    'the way back': [(learner) => learner.rollback('01'), ['01']],
    'the same once more': [
      (learner) => expect(learner.forget({ classes: ['six'] })).rejects.toThrow("No class 'six' is known"),
      EVERY,
    ],
    'a checkpoint of a lesson': [
      ({ state }) => state.locked(() => state.saveProgress(new Map(), { generation: 5 })),
      EVERY,
    ],
  };

  /** A state with a branch that was left, scores, and a lesson that was begun and names a class of the second task. */
  async function prepared(): Promise<{ storage: MemoryStorage; marks: string[] }> {
    const storage = new MemoryStorage();
    const learner = await device(EVERY, HEADS, storage);
    const marks = [meanOf(learner, 'six'), 'six', 'sechs'];
    await learner.rename('six', 'sechs');
    await backTo(learner, 3);
    await storage.replace('scores/000002.json', new TextEncoder().encode('{"six": 1}'));
    const { state } = learner;
    await state.locked(() => state.saveProgress(new Map(), { generation: 3, classes: ['six'] }));
    return { storage, marks };
  }

  it.each(Object.keys(NEXT))('is finished by whatever is written next: %s', async (name) => {
    const { storage, marks } = await prepared();
    const [next, tasks] = NEXT[name]!;
    let [unfinished, asItWas] = [0, 0];
    for (let count = 0; ; count += 1) {
      const dying = new DyingStorage(storage.files, count);
      const done = await (await device([], HEADS, dying)).forget({ classes: ['six'] }).then(
        () => true,
        (error: Error) => {
          expect(error.message).toBe('killed');
          return false;
        },
      );
      const survivor = copyOf(dying);
      const learner = await expectKnown(survivor, EVERY);
      if (learner.classes.includes('six')) {
        asItWas += 1;
        continue;
      }
      unfinished += holding(survivor, marks).length ? 1 : 0;
      await next(learner);
      expect(holding(survivor, marks), `killed at ${count}`).toEqual([]);
      await expectKnown(survivor, tasks);
      if (done) break;
    }
    expect(unfinished).toBeGreaterThan(4);
    expect(asItWas).toBe(3);
  });

  it('takes nothing that a lesson after it has kept, and not yet committed', async () => {
    const storage = new MemoryStorage();
    const learner = await device(EVERY, HEADS, storage);
    await learner.forget({ classes: ['six'] });
    const { state } = await device([], HEADS, storage);
    const kept = (number: number): Promise<string> =>
      state.keepContribution(new Map([['count', float32([1], Float32Array.of(number))]]));
    const files = await state.locked(async () => {
      const names = [await kept(1), await kept(2)];
      await state.saveProgress(new Map(), {});
      return names;
    });
    await state.locked(() => state.saveProgress(new Map(), {}));
    for (const file of files) await state.contribution(file);
  });

  it('lets nothing be written where it cannot go on', async () => {
    const { storage, marks } = await prepared();
    const { remove } = storage;
    const learner = await device([], HEADS, storage);
    storage.remove = async (path) => (path.startsWith('ledger/') ? false : remove.call(storage, path));
    await expect(learner.forget({ classes: ['six'] })).rejects.toThrow('holds what is to be forgotten');
    const again = await device([], HEADS, storage);
    await expect(again.learn(await task('04', [1, 8]))).rejects.toThrow(StorageError);
    expect((await device([], HEADS, storage)).generation.number).toBe(5);
    storage.remove = remove;
    await again.learn(await task('04', [1, 8]));
    expect(holding(storage, marks)).toEqual([]);
  });

  it('is none where the storage did not give back a record, which may be of anything', async () => {
    const { storage } = await prepared();
    const learner = await device([], HEADS, storage);
    const { read } = storage;
    storage.read = async (path) => {
      if (path === 'generations/000001.json') throw new StateError('the disk');
      return read.call(storage, path);
    };
    await expect(learner.forget({ classes: ['six'] })).rejects.toThrow('the disk');
    storage.read = read;
    expect(learner.classes).toEqual(NAMES);
  });
});

describe('the way back', () => {
  it('is not said to lead to what was pruned', async () => {
    const storage = new MemoryStorage();
    await device(EVERY, HEADS, storage);
    await storage.remove('generations/000001.safetensors');
    const learner = await device([], HEADS, storage);
    await expect(learner.rollback('01')).rejects.toThrow('Known: base, 02, 03.');
  });
});
