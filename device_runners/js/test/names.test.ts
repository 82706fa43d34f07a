/** Names that a person takes for one: as tests/sdk/test_names.py has them. */

import { describe, expect, it } from 'vitest';
import { firstTwin, likeness } from '../src/formats/names.js';

const ALIKE = [
  ['Bus', 'bus'],
  ['lamp ', 'lamp'],
  ['\u00e9clair', 'e\u0301clair'],
  ['STRASSE', 'straße'],
  ['\u3000ΣΊΣΥΦΟΣ', 'σίσυφος'],
] as const;
const UNLIKE = [
  ['ilik', 'ılık'],
  ['lamp', 'lamps'],
  ['e', 'é'],
  ['a b', 'ab'],
] as const;

describe('names', () => {
  it.each(ALIKE)('%s is %s', (one, other) => {
    expect(likeness(one)).toBe(likeness(other));
    expect(firstTwin([one], [other])).toEqual([one, other]);
    expect(firstTwin([other, one], [])).toEqual([one, other]);
    expect(firstTwin([one], [other, one])).toBeUndefined();
  });

  it.each(UNLIKE)('%s is not %s', (one, other) => {
    expect(firstTwin([one], [other])).toBeUndefined();
  });
});
