/** Bundles of which whole kernels are trained. */

import { join } from 'node:path';
import { expect, test } from 'vitest';
import { columnsOf, type Site, trainedBy, widthOf } from '../src/bundle/manifest.js';
import type { Tensors } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { SETTINGS } from '../tools/digits.js';
import { digits, digitsTask, FIXTURES, memoryBundle, python, runtime, temporaryFolder } from './fixtures.js';

const KERNELS = { ...SETTINGS, epochs: 2, fewShot: 0, train: 'kernels' } as const;
const WRITTEN = join(FIXTURES, 'kernels');

const opened = (storage: Storage, config: object = KERNELS): Promise<Learner> =>
  Learner.open({ runtime, bundle: new FolderBundle(join(WRITTEN, 'bundle')), storage, config });

/** What a lesson has changed in a site's kernel, by the columns where it did. */
function byColumn(site: Site, before: Tensors, after: Tensors): Map<number, number[]> {
  const name = `center/${site.name}`;
  const [old, now] = [before.get(name)!, after.get(name)!];
  const columns = columnsOf(site);
  expect(now.shape).toEqual([site.shape[0], columns]);
  const changes = new Map<number, number[]>();
  for (let column = 0; column < columns; column++) {
    const change = Array.from({ length: site.shape[0]! }, (_, row) => {
      const at = row * columns + column;
      return Number(now.data[at]) - Number(old.data[at]);
    });
    if (change.some((value) => value !== 0)) changes.set(column, change);
  }
  return changes;
}

test('a lesson moves every position of the kernels as in Python, and Python opens what it leaves', async () => {
  const folder = temporaryFolder();
  const learner = await opened(new FolderStorage(folder));
  const before = learner.generation.tensors;
  const report = await learner.learn(await digitsTask('01-four-five'));
  expect(report).toMatchObject({ headsOnly: false, epochs: 2 });
  const { manifest } = learner.bundle;
  expect(trainedBy(manifest)).toBe('kernels');
  const theirs = await opened(new FolderStorage(join(WRITTEN, 'state')));
  const [mine, other] = [learner, theirs].map(({ generation }) => generation.tensors);
  for (const site of manifest.sites) {
    const [change, wanted] = [mine!, other!].map((tensors) => byColumn(site, before, tensors));
    expect(widthOf(site)).toBe(9 * site.shape[1]!);
    // Every position of the kernels, and no more than a quarter of all columns.
    expect(new Set([...change!.keys()].map((column) => column % 9)).size).toBe(9);
    expect(change!.size).toBeLessThanOrEqual(Math.round(0.25 * columnsOf(site)));
    // Among columns that are nearly as sensitive, rounding chooses.
    const both = [...change!.keys()].filter((column) => wanted!.has(column));
    expect(both.length / wanted!.size).toBeGreaterThan(0.9);
    let [off, size] = [0, 0];
    for (const column of both) {
      for (const [row, value] of wanted!.get(column)!.entries()) {
        off += (value - change!.get(column)![row]!) ** 2;
        size += value ** 2;
      }
    }
    // The two draw images in other ways; so near are lessons of centers, too.
    expect(Math.sqrt(off / size)).toBeLessThan(0.3);
  }
  const { test: tests } = await digits();
  const some = tests.pictures.slice(0, 40);
  const { labels } = await learner.predict(some);
  expect((await theirs.predict(some)).labels).toEqual(labels);
  const script = `
import json, sys
from csk_sdk import Learner
learner = Learner.open(sys.argv[1], sys.argv[2])
print(json.dumps([task.name for task in learner.tasks]))
`;
  expect(JSON.parse(python(script, join(WRITTEN, 'bundle'), folder))).toEqual(['01-four-five']);
});

test('asked for what the bundle does not train, it says so and learns nothing', async () => {
  const kernels = await opened(new MemoryStorage(), { ...KERNELS, train: 'centers' });
  await expect(kernels.learn(await digitsTask('01-four-five'))).rejects.toThrow(
    /^train is centers, and .*bundle was built to train kernels: take kernels, auto or heads, or build it again with --sites center\.$/,
  );
  const bundle = await memoryBundle();
  const centers = await Learner.open({ runtime, bundle, storage: new MemoryStorage(), config: KERNELS });
  await expect(centers.learn(await digitsTask('01-four-five'))).rejects.toThrow(
    'train is kernels, and bundle was built to train centers',
  );
  expect([kernels.tasks.length, centers.tasks.length]).toEqual([0, 0]);
});

test('what held-out images say is said of kernels', async () => {
  const auto = await opened(new MemoryStorage(), { ...KERNELS, train: 'auto', learningRate: 1e-7 });
  const { choice, headsOnly } = await auto.learn(await digitsTask('01-four-five'));
  expect(headsOnly).toBe(true);
  expect(choice).toContain("train: 'kernels' trains all the same");
});
