/** What the guards found, in a person's words: no setting is named, and nothing is said twice. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { remarks } from '../src/worker/sentences.js';

const CONTRACT = new URL('../../../../sdk/csk_sdk/contract/sentences.json', import.meta.url);
const sentences = JSON.parse(readFileSync(CONTRACT, 'utf8')) as Record<string, string>;
const strange = 'these images are unlike all that the model knows (2.0 times as far).';
type Found = Parameters<typeof remarks>[0];

function said(found: Partial<Found>): string[] {
  return remarks({ headsOnlyBecause: '', forgetting: 0, warnings: [], twins: {}, gain: undefined, ...found });
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

test('what was chosen, and why, is said without a setting', () => {
  const gain = { images: 12, heads: 0.9, centers: 0.9, likelihood: 0, sure: 0, lost: 0, done: 0.2 };
  expect(said({ headsOnlyBecause: 'no-gain', gain })).toEqual([
    'Whether training helps was asked of 12 of your images, and it was not clear that it does: it tells the new classes by ' +
      'what it sees already.',
  ]);
  expect(said({ gain })).toEqual([
    'Whether training helps was asked of 12 of your images, and it does: it was trained.',
  ]);
});

test('one class has no remark of its own, and loses none', () => {
  expect(said({ headsOnlyBecause: 'one-class' })).toEqual([]);
  expect(said({ headsOnlyBecause: 'one-class', warnings: [strange] })).toHaveLength(1);
});

test('what training would have cost is said in points', () => {
  const warnings = [strange, 'what was trained would have cost, maxForgetting'];
  const found = said({ headsOnlyBecause: 'max-forgetting', forgetting: 46.1, warnings });
  expect(found).toHaveLength(2);
  expect(found[1]).toMatch(
    /^Training would have cost about 46 percentage points of accuracy on what it knew before/,
  );
  expect(found.join()).not.toMatch(/maxForgetting|fewShot/);
});

test('what the page asks about, or says in other words, is not said twice', () => {
  const twin = sentences.twin_apart!.replace('{new}', 'drei').replace('{old}', 'three');
  const twins = { drei: { old: 'three', taken: 0.5, back: 0.5 } };
  expect(said({ warnings: [twin, strange], twins })).toHaveLength(1);
  const dropped = said({
    headsOnlyBecause: 'max-forgetting',
    warnings: [sentences.heads_instead!, twin],
    twins,
  });
  expect(dropped).toHaveLength(1);
  const hardly = said({ warnings: [sentences.not_told!] });
  expect(hardly.join()).toMatch(/^It tells these classes from one another/);
});
