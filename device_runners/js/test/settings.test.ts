/** Settings are held to what Python says of them: tests/contract/settings.json. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { configRecord, DEFAULTS, type TrainingConfig, trainingConfig } from '../src/config.js';
import { SETTINGS } from '../src/contract/settings.js';
import { ConfigError } from '../src/errors.js';

const FILE = join(import.meta.dirname, '..', '..', '..', 'tests', 'contract', 'settings.json');
const rows = JSON.parse(readFileSync(FILE, 'utf8')) as {
  name: string;
  value: unknown;
  refused: string | null;
}[];
const names = new Map(Object.entries(SETTINGS).map(([name, { record }]) => [record, name]));

it.each(rows.filter(({ name }) => names.has(name)))('$name $value: $refused', ({ name, value, refused }) => {
  const own = names.get(name)!;
  const set = () => trainingConfig({ [own]: value } as Partial<TrainingConfig>);
  if (refused === null) {
    expect(set()).toEqual({ ...DEFAULTS, [own]: value });
    return;
  }
  expect(set).toThrow(ConfigError);
  expect(set).toThrow(refused.replace(name, own));
});

it('has what Python has, but for what the contract leaves to Python', () => {
  expect(rows.filter(({ name }) => names.has(name)).length).toBeGreaterThan(150);
  const record = configRecord(DEFAULTS);
  expect(Object.keys(record)).toEqual([...names.keys(), 'label_smoothing']);
});
