/** What the guards found, in a person's words: no setting is named, and nothing is said twice. */

import { expect, test } from 'vitest';
import { remarks } from '../src/worker/sentences.js';

const strange = 'these images are unlike all that the model knows (2.0 times as far).';
type Found = Parameters<typeof remarks>[0];

function said(found: Partial<Found>): string[] {
  return remarks({ headsOnlyBecause: '', forgetting: 0, warnings: [], ...found });
}

test('a task that was trained has no remark, but for what csk-sdk warns of', () => {
  expect(said({})).toEqual([]);
  expect(said({ warnings: [strange] })).toEqual([
    'These images are unlike all that the model knows (2.0 times as far).',
  ]);
});

test('few images are said to be few', () => {
  const [first, ...more] = said({
    headsOnlyBecause: 'few-shot',
    warnings: ['6 images a class. fewShot: 0'],
  });
  expect(first).toMatch(/^These are too few images to train on/);
  expect(more).toEqual([]);
});

test('one class has no remark of its own, and loses none', () => {
  expect(said({ headsOnlyBecause: 'one-class' })).toEqual([]);
  expect(said({ headsOnlyBecause: 'one-class', warnings: [strange] })).toHaveLength(1);
});

test('what training would have cost is said in points', () => {
  const warnings = [strange, 'the trained centers would have cost, maxForgetting'];
  const found = said({ headsOnlyBecause: 'max-forgetting', forgetting: 46.1, warnings });
  expect(found).toHaveLength(2);
  expect(found[1]).toMatch(
    /^Training would have cost about 46 percentage points of accuracy on what it knew before/,
  );
  expect(found.join()).not.toMatch(/maxForgetting|fewShot/);
});

test('what older classes lose is said where it is known', () => {
  expect(said({ expected: {} })).toEqual([]);
  expect(said({ expected: { lost: 0.3 } })).toEqual([
    'The classes that it knew before are told as well as before, as far as their statistics tell, without their images.',
  ]);
  expect(said({ expected: { lost: 1.2 } }).join()).toMatch(/lose about 1 percentage point of accuracy/);
  expect(said({ expected: { lost: 12.6 } }).join()).toMatch(/lose about 13 percentage points of accuracy/);
});
