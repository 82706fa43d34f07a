import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { FolderBundle } from '../src/node/folderBundle.js';
import { deviationOf, runConformance } from '../tools/conformance.js';
import { runtime } from './fixtures.js';

it('computes what the conformance vectors say', async () => {
  const vectors = new FolderBundle(resolve('../../tests/conformance/vectors'));
  const described = { platform: 'node', runtime: 'onnxruntime-node', machine: 'test' };
  const { cases, passed } = await runConformance(vectors, runtime, described);
  expect(cases.filter(({ status }) => status === 'failed')).toEqual([]);
  expect(passed).toBe(true);
  expect(cases.filter(({ status }) => status === 'skipped').map(({ name }) => name)).toEqual([
    'graphs-tail-int8-exact-prefix',
    'graphs-tail-int8-prefix',
    'graphs-tail-prefix',
    'step-class-mask',
    'step-label-smoothing',
  ]);
});

it('measures deviations', () => {
  const one = { shape: [2], data: [1, 2] };
  expect(deviationOf('equal', { shape: [2], data: [1, 3] }, one)).toBe(1);
  expect(deviationOf('absolute', { shape: [2], data: [1, 2.5] }, one)).toBe(0.5);
  expect(deviationOf('relative', { shape: [2], data: [1, 2.5] }, one)).toBe(0.25);
  expect(deviationOf('cosine', { shape: [2], data: [-2, 1] }, one)).toBe(1);
  expect(deviationOf('equal', { shape: [1], data: [1] }, one)).toBe(Number.POSITIVE_INFINITY);
  expect(deviationOf('absolute', { shape: [2], data: [1, Number.NaN] }, one)).toBe(Number.POSITIVE_INFINITY);
});
