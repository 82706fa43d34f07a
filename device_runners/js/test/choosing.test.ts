/** WebAssembly or WebGPU, as two ways whose clock and numbers are in the test's hand. */

import * as ort from 'onnxruntime-node';
import { beforeAll, expect, it } from 'vitest';
import type { Manifest } from '../src/bundle/manifest.js';
import { type BundleSource, MemoryBundle } from '../src/bundle/source.js';
import { chooseWay, type Way } from '../src/device/choosing.js';
import { madeUpImages } from '../src/device/probe.js';
import { Random } from '../src/method/random.js';
import type { Runtime, RuntimeSession, RuntimeTensor } from '../src/runtime/sessions.js';
import { bundleFiles } from './fixtures.js';

let bundle: MemoryBundle;
let time = 0;
beforeAll(async () => {
  bundle = new MemoryBundle(new Map(await bundleFiles()), 'bundle');
});

/** ONNX Runtime for Node, where a run takes `ms` on the test's clock, and gives what `change` makes of it. */
function way(
  name: string,
  ms: number,
  change: (found: Record<string, RuntimeTensor>) => Record<string, RuntimeTensor> = (found) => found,
): Way {
  const real = ort as unknown as Runtime;
  const create = async (model: Uint8Array, options?: object): Promise<RuntimeSession> => {
    const session = await real.InferenceSession.create(model, options);
    return {
      run: async (feeds, fetches) => {
        time += ms;
        return change({ ...(await session.run(feeds, fetches)) });
      },
      release: () => session.release(),
    };
  };
  return { name, runtime: { Tensor: real.Tensor, InferenceSession: { create } } };
}

const choose = (other: Way) => chooseWay(bundle, way('wasm', 10), other, () => time);

it('what is faster and computes the same is taken', async () => {
  const { way: chosen, because } = await choose(way('webgpu', 5));
  expect(chosen.name).toBe('webgpu');
  expect(because).toBe('It is faster, with the same numbers: 5.0 ms a step with webgpu, 10.0 with wasm.');
});

it('what is hardly faster is not', async () => {
  const { way: chosen, because } = await choose(way('webgpu', 9));
  expect(chosen.name).toBe('wasm');
  expect(because).toBe('It is not faster: 9.0 ms a step with webgpu, 10.0 with wasm.');
});

it('the bundle is read once for both', async () => {
  const names: string[] = [];
  const counting: BundleSource = {
    name: bundle.name,
    read: (name) => {
      names.push(name);
      return bundle.read(name);
    },
  };
  await chooseWay(counting, way('wasm', 10), way('webgpu', 5), () => time);
  expect(names).toContain('manifest.json');
  expect(names).toEqual([...new Set(names)]);
});

const scaled = (by: number) => (found: Record<string, RuntimeTensor>) => {
  const name = Object.keys(found).find((one) => one !== 'loss')!;
  const { type, dims, data } = found[name]!;
  return { ...found, [name]: { type, dims, data: (data as Float32Array).map((value) => by * value) } };
};

it.each([
  [1.01, '1.0e-2'],
  [Number.NaN, 'NaN'],
])('numbers that are %f times the right ones are none', async (by, off) => {
  const { way: chosen, because } = await choose(way('webgpu', 1, scaled(by)));
  expect(chosen.name).toBe('wasm');
  expect(because).toBe(`webgpu computes other numbers: up to ${off} off.`);
});

it('what rounding does is no other number', async () => {
  expect((await choose(way('webgpu', 1, scaled(1.00001)))).way.name).toBe('webgpu');
});

it('what throws is not taken, and the usual way may throw', async () => {
  const broken = way('webgpu', 1, () => {
    throw new Error('the device was lost');
  });
  const { way: chosen, because } = await choose(broken);
  expect(chosen.name).toBe('wasm');
  expect(because).toMatch(/^webgpu cannot compute this bundle: .*the device was lost/);
  await expect(chooseWay(bundle, broken, way('other', 1), () => time)).rejects.toThrow('the device was lost');
});

const specs = { unit: [1 / 255, 0, 1], normalised: [1 / 255, 0.5, 0.25], bytes: [1, 0, 1] } as const;

it.each(Object.entries(specs))('images of %s that nobody measured are pixels', (_, [scale, mean, std]) => {
  const manifest = {
    input: { name: 'image', channels: 2, size: [17, 9] },
    preprocessing: { mean: [mean, mean], std: [std, std], scale, resize: 'none', sample_rate: null },
  } as unknown as Manifest;
  const pixels = madeUpImages(manifest, 8, new Random(0)).map((value) => (value * std + mean) / scale);
  expect(pixels.length).toBe(8 * 2 * 17 * 9);
  const average = pixels.reduce((sum, value) => sum + value, 0) / pixels.length;
  const spread = Math.sqrt(pixels.reduce((sum, value) => sum + (value - average) ** 2, 0) / pixels.length);
  expect(Math.min(...pixels)).toBeGreaterThan(-0.01);
  expect(Math.max(...pixels)).toBeLessThan(255.01);
  expect(average).toBeGreaterThan(110);
  expect(average).toBeLessThan(145);
  expect(spread).toBeGreaterThan(20);
  expect(spread).toBeLessThan(45);
});

it('what was measured is what they are like', () => {
  const manifest = {
    input: { name: 'image', channels: 2, size: [400] },
    preprocessing: { mean: [0, 0], std: [1, 1], scale: 1 / 32768, resize: 'crop', sample_rate: null },
    probe: { mean: [900, -3], std: [250, 0] },
  } as unknown as Manifest;
  const made = madeUpImages(manifest, 1, new Random(0));
  const loud = made.slice(0, 400);
  expect(loud.reduce((sum, value) => sum + value, 0) / 400).toBeGreaterThan(870);
  expect(Math.max(...loud) - Math.min(...loud)).toBeGreaterThan(400);
  expect(new Set(made.slice(400))).toEqual(new Set([-3]));
});
