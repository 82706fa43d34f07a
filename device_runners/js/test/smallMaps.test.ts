/** Convolutions rewritten as products, against ONNX Runtime's own convolution of the model as it was. */

import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { message } from '../src/bundle/onnxFile.js';
import { GRAPH_NODE, readNode, writeNode } from '../src/bundle/onnxGraph.js';
import { withSmallMaps } from '../src/bundle/smallMaps.js';
import { concatenate, utf8 } from '../src/formats/bytes.js';
import { delimited, fields, tag, VARINT, varint } from '../src/formats/protobuf.js';
import { sizeOf } from '../src/formats/tensors.js';
import { Random } from '../src/method/random.js';

interface Given {
  readonly image: readonly [channels: number, height: number, width: number];
  readonly kernel: readonly [out: number, channels: number, height: number, width: number];
  readonly attributes?: Record<string, number | readonly number[]>;
  readonly bias?: boolean;
  /** The kernel is an input of the graph. */
  readonly dynamic?: boolean;
  /** The image has no shape in the graph. */
  readonly unknown?: boolean;
  /** The kernel is turned over by a node before it is used, as in the gradient of a layer's input. */
  readonly turned?: boolean;
}

const whole = (number: number, value: number): Uint8Array =>
  concatenate([tag(number, VARINT), varint(value)]);

function valueInfo(field: number, name: string, shape: readonly number[] | undefined): Uint8Array[] {
  const sizes = (shape ?? []).flatMap((size) => delimited(1, size ? [whole(1, size)] : []));
  const tensor = [whole(1, 1), ...(shape ? delimited(2, sizes) : [])];
  return delimited(field, [...delimited(1, [utf8(name)]), ...delimited(2, delimited(1, tensor))]);
}

function floats(name: string, shape: readonly number[], random: Random): Uint8Array[] {
  const data = Float32Array.from({ length: sizeOf(shape) }, () => random.uniform() - 0.5);
  const sizes = shape.map((size) => whole(1, size));
  const content = [...sizes, whole(2, 1), ...delimited(8, [utf8(name)])];
  return delimited(5, [...content, ...delimited(9, [new Uint8Array(data.buffer)])]);
}

function modelOf({ image, kernel, attributes = {}, bias, dynamic, unknown, turned }: Given): Uint8Array {
  const random = new Random(0);
  const [out, channels, ...taps] = kernel;
  const stored = turned ? [channels, out, ...taps] : kernel;
  const used = turned ? 'turned' : 'kernel';
  const graph = [
    ...(turned ? writeNode('Transpose', ['kernel'], 'turned', { perm: [1, 0, 2, 3] }) : []),
    ...writeNode('Neg', ['image'], 'x'),
    ...writeNode('Conv', bias ? ['x', used, 'bias'] : ['x', used], 'y', attributes),
    ...delimited(2, [utf8('graph')]),
    ...(dynamic ? valueInfo(11, 'kernel', kernel) : floats('kernel', stored, random)),
    ...(bias ? floats('bias', [out], random) : []),
    // A size of 0 stands for one that is not known.
    ...valueInfo(11, 'image', unknown ? undefined : [0, ...image]),
    ...valueInfo(12, 'y', undefined),
    ...(unknown ? [] : valueInfo(13, 'x', [0, ...image])),
    ...(turned ? valueInfo(13, 'turned', kernel) : []),
  ];
  return concatenate([whole(1, 8), ...delimited(8, [whole(2, 17)]), ...delimited(7, graph)]);
}

function opsOf(model: Uint8Array): string[] {
  const graph = [...fields(model)].find(({ number }) => number === 7)!;
  return [...fields(message(graph.value))]
    .filter(({ number }) => number === GRAPH_NODE)
    .map(({ value }) => readNode(message(value)).op);
}

async function run(model: Uint8Array, image: ort.Tensor): Promise<ort.Tensor> {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 });
  const { y } = await session.run({ image });
  await session.release();
  return y!;
}

describe('a convolution on a small map', () => {
  it.each<[string, Given]>([
    ['3x3', { image: [8, 2, 2], kernel: [6, 8, 3, 3], attributes: { pads: [1, 1, 1, 1] }, bias: true }],
    [
      'strided',
      { image: [4, 4, 3], kernel: [5, 4, 3, 3], attributes: { pads: [1, 1, 1, 1], strides: [2, 2] } },
    ],
    [
      'dilated',
      { image: [3, 3, 3], kernel: [4, 3, 3, 3], attributes: { pads: [2, 2, 2, 2], dilations: [2, 2] } },
    ],
    ['uneven', { image: [3, 2, 2], kernel: [4, 3, 2, 2], attributes: { pads: [1, 0, 0, 1] }, bias: true }],
    ['5x3', { image: [2, 2, 3], kernel: [3, 2, 5, 3], attributes: { pads: [2, 1, 2, 1], group: 1 } }],
    ['one pixel', { image: [4, 1, 1], kernel: [3, 4, 3, 3], attributes: { pads: [1, 1, 1, 1] }, bias: true }],
    ['1x1', { image: [20, 3, 3], kernel: [48, 20, 1, 1], bias: true }],
    ['1x1 without a bias', { image: [20, 7, 7], kernel: [48, 20, 1, 1] }],
    ['1x1, turned', { image: [48, 5, 5], kernel: [32, 48, 1, 1], turned: true }],
    ['turned', { image: [5, 2, 2], kernel: [7, 5, 3, 3], attributes: { pads: [1, 1, 1, 1] }, turned: true }],
  ])('is one product: %s', async (_, given) => {
    const model = modelOf(given);
    const rewritten = withSmallMaps(model);
    expect(opsOf(model)).toContain('Conv');
    expect(opsOf(rewritten)).not.toContain('Conv');
    const random = new Random(1);
    for (const count of [1, 5]) {
      const data = Float32Array.from({ length: count * sizeOf(given.image) }, () => random.uniform() - 0.5);
      const image = new ort.Tensor('float32', data, [count, ...given.image]);
      const [expected, got] = [await run(model, image), await run(rewritten, image)];
      expect(got.dims).toEqual(expected.dims);
      const golden = expected.data as Float32Array;
      expect(Math.max(...golden.map(Math.abs))).toBeGreaterThan(0.1);
      (got.data as Float32Array).forEach((value, at) => {
        expect(Math.abs(value - golden[at]!)).toBeLessThan(1e-5);
      });
    }
  });

  it.each<[string, Given]>([
    ['a large map', { image: [4, 8, 8], kernel: [4, 4, 3, 3], attributes: { pads: [1, 1, 1, 1] } }],
    ['1x1 taps', { image: [4, 2, 2], kernel: [4, 4, 1, 1] }],
    ['1x1 taps on many pixels', { image: [20, 12, 12], kernel: [64, 20, 1, 1] }],
    [
      '1x1 taps with padding',
      { image: [20, 3, 3], kernel: [48, 20, 1, 1], attributes: { pads: [0, 0, 1, 1] } },
    ],
    [
      '1x1 taps with a stride',
      { image: [20, 5, 5], kernel: [48, 20, 1, 1], attributes: { strides: [2, 2] } },
    ],
    ['groups', { image: [4, 2, 2], kernel: [4, 2, 3, 3], attributes: { pads: [1, 1, 1, 1], group: 2 } }],
    [
      'a kernel that is fed',
      { image: [4, 2, 2], kernel: [4, 4, 3, 3], attributes: { pads: [1, 1, 1, 1] }, dynamic: true },
    ],
    [
      'no shape',
      { image: [4, 2, 2], kernel: [4, 4, 3, 3], attributes: { pads: [1, 1, 1, 1] }, unknown: true },
    ],
    // 512 * 16 by 512 * 4 elements: seven times the kernel.
    [
      'too large a matrix',
      { image: [512, 4, 4], kernel: [512, 512, 3, 3], attributes: { pads: [1, 1, 1, 1], strides: [2, 2] } },
    ],
  ])('is left as it is: %s', (_, given) => {
    const model = modelOf(given);
    expect(Buffer.compare(withSmallMaps(model), model)).toBe(0);
  });
});
