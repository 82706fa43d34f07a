/** How numbers are said, as tests/sdk/test_wording.py has it for Python. */

import { expect, test } from 'vitest';
import { plural, rounded } from '../src/formats/sentences.js';
import { gainNote, headsNotes } from '../src/learning/fewShot.js';
import { expectedOf } from '../src/learning/report.js';

const TINY = -1e-6;

test.each([
  [0, '0 tasks'],
  [1, '1 task'],
  [2, '2 tasks'],
  [1200, '1,200 tasks'],
  ['1', '1 task'],
  ['2.5', '2.5 tasks'],
])('a count goes with its noun: %s', (count, expected) => {
  expect(plural(count, 'task')).toBe(expected);
  expect([plural(1, 'class', 'classes'), plural(2, 'class', 'classes')]).toEqual(['1 class', '2 classes']);
});

test.each([
  [TINY, 3, '0.000'],
  [-0, 0, '0'],
  [-0.06, 1, '-0.1'],
  [0.06, 1, '0.1'],
  [Number.NaN, 3, 'NaN'],
])('a zero has no sign: %s', (value, digits, expected) => {
  expect(rounded(value, digits)).toBe(expected);
});

test('nor has it where it is said', () => {
  const gain = { images: 1, heads: 0.5, centers: 0.5, likelihood: TINY, sure: -1, lost: 0, done: 0.2 };
  const said = gainNote(gain, 5, 1, 'kernels');
  expect(said).toContain("train: 'kernels' trains all the same");
  expect(said).toContain('right of 1 image held out');
  expect(said).toContain('gain 0.0000 nats');
  expect(headsNotes('few-shot', 2, ['a', 'b'], 'centers')[0]).toMatch(/^1 image a class: /);
  expect(headsNotes('few-shot', 5, ['a', 'b'], 'centers')[0]).toMatch(/^2\.5 images a class: /);
  const nothing = { expected: new Map(), twins: new Map(), rivals: new Map(), alike: [] };
  expect(Object.is(expectedOf({ ...nothing, lost: 1e-9 }).lost, 0)).toBe(true);
});
