/** Commits that are interrupted at every point, and what is damaged. */

import { describe, expect, it } from 'vitest';
import { UNRECORDED } from '../src/contract/recordSchema.js';
import { StateError, StorageError } from '../src/errors.js';
import { textOf, utf8 } from '../src/formats/bytes.js';
import { type Json, parseJson } from '../src/formats/json.js';
import { float32, type StoredTensor } from '../src/formats/tensors.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { type LearnedTask, seal } from '../src/state/record.js';
import { State } from '../src/state/state.js';
import { DyingStorage } from './storing.js';

const BUNDLE = 'b'.repeat(64);
const base = tensors(0);
const NO_FILES = { contributions: new Map(), carried: new Map() };

function tensors(value: number): Map<string, StoredTensor> {
  return new Map([['center/a', float32([2], Float32Array.of(value, value))]]);
}

function task(name: string): LearnedTask {
  const numbers = { epochs: 1, images: 2, seconds: 0.5, loss: 1e-5, peakRssBytes: 0 };
  const said = { protected: { conv1: '2/4' }, notes: ['well'] };
  return { ...UNRECORDED, ...NO_FILES, name, classes: ['x', 'y'], ...numbers, config: {}, ...said };
}

async function commit(storage: MemoryStorage, count: number, keep?: number): Promise<State> {
  const state = await State.open(storage, BUNDLE, base, keep);
  for (let i = 0; i < count; i++) {
    await state.locked(async () => {
      const { number, tasks } = await state.load();
      await state.commit(number, [...tasks, task(`task ${number + 1}`)], tensors(number + 1));
    });
  }
  return state;
}

describe('a state', () => {
  it('remembers generations, and rolls back', async () => {
    const state = await commit(new MemoryStorage(), 3);
    const { number, parent, tasks, tensors: found } = await state.load();
    expect([number, parent, tasks.map(({ name }) => name)]).toEqual([3, 2, ['task 1', 'task 2', 'task 3']]);
    expect(found).toEqual(tensors(3));
    expect(tasks[0]).toEqual(task('task 1'));
    await state.locked(async () => state.rollback(await state.generationOf('task 1')));
    expect((await state.load()).number).toBe(1);
    await expect(state.generationOf('task 9')).rejects.toThrow(
      /no generation of task 'task 9'. Known: base, task 1/,
    );
    await state.locked(async () => state.commit(1, [task('task 1'), task('again')], tensors(9)));
    expect((await state.load()).number).toBe(4);
    await state.locked(() => state.rollback(0));
    expect((await state.load()).tensors).toBe(base);
  });

  it('says of tasks that an upgrade brought together that they have one generation', async () => {
    const state = await commit(new MemoryStorage(), 0);
    const brought = ['a', 'b', 'c'].map((name) => task(name));
    await state.locked(async () => state.commit(0, brought, tensors(1)));
    await state.locked(async () => state.commit(1, [...brought, task('d')], tensors(2)));
    await expect(state.generationOf('b')).rejects.toThrow(
      "'b' was carried over by an upgrade, together with a, c, in one generation: there is none that ends with it. " +
        "`upgradeBack` takes the upgrade back, and `rollback('c')` leads to what it brought. Known: base, c, d.",
    );
    expect(await state.generationOf('c')).toBe(1);
  });

  it('reads tasks of an older csk-sdk, which recorded less', async () => {
    const storage = new MemoryStorage();
    await commit(storage, 1);
    const path = 'generations/000001.json';
    const { check: _, ...raw } = parseJson(textOf(storage.files.get(path)!)) as { [key: string]: Json };
    const [old] = raw.tasks as { [key: string]: Json }[];
    delete old!.protected;
    delete old!.notes;
    storage.files.set(path, seal(raw));
    const state = await State.open(storage, BUNDLE, base);
    expect((await state.load()).tasks).toEqual([{ ...task('task 1'), protected: {}, notes: [] }]);
    old!.notes = 'no list';
    storage.files.set(path, seal(raw));
    await expect(state.load()).rejects.toThrow('tasks[0].notes must be a list.');
  });

  it('keeps what a newer csk-sdk wrote of a task', async () => {
    const storage = new MemoryStorage();
    await commit(storage, 1);
    const path = 'generations/000001.json';
    const { check: _, ...raw } = parseJson(textOf(storage.files.get(path)!)) as { [key: string]: Json };
    const newer = parseJson('{"conv1": "2/4", "share": 1.0}');
    (raw.tasks as { [key: string]: Json }[])[0]!.newer = newer;
    storage.files.set(path, seal(raw));
    await commit(storage, 1);
    const next = parseJson(textOf(storage.files.get('generations/000002.json')!)) as { [key: string]: Json };
    expect((next.tasks as { [key: string]: Json }[])[0]!.newer).toEqual(newer);
  });

  it.each([0, 1, 4])('after %d commits, is whole wherever the next is interrupted', async (count) => {
    const before = new MemoryStorage();
    await commit(before, count, 2);
    let interrupted = 0;
    for (let changes = 0; ; changes++) {
      const dying = new DyingStorage(before.files, changes);
      const done = await commit(dying, 1, 2).then(
        () => true,
        (error: Error) => {
          expect(error.message).toBe('killed');
          return false;
        },
      );
      const survivor = new MemoryStorage();
      for (const [path, content] of dying.files) survivor.files.set(path, content);
      const { number, tensors: found } = await (await State.open(survivor, BUNDLE, base, 2)).load();
      expect([count, count + 1]).toContain(number);
      expect(found).toEqual(tensors(number));
      // And the next commit works, whatever lies there.
      await commit(survivor, 1, 2);
      if (done) break;
      interrupted += 1;
    }
    expect(interrupted).toBeGreaterThan(2);
  });

  it('keeps everything when the storage is full', async () => {
    const storage = new MemoryStorage();
    await commit(storage, 2);
    const used = [...storage.files.values()].reduce((sum, file) => sum + file.length, 0);
    for (const room of [0, 50, 120, 400, 700]) {
      const full = new MemoryStorage('full', used + room);
      for (const [path, content] of storage.files) full.files.set(path, content);
      await expect(commit(full, 1)).rejects.toThrow(StorageError);
      expect((await (await State.open(full, BUNDLE, base)).load()).number).toBe(2);
    }
  });

  it('keeps as many generations as it is told, and their history', async () => {
    const storage = new MemoryStorage();
    const state = await commit(storage, 6, 3);
    const kept = (await storage.list('generations')).filter((name) => name.endsWith('.safetensors'));
    expect(kept.sort()).toEqual(['000004.safetensors', '000005.safetensors', '000006.safetensors']);
    expect((await storage.list('generations')).filter((name) => name.endsWith('.json'))).toHaveLength(6);
    await expect(state.generationOf('task 1')).rejects.toThrow(
      "Generation 1 of task 'task 1' is pruned or damaged.",
    );
  });

  it('notices damage, and names the way back', async () => {
    const storage = new MemoryStorage();
    const state = await commit(storage, 2);
    const path = 'generations/000002.safetensors';
    const content = storage.files.get(path)!;
    content[content.length - 1]! ^= 1;
    await expect(state.load()).rejects.toThrow(
      /000002.safetensors is damaged: its checksum does not match. rollback\('task 1'\) returns to generation 1/,
    );
    storage.files.set('HEAD', utf8('{"head": 2, "last": 2, "check": "0"}'));
    await expect(state.load()).rejects.toThrow(/HEAD is damaged/);
    await state.locked(async () => state.rollback(await state.generationOf('task 1')));
    expect((await state.load()).number).toBe(1);
    storage.files.delete('HEAD');
    await expect(state.load()).rejects.toThrow(/HEAD is missing although generations are stored/);
  });

  it('says in one line what is wrong with a file of several', async () => {
    const storage = new MemoryStorage();
    const state = await commit(storage, 1);
    await storage.replace('HEAD', utf8('{\n "head": 1,\n oops\n}'));
    const error = await state.head().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StateError);
    expect((error as Error).message).toMatch(/HEAD cannot be read \(/);
    expect((error as Error).message).not.toContain('\n');
  });

  it('opens with no other bundle, and no newer schema', async () => {
    const storage = new MemoryStorage();
    await commit(storage, 1);
    await expect(State.open(storage, 'c'.repeat(64), base)).rejects.toThrow(
      /belongs to another bundle .*bbbbbbbb…/,
    );
    storage.files.set('state.json', seal({ schema_version: 4, bundle_id: BUNDLE }));
    await expect(State.open(storage, BUNDLE, base)).rejects.toThrow(
      /by a newer csk-sdk, and reading it takes one that knows schema 4 of states .* knows 3\): update/,
    );
    storage.files.delete('state.json');
    await expect(State.open(storage, BUNDLE, base)).rejects.toThrow(/nobody knows which bundle/);
  });

  it('wants a lock for writing', async () => {
    const state = await State.open(new MemoryStorage(), BUNDLE, base);
    await expect(state.commit(0, [], base)).rejects.toThrow(StateError);
  });

  it('keeps progress, and believes none that is torn', async () => {
    const storage = new MemoryStorage();
    const state = await State.open(storage, BUNDLE, base);
    await state.locked(() => state.saveProgress(tensors(5), { step: 3, note: 'ä' }));
    expect(await state.loadProgress()).toMatchObject({ tensors: tensors(5), meta: { step: 3, note: 'ä' } });
    const file = storage.files.get('progress.safetensors')!;
    storage.files.set('progress.safetensors', file.subarray(0, file.length - 1));
    expect(await state.loadProgress()).toBeUndefined();
    expect(textOf(storage.files.get('state.json')!)).toContain(`"bundle_id": "${BUNDLE}"`);
  });
});
