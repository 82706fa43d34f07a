/** Calls of one learner that overlap: each ends on the generation that it began with. */

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { StateLockedError } from '../src/errors.js';
import { Learner } from '../src/learner.js';
import type { Prediction } from '../src/network/predicting.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import type { Runtime, RuntimeSession } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { FIXTURES, QUICKLY, runtime, temporaryFolder } from './fixtures.js';

const config = { ...QUICKLY, maxForgetting: 100 };
// It knows "a" and "b", is small, and learns in no time.
const bundle = new FolderBundle(join(FIXTURES, 'fragile', 'bundle'));
const [BASE, ONE, TWO] = ['a b', 'c d', 'c d e f'];
const FIRST = '01';
// More than go through the network at once.
const pictures = Array.from({ length: 100 }, (_, i) => ({
  width: 8,
  height: 8,
  data: Uint8Array.from({ length: 64 }, (_, at) => ((i * 7919 + at * 104729) % 120) + 60 * (i % 2)),
}));
const labels = pictures.map((_, i) => i % 2);
const first = { name: FIRST, classes: ['c', 'd'], pictures, labels };
const second = { name: '02', classes: ['e', 'f'], pictures, labels: labels.map((label) => 1 - label) };

function names({ classes }: Prediction): string {
  return classes.join(' ');
}

/** onnxruntime-node that counts its sessions, refuses what is released, and can stop before a run. */
class Watched implements Runtime {
  readonly Tensor = runtime.Tensor;
  open = 0;
  /** Called before each run, with how many there were. */
  before: (run: number) => Promise<void> = async () => undefined;
  private runs = 0;

  readonly InferenceSession = {
    create: async (model: Uint8Array, options?: object): Promise<RuntimeSession> => {
      const session = await runtime.InferenceSession.create(model, options);
      this.open += 1;
      let released = false;
      return {
        run: async (feeds, fetches) => {
          await this.before(this.runs++);
          if (released) throw new Error('Session already disposed');
          return session.run(feeds as never, fetches as string[]) as never;
        },
        release: async () => {
          if (released) throw new Error('released twice');
          released = true;
          this.open -= 1;
          await session.release();
        },
      };
    },
  };

  /** Do something else, to its end, before the run after `count` more. */
  interrupt(count: number, work: () => Promise<unknown>): void {
    const at = this.runs + count;
    this.before = async (run) => {
      if (run === at) await work();
    };
  }
}

async function openOn(watched: Runtime, storage: Storage = new MemoryStorage()): Promise<Learner> {
  return Learner.open({ runtime: watched, bundle, storage, config });
}

/** One task is learned. */
async function learned(watched: Runtime, storage?: Storage): Promise<Learner> {
  const learner = await openOn(watched, storage);
  await learner.learn(first);
  return learner;
}

describe('calls that overlap', () => {
  it.each([
    ['learn', 0],
    ['learn', 1],
    ['rollback', 0],
    ['rollback', 1],
  ])('leave a prediction its generation (%s before run %i)', async (change, count) => {
    const watched = new Watched();
    const learner = await learned(watched);
    const before = await learner.predict(pictures);
    watched.interrupt(count, () => (change === 'learn' ? learner.learn(second) : learner.rollback('base')));
    expect(await learner.predict(pictures)).toEqual(before);
    expect(names(await learner.predict(pictures))).toBe(change === 'learn' ? TWO : BASE);
    await learner.close();
    expect(watched.open).toBe(0);
  });

  it('leave a prediction its generation where it waits for the graph to open', async () => {
    const watched = new Watched();
    const learner = await learned(watched);
    const before = await learner.predict(pictures);
    await learner.close();
    const [during] = await Promise.all([
      learner.predict(pictures),
      learner.close(),
      learner.rollback('base'),
    ]);
    expect([ONE, BASE]).toContain(names(during));
    if (names(during) === ONE) expect(during).toEqual(before);
    await learner.close();
    await learner.close();
    expect(watched.open).toBe(0);
  });

  it('share one graph', async () => {
    const watched = new Watched();
    const learner = await learned(watched);
    await learner.close();
    await Promise.all([1, 2, 3, 4].map(() => learner.predict(pictures)));
    expect(watched.open).toBe(1);
    await learner.close();
    expect(watched.open).toBe(0);
  });

  it('open again what could not be opened once', async () => {
    const watched = new Watched();
    const learner = await learned(watched);
    await learner.close();
    const { create } = watched.InferenceSession;
    watched.InferenceSession.create = async () => {
      throw new Error('no memory');
    };
    await expect(learner.predict(pictures)).rejects.toThrow(/cannot open .* \(no memory\)/);
    watched.InferenceSession.create = create;
    expect((await learner.predict(pictures)).labels).toHaveLength(100);
    await learner.close();
  });

  it('export one generation', async () => {
    const watched = new Watched();
    const learner = await learned(watched);
    const expected = await learner.export();
    const exports = await Promise.all([learner.export(), learner.rollback('base'), learner.export()]);
    await learner.rollback(FIRST).catch(() => undefined);
    const base = await (await openOn(watched)).export();
    for (const found of [exports[0], exports[2]]) {
      const like = found.length === expected.length ? expected : base;
      expect(Buffer.from(found).equals(Buffer.from(like))).toBe(true);
    }
  });

  it.each([
    ['memory', () => new MemoryStorage()],
    ['a folder', () => new FolderStorage(temporaryFolder())],
  ])('tell a second writer in one sentence (%s)', async (_, storageOf) => {
    const storage = storageOf();
    const watched = new Watched();
    const learner = await learned(watched, storage);
    const other = await openOn(new Watched(), storage);
    const told: string[] = [];
    const third = { ...second, name: 'third' };
    let writes: PromiseSettledResult<unknown>[] = [];
    // While learning has the lock, and waits for them.
    watched.interrupt(0, async () => {
      writes = await Promise.allSettled([
        learner.learn(third),
        learner.rollback('base'),
        other.learn(third),
        other.rollback('base'),
      ]);
    });
    const learning = await learner.learn(second);
    expect(writes.length).toBe(4);
    for (const write of writes) {
      const { reason } = write as PromiseRejectedResult;
      expect(reason).toBeInstanceOf(StateLockedError);
      told.push((reason as Error).message);
    }
    expect(new Set(told).size).toBe(1);
    expect(told[0]).toMatch(/is writing to .*Wait for it to finish.*nothing was changed\.$/);
    expect(learning.generation).toBe(2);
    expect(names(await other.predict([]))).toBe(TWO);
  });

  it.each(['onnxruntime-node', 'onnxruntime-web'])('are a life of their own on %s', async (name) => {
    const ort = createRequire(import.meta.url)(name) as Runtime;
    const storage = new MemoryStorage();
    const learner = await learned(ort, storage);
    const other = await openOn(ort, storage);
    const known = new Map<string, Prediction>();
    let over = false;
    let count = 0;
    const reading = async (by: Learner): Promise<void> => {
      do {
        const found = await by.predict(pictures);
        const expected = known.get(names(found)) ?? found;
        known.set(names(found), expected);
        expect(found).toEqual(expected);
        await by.export();
        count += 1;
      } while (!over);
    };
    const writing = async (): Promise<void> => {
      for (let round = 0; round < 3; round++) {
        await learner.learn(second);
        await learner.rollback(FIRST);
      }
    };
    const readers = [learner, learner, other].map(reading);
    await writing().finally(() => {
      over = true;
    });
    await Promise.all(readers);
    expect(count).toBeGreaterThan(2);
    expect([...known.keys()].every((classes) => classes === ONE || classes === TWO)).toBe(true);
    await learner.close();
    await other.close();
  });
});
