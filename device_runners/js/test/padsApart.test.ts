/** Padded 1x1 convolutions with their padding apart, against ONNX Runtime's own of the model as it was. */

import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-node';
import { expect, it } from 'vitest';
import { message } from '../src/bundle/onnxFile.js';
import { GRAPH_NODE, readNode, writeNode } from '../src/bundle/onnxGraph.js';
import { onWebGpu, withPadsApart } from '../src/bundle/padsApart.js';
import { concatenate, utf8 } from '../src/formats/bytes.js';
import { delimited, fields, tag, VARINT, varint } from '../src/formats/protobuf.js';
import { bundleFiles } from './fixtures.js';

const whole = (number: number, value: number): Uint8Array =>
  concatenate([tag(number, VARINT), varint(value)]);

function valueInfo(field: number, name: string, rank: number): Uint8Array[] {
  const sizes = Array.from({ length: rank }, () => delimited(1, [])).flat();
  const tensor = [whole(1, 1), ...delimited(2, sizes)];
  return delimited(field, [...delimited(1, [utf8(name)]), ...delimited(2, delimited(1, tensor))]);
}

function modelOf(attributes: Record<string, number | readonly number[]>, bias = false): Uint8Array {
  const graph = [
    ...writeNode('Conv', bias ? ['x', 'w', 'b'] : ['x', 'w'], 'y', attributes),
    ...delimited(2, [utf8('graph')]),
    ...valueInfo(11, 'x', 4),
    ...valueInfo(11, 'w', 4),
    ...(bias ? valueInfo(11, 'b', 1) : []),
    ...valueInfo(12, 'y', 4),
  ];
  return concatenate([whole(1, 8), ...delimited(8, [whole(2, 17)]), ...delimited(7, graph)]);
}

function nodes(model: Uint8Array) {
  const graph = [...fields(model)].find(({ number }) => number === 7)!;
  return [...fields(message(graph.value))]
    .filter(({ number }) => number === GRAPH_NODE)
    .map(({ value }) => readNode(message(value)));
}

const tensor = (dims: number[], seed: number) =>
  new ort.Tensor(
    'float32',
    Float32Array.from({ length: dims.reduce((a, b) => a * b) }, (_, i) => Math.sin(seed + i)),
    dims,
  );

async function computed(model: Uint8Array, group: number): Promise<[readonly number[], number[]]> {
  const session = await ort.InferenceSession.create(model);
  const feeds = { x: tensor([2, 4, 3, 2], 1), w: tensor([4, 4 / group, 1, 1], 2) };
  const { y } = await session.run(feeds);
  await session.release();
  return [y!.dims, Array.from(y!.data as Float32Array)];
}

it.each([
  { kernel_shape: [1, 1], pads: [0, 0, 1, 1] },
  { kernel_shape: [1, 1], pads: [1, 2, 0, 3], strides: [1, 1], dilations: [1, 1] },
  { kernel_shape: [1, 1], pads: [1, 1, 1, 1], group: 2 },
])('%o', async (attributes) => {
  const model = modelOf(attributes);
  const changed = withPadsApart(model);
  expect(nodes(changed).map(({ op, ints }) => [op, ints.has('pads')])).toEqual([
    ['Conv', false],
    ['Pad', false],
  ]);
  const group = 'group' in attributes ? attributes.group! : 1;
  const [shape, values] = await computed(model, group);
  const [found, numbers] = await computed(changed, group);
  expect(found).toEqual(shape);
  for (const [at, value] of values.entries()) expect(numbers[at]).toBeCloseTo(value, 6);
});

it.each([
  { kernel_shape: [1, 1], pads: [0, 0, 0, 0] },
  { kernel_shape: [3, 3], pads: [1, 1, 1, 1] },
  { kernel_shape: [1, 1], pads: [0, 0, 1, 1], strides: [2, 2] },
  { kernel_shape: [1, 1], pads: [0, 0, 1, 1], bias: 1 },
  { strides: [1, 1] },
])('%o stays as it is', ({ bias, ...attributes }: Record<string, number | number[]>) => {
  const model = modelOf(attributes, bias === 1);
  expect(Buffer.compare(withPadsApart(model), model)).toBe(0);
});

it('is for WebGPU alone', () => {
  expect(onWebGpu()).toBe(false);
  expect(onWebGpu({ executionProviders: ['wasm'] })).toBe(false);
  expect(onWebGpu({ executionProviders: ['webgpu', 'wasm'] })).toBe(true);
  expect(onWebGpu({ executionProviders: [{ name: 'webgpu' }] })).toBe(true);
});

it('finds them in training graphs that were built before 2026-11-30, and none in those of today', async () => {
  const before = await readFile('../../tests/conformance/vectors/bundles/plain/training_model.onnx');
  expect(nodes(withPadsApart(before)).length).toBeGreaterThan(nodes(before).length);
  const today = (await bundleFiles()).get('training_model.onnx')!;
  expect(nodes(withPadsApart(today)).length).toBe(nodes(today).length);
});
