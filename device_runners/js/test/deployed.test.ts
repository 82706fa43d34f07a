/** What was ever deployed opens for ever: bundles and states of tests/deployed, which a csk-sdk of some day made. */

import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { deployedProbe, deployedSettings, deployedTask } from '../tools/deployedTasks.js';
import { temporaryFolder } from './fixtures.js';

const DEPLOYED = resolve('../../tests/deployed');
// What this runner does not learn; the sentences are in bundle.test.ts.
const LEFT_OUT = new Set(['signals', 'multi-label']);
// Sums in another order, on other CPUs; int8 rounds to other levels there.
const CLOSE: Readonly<Record<string, number>> = { int8: 0.02 };

interface Told {
  readonly classes: readonly string[];
  readonly probabilities: readonly (readonly number[])[];
}

const days = readdirSync(DEPLOYED).filter((day) => existsSync(join(DEPLOYED, day, 'pictures.safetensors')));
const states = days.flatMap((day) =>
  readdirSync(join(DEPLOYED, day)).flatMap((kind) =>
    LEFT_OUT.has(kind)
      ? []
      : ['python', 'javascript'].flatMap((writer) =>
          existsSync(join(DEPLOYED, day, kind, writer)) ? [[day, kind, writer] as const] : [],
        ),
  ),
);

function opened(day: string, kind: string, writer: string): Promise<Learner> {
  const state = join(temporaryFolder(), 'state');
  cpSync(join(DEPLOYED, day, kind, writer), state, { recursive: true });
  const bundle = new FolderBundle(join(DEPLOYED, day, kind, 'bundle'));
  return Learner.open({
    runtime: ort,
    bundle,
    storage: new FolderStorage(state),
    config: deployedSettings(kind),
  });
}

describe('what was deployed', () => {
  it('is there, of all kinds and both writers', () => {
    const kinds = states.map(([, kind, writer]) => `${kind} ${writer}`);
    for (const kind of ['exact', 'int8', 'wide', 'ledger', 'blocks', 'domains', 'kernels', 'ort-training'])
      expect(kinds).toEqual(expect.arrayContaining([`${kind} python`, `${kind} javascript`]));
  });

  it.each(states)(
    '%s: %s by %s predicts as its writer did, learns, and goes back',
    async (day, kind, writer) => {
      const folder = join(DEPLOYED, day);
      const learner = await opened(day, kind, writer);
      const probe = await deployedProbe(folder);
      const told = JSON.parse(readFileSync(join(folder, kind, `${writer}.json`), 'utf8')) as Told;
      const { classes, probabilities } = await learner.predict(probe);
      expect(classes).toEqual(told.classes);
      const expected = told.probabilities.flat();
      expect(probabilities).toHaveLength(expected.length);
      const off = Math.max(...expected.map((p, at) => Math.abs(p - probabilities[at]!)));
      expect(off).toBeLessThan(CLOSE[kind] ?? 1e-3);

      const task = await deployedTask(folder, '03');
      const last = learner.generation.number;
      expect((await learner.learn(task)).generation).toBe(last + 1);
      const { labels } = await learner.predict(task.pictures, { task: '03' });
      const right = labels.filter((label, at) => label === task.classes[task.labels[at]!]).length;
      expect(right / labels.length).toBeGreaterThan(0.9);
      expect((await learner.rollback('01')).tasks.map(({ name }) => name)).toEqual(['01']);
      await learner.close();
    },
  );

  const withLedger = states.filter((parts) => existsSync(join(DEPLOYED, ...parts, 'ledger')));

  it.each(withLedger)('%s: %s by %s has a ledger, and is forgotten from', async (day, kind, writer) => {
    const learner = await opened(day, kind, writer);
    const { classes, remains } = await learner.forget({ classes: ['d'] });
    expect(classes).toEqual(['d']);
    expect(remains.filter((one) => one.startsWith('the spread'))).toEqual([]);
    const { labels } = await learner.predict(await deployedProbe(join(DEPLOYED, day)));
    expect(labels).not.toContain('d');
    await learner.close();
  });
});
