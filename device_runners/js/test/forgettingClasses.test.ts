/** What was learned can be forgotten, renamed and merged, and nothing else changes; in Python, too. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { StorageError, TaskError } from '../src/errors.js';
import { textOf } from '../src/formats/bytes.js';
import { decode } from '../src/formats/safetensors.js';
import type { StoredTensor } from '../src/formats/tensors.js';
import { type FileSystem, VersionedStorage } from '../src/native/versionedStorage.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { LearnedTask } from '../src/state/record.js';
import { SETTINGS } from '../tools/digits.js';
import { BUNDLE, python, temporaryFolder } from './fixtures.js';
import { accuracy, device, HEADS, NAMES, said, TASKS, task } from './teaching.js';

const EVERY = ['01', '02', '03'] as const;

function ledger(storage: MemoryStorage): string[] {
  return [...storage.files.keys()].filter((path) => path.startsWith('ledger/')).sort();
}

function holding(storage: MemoryStorage, text: string): string[] {
  return [...storage.files].filter(([, data]) => textOf(data).includes(text)).map(([path]) => path);
}

describe('forgetting', () => {
  it.each(EVERY)('task %s on a frozen network leaves what was never learned', async (name) => {
    const [ours, theirs] = [new MemoryStorage(), new MemoryStorage()];
    const learner = await device(EVERY, HEADS, ours);
    const report = await learner.forget({ task: name });
    const never = await device(
      EVERY.filter((one) => one !== name),
      HEADS,
      theirs,
    );
    expect(new Set(report.classes)).toEqual(new Set(TASKS[name].map((digit) => NAMES[digit]!)));
    expect([report.tasks, report.refitted, report.hidden]).toEqual([[name], [], []]);
    const [mine, others] = [learner.generation.tensors, never.generation.tensors];
    expect(new Set(mine.keys())).toEqual(new Set(others.keys()));
    const differ = [...mine].filter(([key, { data }]) => String(data) !== String(others.get(key)!.data));
    const later = name !== '03';
    // What was learned later was measured beside the forgotten.
    const sketch = later ? ['familiarity.margins', 'familiarity.oddness'] : [];
    const moments = [...mine.keys()].filter((key) => key.startsWith('moment/'));
    expect(new Set(differ.map(([key]) => key))).toEqual(new Set([...moments, ...sketch]));
    const remains = ['the second moments of the trained layers', ...(later ? ['how clearly'] : [])];
    expect(report.remains.map((one) => one.split(',')[0])).toEqual(remains);
    expect(ledger(ours)).toEqual(ledger(theirs));
    expect(learner.tasks.map(({ classes }) => classes)).toEqual(never.tasks.map(({ classes }) => classes));
  });

  it('leaves neither the class nor its name in any generation', async () => {
    const storage = new MemoryStorage();
    const learner = await device(EVERY, HEADS, storage);
    await learner.learn(await task('04', [4, 6]), { replace: true });
    const report = await learner.forget({ classes: ['six'] });
    expect(report.classes).toEqual(['six']);
    expect(report.refitted).toEqual(['02', '04']);
    expect(report.removed).toBe(3);
    expect(holding(storage, 'six')).toEqual([]);
    expect(learner.classes).not.toContain('six');
    for (const name of ['02', '04']) expect(await said(learner, [6], name)).not.toContain('six');
    expect((await learner.rollback('01')).tasks.at(-1)!.name).toBe('01');
    // And forward again, as long as that generation is there.
    expect((await learner.rollback('04')).number).toBe(5);
    await expect(learner.rollback('02')).rejects.toThrow(
      "has no generation of task '02'. Known: base, 01, 04.",
    );
  });

  it('is as good for the rest where centers were trained, and says what remains', async () => {
    const learner = await device(EVERY);
    const report = await learner.forget({ task: '02' });
    expect(report.remains[1]).toContain('what training has moved in the kernels');
    const rest = [0, 1, 2, 3, 4, 5, 8, 9];
    const never = await device(['01', '03']);
    expect(await accuracy(learner, rest)).toBeGreaterThanOrEqual((await accuracy(never, rest)) - 0.02);
    expect(await said(learner, [6, 7])).not.toContain('six');
    await learner.learn(await task('02', [6, 7]));
    expect(await accuracy(learner, [...rest, 6, 7])).toBeGreaterThan(0.85);
  });

  it('of all that was learned leaves nothing', async () => {
    const storage = new MemoryStorage();
    const learner = await device(['01'], SETTINGS, storage);
    expect((await learner.forget({ classes: ['four', 'five'] })).remains).toEqual([]);
    const base = learner.bundle.checkpoint;
    for (const [key, { data }] of learner.generation.tensors) {
      if (!key.startsWith('statistics.')) expect(data, key).toEqual(base.get(key)!.data);
    }
    expect(learner.tasks).toEqual([]);
    expect(learner.classes).toEqual(NAMES.slice(0, 4));
    expect(ledger(storage)).toEqual([]);
  });

  it('leaves the last class that is known', async () => {
    const learner = await device(['01'], HEADS);
    await learner.forget({ classes: ['zero', 'one', 'two', 'three'] });
    expect(learner.classes).toEqual(['four', 'five']);
    for (const left of [{ task: '01' }, { classes: ['four', 'five'] }]) {
      await expect(learner.forget(left)).rejects.toThrow('No class would be known any more');
    }
    await learner.forget({ classes: ['four'] });
    expect(new Set(await said(learner, [0, 4, 5]))).toEqual(new Set(['five']));
  });

  it('hides a class of the base, which can be taught again', async () => {
    const learner = await device(['01'], HEADS);
    const report = await learner.forget({ classes: ['two'] });
    expect([report.classes, report.hidden, report.removed]).toEqual([[], ['two'], 0]);
    expect(report.remains.at(-1)).toContain('classes of the base are hidden, and not forgotten');
    expect(learner.classes).not.toContain('two');
    expect(await said(learner, [2])).not.toContain('two');
    expect(await said(learner, [2], 'base')).not.toContain('two');
    await learner.learn(await task('other', [6, 7], ['two', 'seven']));
    expect(await accuracy(learner, [6], undefined, { 6: 'two' })).toBeGreaterThan(0.9);
    await learner.forget({ classes: ['two'] });
    expect(await said(learner, [6])).not.toContain('two');
    await expect(learner.forget({ classes: ['two'] })).rejects.toThrow(
      "No class 'two' is known. Known: four, five, seven, zero, one, three.",
    );
  });

  it('takes what a forgotten lesson had replaced with it', async () => {
    const learner = await device(['01', '02'], HEADS);
    await learner.learn(await task('03', [4, 5]), { replace: true });
    const report = await learner.forget({ task: '03' });
    expect(new Set(report.tasks)).toEqual(new Set(['01', '03']));
    expect(learner.tasks.map(({ name }) => name)).toEqual(['02']);
  });

  it('goes as far as it can without a ledger', async () => {
    const learner = await device(['01', '02'], SETTINGS);
    await withoutLedger(learner);
    await learner.learn(await task('03', [8, 9]));
    const report = await learner.forget({ classes: ['six'] });
    expect(report.remains.some((one) => one.startsWith('the spread that all classes share'))).toBe(true);
    expect(await said(learner, [6])).not.toContain('six');
    expect(await accuracy(learner, [0, 1, 2, 3, 4, 5, 7, 8, 9])).toBeGreaterThan(0.85);
  });

  it('is made up for after a crash in the middle, and no silence where something cannot be removed', async () => {
    const storage = new MemoryStorage();
    const learner = await device(['01', '02'], HEADS, storage);
    const { remove } = storage;
    storage.remove = async (path) => (path.startsWith('generations/') ? false : remove.call(storage, path));
    const failed = learner.forget({ classes: ['six', 'seven'] });
    await expect(failed).rejects.toThrow(StorageError);
    await expect(failed).rejects.toThrow('holds what is to be forgotten, and could not be removed');
    storage.remove = remove;
    expect(storage.files.has('generations/000002.safetensors')).toBe(true);
    const again = await device([], HEADS, storage);
    expect(again.classes).not.toContain('six');
    await again.learn(await task('03', [8, 9]));
    expect(holding(storage, 'six')).toEqual([]);
  });

  it('leaves no name in the older contents that a phone keeps', async () => {
    const files = new Map<string, Uint8Array>();
    const learner = await device(['01', '02'], HEADS, new VersionedStorage(inMemory(files), 'phone'));
    await learner.forget({ classes: ['six'] });
    expect([...files].filter(([, data]) => textOf(data).includes('six')).map(([path]) => path)).toEqual([]);
  });
});

describe('names', () => {
  it('can be changed, and no number changes', async () => {
    const learner = await device(['01', '02']);
    const before = learner.generation.tensors;
    expect((await learner.rename('six', 'Six')).tasks[1]!.classes).toEqual(['Six', 'seven']);
    const generation = await learner.rename('Six', 'sechs');
    expect(generation.tasks[1]!.classes).toEqual(['sechs', 'seven']);
    for (const [key, { data }] of learner.generation.tensors) {
      if (!key.endsWith('.classes')) expect(data, key).toEqual(before.get(key)!.data);
    }
    expect(learner.classes).toEqual([...NAMES.slice(0, 6), 'sechs', 'seven']);
    const more = await task('03', [6, 8], ['sechs', 'eight'], { skip: 40 });
    expect((await learner.learn(more)).known).toEqual(['sechs']);
    expect((await learner.forget({ classes: ['sechs'] })).classes).toEqual(['sechs']);
  });

  it('of two classes can become one', async () => {
    const learner = await device(['01', '02'], HEADS);
    await learner.merge('six', 'four');
    expect(learner.classes).toEqual([...NAMES.slice(0, 4), 'six', 'five', 'seven']);
    expect(await accuracy(learner, [4, 6], undefined, { 4: 'six' })).toBeGreaterThan(0.8);
    // In one task, too, and with the base.
    await learner.merge('six', 'seven');
    expect(learner.tasks[1]!.classes).toEqual(['six']);
    await learner.merge('three', 'five');
    expect(learner.classes).toEqual([...NAMES.slice(0, 4), 'six']);
    expect(await accuracy(learner, [3, 5], undefined, { 5: 'three' })).toBeGreaterThan(0.7);
    expect((await learner.forget({ classes: ['six'] })).remains[0]).toMatch(/^the second moments/);
  });

  it('that cannot be used are said, and cost nothing', async () => {
    const learner = await device(['01'], HEADS);
    for (const [call, expected] of [
      [() => learner.forget({}), 'Name classes to forget, or a task.'],
      [() => learner.forget({ classes: ['four'], task: '01' }), 'Name classes to forget, or a task.'],
      [
        () => learner.forget({ classes: ['nine'] }),
        "No class 'nine' is known. Known: four, five, zero, one, two, three.",
      ],
      [() => learner.forget({ task: '09' }), "Task '09' is not learned. Learned: 01."],
      [() => learner.forget({ task: 'base' }), "The base is the bundle's, and cannot be forgotten"],
      [() => learner.rename('zero', 'null'), "Class 'zero' is one of the base, which is the bundle's"],
      [() => learner.rename('four', 'five'), "Class 'five' is known already: merge() makes one"],
      [
        () => learner.rename('four', 'Five '),
        "A class cannot be called 'Five ' beside 'five', which differs only",
      ],
      [() => learner.rename('nine', 'x'), "No class 'nine' is known."],
      [() => learner.rename('four', 'a\nb'), "A class cannot be called 'a\\nb'"],
      [() => learner.merge('four', 'four'), "Class 'four' cannot be merged with itself."],
      [() => learner.merge('four', 'zero'), "Class 'zero' is one of the base"],
      [() => learner.merge('nine', 'four'), "No class 'nine' is known."],
    ] as const) {
      const refused = (call as () => Promise<unknown>)();
      await expect(refused).rejects.toThrow(TaskError);
      await expect(refused).rejects.toThrow(expected);
    }
    expect(learner.generation.number).toBe(1);
  });
});

describe('a ledger', () => {
  /** The class statistics after Python, in a copy of the state, has forgotten a class. */
  async function forgottenByPython(state: string, name: string): Promise<Map<string, StoredTensor>> {
    const script = `
import sys
from csk_sdk import Learner
from csk_sdk.state.tensorfile import packed
learner = Learner.open(sys.argv[1], sys.argv[2])
assert learner.forget(sys.argv[3]).remains[-1][:10] != "the spread"
print(packed({k: v for k, v in learner.generation.tensors.items() if k.startswith("statistics.")}).hex())
`;
    return decode(Buffer.from(python(script, BUNDLE, state, name).trim(), 'hex')).tensors;
  }

  it.each([
    ['frozen', HEADS],
    ['trained', SETTINGS],
  ])('of JavaScript is one that Python forgets from, and the other way round (%s)', async (_, config) => {
    const state = join(temporaryFolder(), 'state');
    const learner = await device(['01', '02'], config, new FolderStorage(state));
    // And on by Python, with images that lie in a file.
    const { pictures } = await task('03', TASKS['03']);
    const pixels = pictures.map(({ data }) => [...data]);
    const script = `
import json, sys
import numpy as np
from csk_sdk import Learner, Task
from csk_sdk.workspace.verification import verify
images = np.array(json.loads(sys.argv[3]), np.uint8).reshape(-1, 8, 8, 1)
learner = Learner.open(sys.argv[1], sys.argv[2], json.loads(sys.argv[4]))
learner.learn(Task.from_arrays("03", images, np.repeat([0, 1], len(images) // 2), ["eight", "nine"]))
print(verify(sys.argv[1], sys.argv[2]).ok)
`;
    const settings = { epochs: 10, patience: 0, learning_rate: 0.05, threads: 1, few_shot: config.fewShot };
    const told = python(script, BUNDLE, state, JSON.stringify(pixels), JSON.stringify(settings));
    expect(told).toBe('True\n');
    await learner.refresh();
    for (const name of ['six', 'nine']) {
      const copy = join(temporaryFolder(), 'state');
      await copyState(new FolderStorage(state), new FolderStorage(copy));
      const here = await device([], config, await copied(state));
      const report = await here.forget({ classes: [name] });
      expect(report.remains.some((one) => one.startsWith('the spread'))).toBe(false);
      const theirs = await forgottenByPython(copy, name);
      for (const key of ['classes', 'counts', 'means', 'scatter']) {
        const [ours, expected] = [here.generation.tensors, theirs].map(
          (one) => one.get(`statistics.${key}`)!.data as Float64Array,
        );
        const largest = Math.max(...expected!.map(Math.abs));
        const off = Math.max(...expected!.map((value, at) => Math.abs(value - ours![at]!)));
        expect(off / largest, key).toBeLessThan(1e-5);
      }
    }
  });
});

async function copied(state: string): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  await copyState(new FolderStorage(state), storage);
  return storage;
}

/** As a csk-sdk of before the ledger would have left it. */
async function withoutLedger(learner: Awaited<ReturnType<typeof device>>): Promise<void> {
  const { generation, state } = learner;
  const bare = (one: LearnedTask): LearnedTask => ({ ...one, contributions: new Map(), carried: new Map() });
  const tensors = new Map([...generation.tensors].filter(([key]) => !key.startsWith('ledger.')));
  await state.locked(() => state.commit(generation.number, generation.tasks.map(bare), tensors));
  await learner.refresh();
}

function inMemory(files: Map<string, Uint8Array>): FileSystem {
  return {
    list: async (folder) =>
      [...files].flatMap(([path, { length }]) => {
        const at = path.lastIndexOf('/');
        return path.slice(0, at) === folder ? [{ name: path.slice(at + 1), size: length }] : [];
      }),
    read: async (path) => files.get(path)!,
    write: async (path, data) => void files.set(path, data.slice()),
    rename: async (from, to) => {
      files.set(to, files.get(from)!);
      files.delete(from);
    },
    remove: async (path) => void files.delete(path),
  };
}
