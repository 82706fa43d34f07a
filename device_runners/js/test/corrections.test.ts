/** A wrong lesson is noticed when it is corrected, and nothing of it counts once it is replaced; one class is a task. */

import { describe, expect, it } from 'vitest';
import { ContradictionError, TaskError } from '../src/errors.js';
import type { StoredTensor } from '../src/formats/tensors.js';
import { ClassStatistics } from '../src/method/heads.js';
import { accuracy, device, HEADS, NAMES, said, task } from './teaching.js';

describe('a correction', () => {
  it.each([
    ['exchanged', [5, 4, 6]],
    ['shifted', [5, 6, 4]],
    ['one class', [5, 5, 6]],
  ] as const)('leaves nothing of a wrong lesson (%s)', async (kind, told) => {
    const right = await task('right', [4, 5, 6]);
    const wrong = await task(
      'wrong',
      [4, 5, 6],
      told.map((digit) => NAMES[digit]!),
    );
    const only = await device([], HEADS);
    await only.learn(right);
    const corrected = await device([], HEADS);
    await corrected.learn(wrong);
    const report = await corrected.learn(right, { replace: true });
    expect(report.replaced).toEqual(kind === 'one class' ? ['five', 'six'] : right.classes);
    expect(report.known).toEqual([]);
    // The network never moved: what is known is to the bit that of a device that saw the right ones only.
    for (const name of ['scatter', 'means', 'counts', 'classes']) {
      const [ours, theirs] = [corrected, only].map((one) => one.generation.tensors.get(`statistics.${name}`));
      expect(ours, name).toEqual(theirs);
    }
    // The wrong task's own decision is made of what is known now, too.
    if (kind !== 'one class') expect(await accuracy(corrected, [4, 5, 6], 'wrong')).toBeGreaterThan(0.9);
  });

  it('is right with trained centers, too', async () => {
    const only = await device(['01']);
    const corrected = await device();
    await corrected.learn(await task('wrong', [4, 5], ['five', 'four']));
    expect(corrected.generation.tensors.has('ledger.map')).toBe(true);
    await corrected.learn(await task('right', [4, 5]), { replace: true });
    const every = [0, 1, 2, 3, 4, 5];
    expect(await accuracy(corrected, every)).toBeGreaterThanOrEqual((await accuracy(only, every)) - 0.02);
  });

  it('is asked for where a lesson contradicts what is known, and nothing is overwritten', async () => {
    const learner = await device([], HEADS);
    await learner.learn(await task('01', [4, 5, 6, 7, 8, 9]));
    const wrong = await task('wrong', [4, 5], ['five', 'four']);
    const refused = learner.learn(wrong);
    await expect(refused).rejects.toThrow(ContradictionError);
    await expect(refused).rejects.toThrow(
      /^Task 'wrong' contradicts what is known: \d+ % of its images of 'five' look like 'four', .*with replace: true; .*with replace: false; /,
    );
    expect(learner.generation.number).toBe(1);
    // Whoever says that it is so is believed.
    expect((await learner.learn(wrong, { replace: false })).known).toEqual(['five', 'four']);
  });

  it('leaves what the base knows, and says so', async () => {
    const learner = await device();
    const wrong = await task('wrong', [0, 1], ['one', 'zero']);
    await expect(learner.learn(wrong)).rejects.toThrow(
      /with replace: true \(what the base knows of '.*' counts on\)/,
    );
    await learner.learn(wrong, { replace: true });
    const counts = learner.generation.tensors.get('statistics.counts')!.data;
    expect(Number(counts[0])).toBeGreaterThanOrEqual(80);
  });

  it('is no matter of more images of the same', async () => {
    const learner = await device(['01']);
    const more = await task('more', [4, 5, 0], undefined, { skip: 40 });
    expect(new Set((await learner.learn(more)).known)).toEqual(new Set(more.classes));
  });
});

describe('one class', () => {
  const NEW = [4, 5, 6, 7, 8, 9];
  const ALL = [0, 1, 2, 3, ...NEW];

  it('after the other ends where all at once do', async () => {
    const learner = await device();
    for (const digit of NEW) {
      const report = await learner.learn(await task(`only-${digit}`, [digit]));
      const { headsOnly, headsOnlyBecause, epochs, warnings } = report;
      expect({ headsOnly, headsOnlyBecause, epochs, warnings }).toEqual({
        ...{ headsOnly: true, headsOnlyBecause: 'one-class', epochs: 0, warnings: [] },
      });
    }
    const atOnce = await device([], HEADS);
    await atOnce.learn(await task('all', NEW));
    expect(learner.classes).toEqual(atOnce.classes);
    const found = await accuracy(learner, ALL);
    expect(found).toBeGreaterThanOrEqual((await accuracy(atOnce, ALL)) - 0.01);
    expect(found).toBeGreaterThan(0.9);
    expect(new Set(await said(learner, ALL, 'only-4'))).toEqual(new Set(['four']));
  });

  it('is refused where nothing is known that it could be told from', async () => {
    const learner = await device([], { ...HEADS, classStatistics: false });
    await expect(learner.learn(await task('01', [4]))).rejects.toThrow(
      "Task '01' has one class only ('four'), and nothing is known that it could be told from: learn it with class " +
        'statistics (classStatistics: true).',
    );
    const again = await device();
    // As of a bundle that was built without base data.
    const { checkpoint, manifest } = again.bundle;
    const known = ClassStatistics.from(checkpoint, manifest.head.features);
    known.without(manifest.classes).replaceIn(checkpoint as Map<string, StoredTensor>);
    const alone = again.learn(await task('01', [4]));
    await expect(alone).rejects.toThrow(TaskError);
    await expect(alone).rejects.toThrow(/put its other classes beside it, .* with --base-data\.$/);
  });
});
