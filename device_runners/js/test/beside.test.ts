/** Two networks in one graph see what each of them sees alone. */

import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { FEATURES_BESIDE, withBeside } from '../src/bundle/beside.js';
import { Bundle } from '../src/bundle/bundle.js';
import { MEMORY_MODEL } from '../src/bundle/manifest.js';
import { float32, require32, type Tensors } from '../src/formats/tensors.js';
import { Random } from '../src/method/random.js';
import { imageFeed, neutralDeltas } from '../src/network/feeds.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { runtime } from './fixtures.js';

/** A generation whose centers are others. */
function moved(bundle: Bundle): Tensors {
  const random = new Random(1);
  const tensors = new Map(bundle.checkpoint);
  for (const { name } of bundle.manifest.sites) {
    const { shape, data } = require32(tensors, `center/${name}`);
    tensors.set(
      `center/${name}`,
      float32(
        shape,
        data.map((value) => value + 0.1 * random.normal()),
      ),
    );
  }
  return tensors;
}

/** The largest difference, as a share of the largest number. */
function furthest(one: Float32Array, other: Float32Array): number {
  const largest = Math.max(...other.map(Math.abs));
  return Math.max(...one.map((value, at) => Math.abs(value - other[at]!))) / largest;
}

it.each(['plain', 'groups', 'mobile', 'tail', 'kernels', 'plain-int8'])('of the bundle %s', async (name) => {
  const bundle = await Bundle.open(
    new FolderBundle(resolve('../../tests/conformance/vectors/bundles', name)),
  );
  const { input, sites } = bundle.manifest;
  const random = new Random(2);
  const count = 3 * input.channels * input.size.reduce((product, size) => product * size, 1);
  const images = Float32Array.from({ length: count }, () => random.normal());
  const feeds = { image: imageFeed(bundle, images), ...neutralDeltas(sites) };
  const seen = async (tensors: Tensors, beside?: Tensors): Promise<Record<string, Float32Array>> => {
    const graph = await bundle.graph(MEMORY_MODEL, tensors, runtime, { threads: 1 }, beside);
    try {
      const outputs = ['features', ...sites.map((site) => site.moment), ...(beside ? [FEATURES_BESIDE] : [])];
      return await graph.run(feeds, outputs);
    } finally {
      await graph.close();
    }
  };
  const [now, untouched] = [moved(bundle), bundle.checkpoint];
  const both = await seen(now, untouched);
  const [alone, other] = [await seen(now), await seen(untouched)];
  for (const [output, values] of Object.entries(alone)) expect(both[output]).toEqual(values);
  expect(furthest(both[FEATURES_BESIDE]!, other.features!)).toBeLessThan(2e-6);
  expect(other.features).not.toEqual(alone.features);
});

it.each([
  ['plain', true],
  ['mobile', true],
  ['kernels', false],
  ['plain-int8', false],
])('whose first site of the bundle %s is computed once: %s', async (name, once) => {
  const bundle = await Bundle.open(
    new FolderBundle(resolve('../../tests/conformance/vectors/bundles', name)),
  );
  const { sites } = bundle.manifest;
  const whole = sites.filter((site) => site.whole).map(({ weight }) => weight);
  const kernels = new Set(sites.map(({ weight }) => weight));
  const both = withBeside(bundle.file(MEMORY_MODEL), kernels, new Set(whole));
  expect(Buffer.from(both).includes('csk.difference.')).toBe(once);
});
