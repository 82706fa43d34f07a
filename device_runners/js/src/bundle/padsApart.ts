/**
 * Padding of 1x1 convolutions as a node of its own, for WebGPU.
 *
 * onnxruntime-web 1.30's WebGPU provider computes such a convolution as a product of matrices, without its pads, and gives an output
 * of the padded shape filled with that (findings/ort-web-webgpu-conv-1x1-ignores-pads.sh). The gradient of a convolution with
 * strides may have one. Without bias and strides, what it makes of padding is zero, so its output is padded in the place of its input: a Pad in
 * front, ONNX Runtime would put back into the convolution.
 */

import { concatenate } from '../formats/bytes.js';
import { fields } from '../formats/protobuf.js';
import { message, rewritten, STANDARD_DOMAIN } from './onnxFile.js';
import { GRAPH_NODE, type OnnxNode, readNode, writeInts, writeNode } from './onnxGraph.js';

const MODEL_GRAPH = 7;
const PREFIX = 'csk.pads';

/** Whether sessions with these options may compute with WebGPU. */
export function onWebGpu(options: object = {}): boolean {
  const { executionProviders = [] } = options as { executionProviders?: readonly unknown[] };
  return executionProviders.some((one) => ((one as { name?: string })?.name ?? one) === 'webgpu');
}

/** The model with a Pad behind each padded 1x1 convolution, where that gives the same numbers. Throws MalformedError. */
export function withPadsApart(model: Uint8Array): Uint8Array {
  return concatenate(
    rewritten(model, ({ number, value }) => (number === MODEL_GRAPH ? padsApart(message(value)) : undefined)),
  );
}

function padsApart(graph: Uint8Array): Uint8Array[] {
  let count = 0;
  return [...fields(graph)].flatMap(({ number, value, whole }) => {
    const node = number === GRAPH_NODE ? readNode(message(value)) : undefined;
    return node && isPaddedPoint(node) ? apart(node, `${PREFIX}${count++}`) : [whole];
  });
}

function isPaddedPoint({ op, domain, inputs, attributes, ints }: OnnxNode): boolean {
  if (op !== 'Conv' || (domain || STANDARD_DOMAIN) !== STANDARD_DOMAIN || attributes.has('auto_pad'))
    return false;
  const ones = (name: string): boolean => (ints.get(name) ?? []).every((value) => value === 1);
  const isPoint = ints.has('kernel_shape') && ones('kernel_shape') && ones('strides');
  return isPoint && !inputs[2] && (ints.get('pads') ?? []).some(Boolean);
}

function apart({ inputs, outputs, ints }: OnnxNode, name: string): Uint8Array[] {
  const pads = ints.get('pads')!;
  const half = pads.length / 2;
  // Batch and channels get none.
  const all = [0, 0, ...pads.slice(0, half), 0, 0, ...pads.slice(half)];
  const kept = [...ints]
    .filter(([one]) => one !== 'pads')
    .map(([one, values]) => [one, one === 'group' ? values[0]! : values] as const);
  return [
    ...writeInts(`${name}.sizes`, [all.length], all),
    ...writeNode('Conv', inputs.slice(0, 2), name, Object.fromEntries(kept)),
    ...writeNode('Pad', [name, `${name}.sizes`], outputs[0]!),
  ];
}
