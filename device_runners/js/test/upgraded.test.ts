/** A state that Python carried over to another bundle: opened here, and learned on; what is frozen there stays so. */

import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Learner } from '../src/learner.js';
import { basisOf } from '../src/method/projection.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { digits, digitsTask, FIXTURES, temporaryFolder } from './fixtures.js';

const UPGRADED = join(FIXTURES, 'upgraded');

function opened(): Promise<Learner> {
  const state = join(temporaryFolder(), 'state');
  cpSync(join(UPGRADED, 'state'), state, { recursive: true });
  const bundle = new FolderBundle(join(UPGRADED, 'bundle'));
  return Learner.open({
    runtime: ort,
    bundle,
    storage: new FolderStorage(state),
    config: { epochs: 1, fewShot: 0, train: 'centers' },
  });
}

describe('a state that was carried over', () => {
  it('predicts as in Python, and trains no frozen site', async () => {
    const told = JSON.parse(readFileSync(join(UPGRADED, 'told.json'), 'utf8')) as {
      labels: string[];
      frozen: string[];
    };
    const learner = await opened();
    const { labels } = await learner.predict((await digits()).test.pictures);
    const same = labels.filter((label, at) => label === told.labels[at]).length;
    expect(same / labels.length).toBeGreaterThan(0.995);
    expect(told.frozen).toHaveLength(3);
    const report = await learner.learn(await digitsTask('02-six-seven'));
    for (const site of told.frozen) {
      const [kept, of] = report.protected[site]!.split('/');
      expect(kept).toBe(of);
    }
    await learner.close();
  });

  it('keeps every direction of a frozen moment, whatever was added to it', () => {
    const k = 150;
    const moment = new Float64Array(k * k);
    for (let i = 0; i < k; i++) {
      moment[i * k + i] = 1e30;
      for (let j = 0; j < k; j++) moment[i * k + j] = moment[i * k + j]! + i * j;
    }
    expect(basisOf(moment, k, 0.5).r).toBe(k);
  });
});
