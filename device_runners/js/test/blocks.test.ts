/** A commit writes what changed: what lies further back is in blocks, and nothing else is another for it. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { UNRECORDED } from '../src/contract/recordSchema.js';
import { STATE } from '../src/contract/thresholds.js';
import { StateError, StorageError } from '../src/errors.js';
import { sha256, textOf, utf8 } from '../src/formats/bytes.js';
import { type Json, JsonNumber } from '../src/formats/json.js';
import { decode, encode } from '../src/formats/safetensors.js';
import { bytesOf, float32, type StoredTensor, uint8 } from '../src/formats/tensors.js';
import type { Learner } from '../src/learner.js';
import { VersionedStorage } from '../src/native/versionedStorage.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { layoutOf } from '../src/state/blocks.js';
import { clearState } from '../src/state/clearing.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { type LearnedTask, seal, unseal } from '../src/state/record.js';
import { State } from '../src/state/state.js';
import type { Storage } from '../src/state/storage.js';
import { digits, temporaryFolder } from './fixtures.js';
import { DyingStorage, PhoneFiles } from './storing.js';
import { device, HEADS, task } from './teaching.js';

const BUNDLE = 'b'.repeat(64);
const F = 16;
const NONE = 1e9;
const USUAL = STATE.blockClasses;
const LAYOUTS = JSON.parse(
  readFileSync(new URL('../../../tests/contract/layouts.json', import.meta.url), 'utf8'),
) as { block_classes: number; cases: Layout[] };

interface Layout {
  readonly about: string;
  readonly before: readonly number[][];
  readonly classes: readonly number[];
  readonly rows: number;
  readonly layout: readonly number[][];
}

/** From here on a block is closed at so many classes. */
function closedAt(classes: number): void {
  (STATE as { blockClasses: number }).blockClasses = classes;
}

afterEach(() => closedAt(USUAL));

/** What a device has, of `count` tasks with two classes each: the heads, and rows for each class. */
function tensorsOf(count: number): Map<string, StoredTensor> {
  const rows = (width: number, seed: number): StoredTensor =>
    float32(
      [2 * count, width],
      Float32Array.from({ length: 2 * count * width }, (_, at) => Math.sin(at + seed)),
    );
  const heads = Array.from({ length: count }, (_, at): [string, StoredTensor] => [
    `head/task ${at + 1}/weight`,
    float32([2, F], new Float32Array(2 * F).fill(at)),
  ]);
  return new Map([
    ['center/a', float32([2], Float32Array.of(count, 0))],
    ...heads,
    ['statistics.means', rows(F, 1)],
    ['familiarity.margins', rows(4, 2)],
    ['familiarity.oddness', rows(4, 3)],
  ]);
}

function taskOf(number: number): LearnedTask {
  const numbers = { epochs: 1, images: 2, seconds: 0.5, loss: 1e-5, peakRssBytes: 0 };
  const files = { contributions: new Map(), carried: new Map() };
  const classes = [`${number} a`, `${number} b`];
  return { ...UNRECORDED, ...files, name: `task ${number}`, classes, ...numbers, config: {} };
}

/** Learn so many tasks more. */
async function learn(storage: Storage, count: number, keep = 2): Promise<State> {
  const state = await State.open(storage, BUNDLE, new Map(), keep);
  for (let i = 0; i < count; i++) {
    await state.locked(async () => {
      const { number, tasks } = await state.load();
      const known = tasks.length + 1;
      await state.commit(number, [...tasks, taskOf(known)], tensorsOf(known));
    });
  }
  return state;
}

function copyOf(storage: MemoryStorage): MemoryStorage {
  const copy = new MemoryStorage();
  for (const [path, content] of storage.files) copy.files.set(path, content.slice());
  return copy;
}

function blocksIn(storage: MemoryStorage): string[] {
  return [...storage.files.keys()].filter((path) => path.startsWith('blocks/')).sort();
}

async function listed(storage: Storage, number: number): Promise<string[]> {
  const record = await unseal(storage, `generations/${String(number).padStart(6, '0')}.json`);
  return (record.blocks ?? []) as string[];
}

/** Each block that a record lists has a file, one that several list has a copy, and nothing else is there. */
async function expectBlocksOf(storage: MemoryStorage): Promise<void> {
  const records = [...storage.files.keys()].filter((path) => /^generations\/.*json$/.test(path));
  const times = new Map<string, number>();
  for (const path of records) {
    for (const name of ((await unseal(storage, path)).blocks ?? []) as string[]) {
      times.set(name, (times.get(name) ?? 0) + 1);
    }
  }
  const files = new Set(blocksIn(storage));
  for (const [name, count] of times) {
    expect(files.delete(`blocks/${name}.safetensors`)).toBe(true);
    const copied = files.delete(`blocks/${name}.copy.safetensors`);
    if (count > 1) expect(copied).toBe(true);
  }
  expect([...files]).toEqual([]);
}

describe('the layout of blocks', () => {
  it.each(LAYOUTS.cases)("is Python's: $about", ({ before, classes, rows, layout }) => {
    closedAt(LAYOUTS.block_classes);
    const extents = before.map(([tasks, count]) => ({ tasks: tasks!, rows: count! }));
    expect(layoutOf(extents, classes, rows).map((one) => [one.tasks, one.rows])).toEqual(layout);
  });
});

describe('a commit', () => {
  it('writes what changed: after 200 tasks about as much as after 72', async () => {
    class Counting extends MemoryStorage {
      written = 0;
      override async replace(path: string, data: Uint8Array): Promise<void> {
        this.written += data.length;
        await super.replace(path, data);
      }
    }
    const storage = new Counting();
    // Behind so many tasks at once, eight are learned one by one.
    const writtenAfter = async (count: number): Promise<[number, number]> => {
      const state = await State.open(storage, BUNDLE, new Map(), 8);
      const tasks = Array.from({ length: count }, (_, at) => taskOf(at + 1));
      await state.locked(async () => state.commit(await state.head(), tasks, tensorsOf(count)));
      await learn(storage, 7, 8);
      storage.written = 0;
      await learn(storage, 1, 8);
      expect((await state.load()).tensors).toEqual(tensorsOf(count + 8));
      return [storage.written, (await listed(storage, await state.head())).length];
    };
    const [early, one] = await writtenAfter(64);
    const [late, three] = await writtenAfter(192);
    expect([one, three]).toEqual([1, 3]);
    expect(late / early).toBeLessThan(1.05);
  });

  it('of a small state writes no blocks, and asks for no newer reader', async () => {
    const storage = new MemoryStorage();
    await learn(storage, 63);
    expect(blocksIn(storage)).toEqual([]);
    const record = await unseal(storage, 'generations/000063.json');
    expect(Object.keys(record).sort()).toEqual(
      ['created', 'number', 'parent', 'sha256', 'size', 'tasks'].sort(),
    );
    expect((record.tasks as Json[]).length).toBe(63);
    await learn(storage, 1);
    const next = await unseal(storage, 'generations/000064.json');
    expect([next.min_reader, next.min_writer]).toEqual([new JsonNumber('2'), new JsonNumber('2')]);
    expect(next.tasks).toEqual([]);
    expect(await unseal(storage, 'state.json')).toMatchObject({ schema_version: new JsonNumber('1') });
  });

  it('keeps each block under the name of its bytes, those of several generations twice, and no others', async () => {
    closedAt(4);
    const storage = new MemoryStorage();
    for (let count = 1; count <= 12; count++) {
      await learn(storage, 1);
      await expectBlocksOf(storage);
    }
    for (const path of blocksIn(storage)) {
      expect(path).toContain(sha256(storage.files.get(path)!));
      const { tensors } = decode(storage.files.get(path)!);
      expect(tensors.get('tasks')!.dtype).toBe('uint8');
      expect(tensors.get('statistics.means')!.shape).toEqual([4, F]);
    }
    expect((await listed(storage, 12)).slice(0, 5)).toEqual(await listed(storage, 11));
    // Of what lies in blocks, a generation's own file has nothing, not even tensors without rows.
    const { tensors } = decode(storage.files.get('generations/000012.safetensors')!);
    expect([...tensors.keys()]).toEqual(['center/a']);
    // What went has no tensors, and so no use for blocks.
    for (let number = 1; number <= 10; number++) expect(await listed(storage, number)).toEqual([]);
  });

  it('is read as it was written, through going back and learning other things', async () => {
    closedAt(4);
    const storage = new MemoryStorage();
    const state = await learn(storage, 9, 9);
    for (const number of [9, 4, 7, 1]) {
      await state.locked(() => state.rollback(number));
      const { tasks, tensors } = await (await State.open(storage, BUNDLE, new Map())).load();
      expect(tensors).toEqual(tensorsOf(number));
      expect(tasks).toEqual(Array.from({ length: number }, (_, at) => taskOf(at + 1)));
    }
    await learn(storage, 4, 9);
    expect((await state.load()).tasks.map(({ name }) => name)).toEqual(
      [1, 2, 3, 4, 5].map((number) => `task ${number}`),
    );
    expect(await state.generationOf('task 9')).toBe(9);
    await expectBlocksOf(storage);
  });

  it.each([0, 3, 4, 7])('after %d others, is whole wherever it is interrupted', async (count) => {
    closedAt(4);
    const before = new MemoryStorage();
    await learn(before, count);
    for (let changes = 0; ; changes++) {
      const dying = new DyingStorage(before.files, changes);
      const done = await learn(dying, 1).then(
        () => true,
        (error: Error) => {
          expect(error.message).toBe('killed');
          return false;
        },
      );
      const survivor = copyOf(dying);
      const { number, tensors } = await (await State.open(survivor, BUNDLE, new Map())).load();
      expect([count, count + 1]).toContain(number);
      if (number) expect(tensors).toEqual(tensorsOf(number));
      await learn(survivor, 1);
      await expectBlocksOf(survivor);
      if (done) break;
    }
  });

  it('into a full storage keeps everything, and leaves no block behind', async () => {
    closedAt(4);
    const storage = new MemoryStorage();
    await learn(storage, 5);
    const used = [...storage.files.values()].reduce((sum, file) => sum + file.length, 0);
    for (const room of [0, 500, 1000, 1500, 2000]) {
      const full = new MemoryStorage('full', used + room);
      for (const [path, content] of storage.files) full.files.set(path, content);
      await expect(learn(full, 1)).rejects.toThrow(StorageError);
      expect((await (await State.open(full, BUNDLE, new Map())).load()).tensors).toEqual(tensorsOf(5));
      const emptied = copyOf(full);
      await learn(emptied, 1);
      await expectBlocksOf(emptied);
    }
  });
});

interface Step {
  /** Which of the stored generations it is learned from. */
  readonly from: number;
  /** Which of that one's tasks go. */
  readonly gone: number;
  /** Classes of the tasks that are new. */
  readonly added: readonly number[];
  /** Rows that the statistics have, and the sketch lacks. */
  readonly rows: number;
  readonly lacking: number;
  /** Which file of a block is damaged before. */
  readonly damaged: number;
}

/** Anything that can be known: with `tasks` of any numbers of classes, and rows that need not fit these. */
function anything(tasks: readonly LearnedTask[], { rows, lacking }: Step): Map<string, StoredTensor> {
  const table = (count: number, width: number): StoredTensor =>
    float32(
      [count, width],
      Float32Array.from({ length: count * width }, (_, at) => at + width),
    );
  const heads = tasks.map(({ name, classes }): [string, StoredTensor] => [
    `head/${name}/weight`,
    table(classes.length, 3),
  ]);
  const sketch = lacking > rows ? [] : [['familiarity.oddness', table(rows - lacking, 2)] as const];
  return new Map([...heads, ['statistics.means', table(rows, 5)], ...sketch, ['center/a', table(1, 2)]]);
}

/** Whether the other file of a block is what its name says. */
function copyIsIntact({ files }: MemoryStorage, path: string): boolean {
  const name = path.slice('blocks/'.length, -'.safetensors'.length);
  const other = name.endsWith('.copy') ? name.slice(0, -'.copy'.length) : `${name}.copy`;
  const content = files.get(`blocks/${other}.safetensors`);
  return content !== undefined && name.startsWith(sha256(content));
}

it('any generation is read as it was written, and only blocks that one needs are there', async () => {
  const step: fc.Arbitrary<Step> = fc.record({
    from: fc.nat(9),
    gone: fc.nat(12),
    added: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
    rows: fc.nat(24),
    lacking: fc.nat(3),
    damaged: fc.nat(40),
  });
  const property = fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 10 }), async (steps) => {
    closedAt(3);
    const storage = new MemoryStorage();
    const committed = new Map<number, { tasks: readonly LearnedTask[]; tensors: unknown }>();
    for (const one of steps) {
      const file = blocksIn(storage)[one.damaged];
      if (file && copyIsIntact(storage, file)) storage.files.set(file, Uint8Array.of(1));
      const state = await State.open(storage, BUNDLE, new Map(), 3);
      const stored = (await storage.list('generations')).filter((name) => name.endsWith('.safetensors'));
      const parents = [0, ...stored.map((name) => Number.parseInt(name, 10))].sort((a, b) => b - a);
      const { number, tasks: before } = await state.load(parents[one.from % parents.length]!);
      const added = one.added.map((count, at) => ({
        ...taskOf(steps.indexOf(one) * 10 + at),
        classes: Array.from({ length: count }, (_, c) => `${at} ${c}`),
      }));
      const tasks = [...before.filter((_, at) => at !== one.gone), ...added];
      const tensors = anything(tasks, one);
      const made = await state.locked(() => state.commit(number, tasks, tensors));
      committed.set(made.number, { tasks, tensors });
      await expectBlocksOf(storage);
      for (const name of await storage.list('generations')) {
        if (!name.endsWith('.safetensors')) continue;
        const read = await (await State.open(storage, BUNDLE, new Map())).load(Number.parseInt(name, 10));
        expect({ tasks: read.tasks, tensors: read.tensors }).toEqual(committed.get(read.number));
      }
    }
  });
  await fc.assert(property, { numRuns: 60, seed: 7 });
});

describe('a damaged block', () => {
  async function damaged(...endings: string[]): Promise<{ storage: MemoryStorage; name: string }> {
    closedAt(4);
    const storage = new MemoryStorage();
    await learn(storage, 5, 8);
    const name = (await listed(storage, 4))[1]!;
    for (const [at, ending] of endings.entries()) {
      const path = `blocks/${name}${ending}`;
      const content = storage.files.get(path)!;
      if (at === 1) storage.files.delete(path);
      else storage.files.set(path, content.slice(0, content.length - 1));
    }
    return { storage, name };
  }

  it.each(['.safetensors', '.copy.safetensors'])('(%s) is read from the other one', async (ending) => {
    const { storage, name } = await damaged(ending);
    const state = await State.open(storage, BUNDLE, new Map());
    expect((await state.load()).tensors).toEqual(tensorsOf(5));
    // And written again, as soon as anything is.
    await learn(storage, 1);
    expect(sha256(storage.files.get(`blocks/${name}${ending}`)!)).toBe(name);
  });

  it('that the disk does not give back is read from the other one', async () => {
    const { storage, name } = await damaged();
    const { read } = storage;
    storage.read = async (path) => {
      if (path === `blocks/${name}.safetensors`) throw new StateError('the disk does not give it back.');
      return read.call(storage, path);
    };
    expect((await (await State.open(storage, BUNDLE, new Map())).load()).tensors).toEqual(tensorsOf(5));
    await learn(storage, 1);
  });

  it('whose copy is lost, too, costs the generations that list it, in one sentence', async () => {
    const { storage, name } = await damaged('.copy.safetensors', '.safetensors');
    const state = await State.open(storage, BUNDLE, new Map());
    const failed = await state.load().catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(StateError);
    expect((failed as Error).message).toBe(
      `the state in memory/blocks/${name}.safetensors is missing or damaged, and so is its copy. ` +
        "rollback('task 3') returns to generation 3, which is intact.",
    );
    await state.locked(async () => state.rollback(await state.generationOf('task 3')));
    expect((await state.load()).tensors).toEqual(tensorsOf(3));
    await learn(storage, 2);
    expect((await state.load()).tensors).toEqual(tensorsOf(5));
  });
});

describe('a block under the name of its bytes that is none', () => {
  const listing = (tasks: string): StoredTensor => uint8(utf8(tasks));

  it.each([
    ['no safetensors', utf8('no tensors'), 'cannot be read (its header claims'],
    ['no tasks', encode(new Map()), 'cannot be read ('],
    ['tasks that are no JSON', encode(new Map([['tasks', listing('[')]])), 'cannot be read ('],
    ['tasks that are no list', encode(new Map([['tasks', listing('{}')]])), ': tasks must be a list.'],
    ['a task without a name', encode(new Map([['tasks', listing('[{}]')]])), ': tasks[0].name is missing.'],
    [
      'rows of another width',
      encode(
        new Map([
          ['tasks', listing('[]')],
          ['statistics.means', float32([1, F + 1])],
        ]),
      ),
      ": the parts of tensor 'statistics.means' do not fit together.",
    ],
  ])('(%s) is refused, in one line', async (_, data, reason) => {
    closedAt(4);
    const storage = new MemoryStorage('state');
    await learn(storage, 4);
    const name = sha256(data);
    for (const ending of ['', '.copy']) storage.files.set(`blocks/${name}${ending}.safetensors`, data);
    const path = 'generations/000004.json';
    const record = await unseal(storage, path);
    storage.files.set(path, seal({ ...record, blocks: [...(record.blocks as string[]), name] }));
    const failed = (await State.open(storage, BUNDLE, new Map())).load();
    await expect(failed).rejects.toThrow(StateError);
    await expect(failed).rejects.toThrow(`state/blocks/${name}.safetensors`);
    await expect(failed).rejects.toThrow(reason);
    await expect(failed).rejects.not.toThrow('\n');
  });
});

describe('a state with blocks', () => {
  it.each([
    ['a folder', async () => new FolderStorage(join(temporaryFolder(), 'state'))],
    ['files of a phone', async () => new VersionedStorage(new PhoneFiles(), 'blocks of a phone')],
  ] as const)('in %s is copied, cleared, and begun again', async (_, open) => {
    closedAt(4);
    const storage = await open();
    await learn(storage, 5);
    const copy = new MemoryStorage();
    await copyState(storage, copy);
    await expectBlocksOf(copy);
    expect((await (await State.open(copy, BUNDLE, new Map())).load()).tensors).toEqual(tensorsOf(5));
    const state = await learn(storage, 0);
    await state.locked(() => state.keepContribution(new Map([['count', float32([1])]])));
    await clearState(storage, BUNDLE);
    expect(await storage.list('blocks')).toEqual([]);
    await learn(storage, 3);
    expect((await (await State.open(storage, BUNDLE, new Map())).load()).tensors).toEqual(tensorsOf(3));
  });
});

/** Of what is known: tensors, and tasks but for how long they took. */
function known({ generation }: Learner): unknown {
  const tasks = generation.tasks.map((one) => ({ ...one, seconds: 0, peakRssBytes: 0 }));
  return { tasks, tensors: new Map([...generation.tensors].sort()), hidden: generation.hidden };
}

describe('a learner', () => {
  it('knows the same with blocks and without', async () => {
    const steps: ((learner: Learner) => Promise<unknown>)[] = [
      async (learner) => learner.learn(await task('01', [4, 5])),
      async (learner) => learner.learn(await task('02', [6, 7])),
      async (learner) => learner.learn(await task('03', [8, 9])),
      async (learner) => learner.learn(await task('04', [4, 8]), { replace: true }),
      async (learner) => learner.rename('five', 'fünf'),
      async (learner) => learner.merge('six', 'seven'),
      async (learner) => learner.forget({ classes: ['four'] }),
      async (learner) => learner.learn(await task('05', [4, 7])),
      async (learner) => learner.rollback('04'),
      async (learner) => learner.forget({ task: '01' }),
    ];
    const { test } = await digits();
    const run = async (classes: number): Promise<{ told: unknown[]; storage: MemoryStorage }> => {
      closedAt(classes);
      const storage = new MemoryStorage();
      const told: unknown[] = [];
      for (const step of steps) {
        const learner = await device([], HEADS, storage);
        await step(learner);
        told.push(known(learner));
        await learner.refresh();
        const opened = await device([], HEADS, storage);
        told.push(known(opened), (await opened.predict(test.pictures.slice(0, 50))).probabilities);
        await expectBlocksOf(storage);
      }
      return { told, storage };
    };
    const without = await run(NONE);
    const within = await run(2);
    expect(blocksIn(without.storage)).toEqual([]);
    expect(blocksIn(within.storage).length).toBeGreaterThan(2);
    expect(within.told).toEqual(without.told);
  });

  it('leaves of what is forgotten neither a name nor a mean in any file', async () => {
    closedAt(2);
    const folder = join(temporaryFolder(), 'state');
    const learner = await device(['01', '02', '03'], HEADS, new FolderStorage(folder));
    const { classes, generation } = learner;
    const row = classes.indexOf('four');
    const means = bytesOf(generation.tensors.get('statistics.means')!);
    const width = means.length / classes.length;
    const mean = Buffer.from(means.subarray(row * width, (row + 1) * width));
    const holding = (what: Buffer): string[] =>
      readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((one) => one.isFile())
        .map((one) => join(one.parentPath, one.name))
        .filter((path) => readFileSync(path).includes(what));
    expect(holding(mean).some((path) => path.includes('blocks'))).toBe(true);
    expect(holding(Buffer.from('four')).some((path) => path.includes('blocks'))).toBe(true);
    await learner.forget({ classes: ['four'] });
    expect(holding(mean)).toEqual([]);
    expect(holding(Buffer.from('four'))).toEqual([]);
    expect((await learner.learn(await task('04', [5, 6, 8]))).generation).toBe(5);
  });

  it('says which block could not be removed, and forgets as soon as it can', async () => {
    closedAt(2);
    const storage = new MemoryStorage();
    const learner = await device(['01', '02'], HEADS, storage);
    const { remove } = storage;
    storage.remove = async (path) => (path.startsWith('blocks/') ? false : remove.call(storage, path));
    const failed = learner.forget({ classes: ['six'] });
    await expect(failed).rejects.toThrow(StorageError);
    await expect(failed).rejects.toThrow(
      /blocks\/[0-9a-f]{64}\.(copy\.)?safetensors holds what is to be forgotten, and could not be removed/,
    );
    storage.remove = remove;
    const again = await device([], HEADS, storage);
    expect(again.classes).not.toContain('six');
    await again.learn(await task('03', [8, 9]));
    const holding = [...storage.files].filter(([, data]) => textOf(data).includes('six'));
    expect(holding.map(([path]) => path)).toEqual([]);
  });
});
