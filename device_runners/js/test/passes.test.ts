/** How often the network looks at a task's images. */

import { join } from 'node:path';
import { expect, test } from 'vitest';
import { HEAD } from '../src/contract/thresholds.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import type { Runtime, RuntimeSession } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { FIXTURES, runtime } from './fixtures.js';
import { accuracy, device, HEADS, task } from './teaching.js';

const bundle = new FolderBundle(join(FIXTURES, 'fragile', 'bundle'));
const COUNT = 40;
const pictures = Array.from({ length: COUNT }, (_, i) => ({
  width: 8,
  height: 8,
  data: Uint8Array.from({ length: 64 }, (_, at) => ((i * 7919 + at * 104729) % 120) + 60 * (i % 2)),
}));
const labels = pictures.map((_, i) => i % 2);

/** onnxruntime-node that counts images in runs that end at the features, and in steps. */
class Counting implements Runtime {
  readonly Tensor = runtime.Tensor;
  looked = 0;

  readonly InferenceSession = {
    create: async (model: Uint8Array, options?: object): Promise<RuntimeSession> => {
      const session = await runtime.InferenceSession.create(model, options);
      return {
        run: async (feeds, fetches) => {
          const image = feeds.image as unknown as { dims: readonly number[] };
          if ((fetches as string[]).includes('features')) this.looked += image.dims[0]!;
          return session.run(feeds as never, fetches as string[]) as never;
        },
        release: async () => session.release(),
      };
    },
  };
}

async function looks(settings: object, times = 1): Promise<number[]> {
  const [shown, named] = [pictures, labels].map((some) =>
    Array.from({ length: times }, () => some).flat(),
  ) as [typeof pictures, typeof labels];
  const counting = new Counting();
  const config = { epochs: 1, patience: 0, threads: 1, labelCheck: false, maxForgetting: 100, flip: false };
  const storage = new MemoryStorage();
  const learner = await Learner.open({
    ...{ bundle, storage, runtime: counting, config: { ...config, ...settings } },
  });
  const found: number[] = [];
  for (const [name, classes] of [
    ['01', ['c', 'd']],
    ['02', ['e', 'f']],
  ] as const) {
    counting.looked = 0;
    await learner.learn({ name, classes: [...classes], pictures: shown, labels: named });
    found.push(counting.looked / shown.length);
  }
  return found;
}

test('heads are learned with one look at each image', async () => {
  expect(await looks({ fewShot: 1000 })).toEqual([1, 1]);
});

test('with trained centers there is one look before and one after, which tells what a moved network cannot, too', async () => {
  expect(await looks({ fewShot: 0, train: 'centers' })).toEqual([2, 2]);
});

test('features that are not kept are looked at again, and what a first task contributes is counted then', async () => {
  const { beforeBytes } = HEAD;
  Object.assign(HEAD, { beforeBytes: 0 });
  expect(await looks({ fewShot: 0, train: 'centers' })).toEqual([3, 3]);
  Object.assign(HEAD, { beforeBytes });
});

test('for mirrored images there is one look more, and where they are many, none', async () => {
  expect(await looks({ fewShot: 1000, flip: true })).toEqual([2, 2]);
  expect(await looks({ fewShot: 1000, flip: true }, 10)).toEqual([1, 1]);
});

test('a head that is fitted on some of them mirrored, too, tells its classes apart', async () => {
  const chosen = [4, 5, 6, 7];
  const learner = await device([], { ...HEADS, flip: true });
  await learner.learn(await task('01', chosen, undefined, { count: 35 }));
  expect(await accuracy(learner, chosen, '01')).toBeGreaterThan(0.95);
});
