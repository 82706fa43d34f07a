/** A state that knows what a fleet has learned, as Python applied it: opened, forgotten from, and learned on here. */

import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { digits, digitsTask, FIXTURES, temporaryFolder } from './fixtures.js';

interface Told {
  labels: string[];
  classes: string[];
  counts: number[];
  trace: number;
  remains: string[];
}

const TOLD = JSON.parse(readFileSync(join(FIXTURES, 'fleet', 'told.json'), 'utf8')) as Record<string, Told>;

function opened(): Promise<Learner> {
  const state = join(temporaryFolder(), 'state');
  cpSync(join(FIXTURES, 'fleet', 'state'), state, { recursive: true });
  const bundle = new FolderBundle(join(FIXTURES, 'bundle'));
  return Learner.open({ runtime: ort, bundle, storage: new FolderStorage(state), config: { fewShot: 1e6 } });
}

async function expectKnown(learner: Learner, { labels, classes, counts, trace }: Told): Promise<void> {
  expect(learner.classes).toEqual(classes);
  const { tensors } = learner.generation;
  expect([...(tensors.get('statistics.counts')!.data as Float64Array)]).toEqual(counts);
  const scatter = tensors.get('statistics.scatter')!.data as Float64Array;
  const f = Math.sqrt(scatter.length);
  let sum = 0;
  for (let i = 0; i < f; i++) sum += scatter[i * f + i]!;
  expect(Math.abs(sum / trace - 1)).toBeLessThan(1e-6);
  const found = (await learner.predict((await digits()).test.pictures)).labels;
  const same = found.filter((label, at) => label === labels[at]).length;
  expect(same / labels.length).toBeGreaterThan(0.995);
}

describe('a state that knows what a fleet has learned', () => {
  it('predicts as in Python, and learns on', async () => {
    const learner = await opened();
    await expectKnown(learner, TOLD.all!);
    await learner.learn(await digitsTask('03-eight-nine'));
    expect(learner.classes).toHaveLength(10);
    // What counts in the fleet's part still does.
    expect(learner.tasks[0]!.shared).toEqual(['five', 'four']);
    await learner.close();
  });

  it.each([
    ['six', { classes: ['six'] }],
    ['own', { task: 'fleet' }],
    ['lent', { task: '01-four-five' }],
  ])(
    'forgets as in Python: %s',
    async (kind, { classes = [], task }: { classes?: string[]; task?: string }) => {
      const learner = await opened();
      const { remains } = await learner.forget(task === undefined ? { classes } : { task });
      expect(remains).toEqual(TOLD[kind]!.remains);
      await expectKnown(learner, TOLD[kind]!);
      await learner.close();
    },
  );
});
