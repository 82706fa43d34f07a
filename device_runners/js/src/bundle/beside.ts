/**
 * Two networks in one graph, which differ in some kernels: what lies in front of these is computed once for both.
 *
 * Where two generations look at the same images, each layer behind a site is another one, and each in front of all sites the
 * same. So the nodes that depend on a kernel, and that the features depend on, are there a second time, with kernels of their own.
 * What a first site reads is the same, too, and where kernels differ in their centers alone, the second one gives what the first
 * one gives and a 1x1 convolution by that difference.
 */

import { concatenate, utf8 } from '../formats/bytes.js';
import { delimited, fields, tag, VARINT, varint } from '../formats/protobuf.js';
import { message, rewritten, text } from './onnxFile.js';
import {
  GRAPH_INITIALIZER,
  GRAPH_NODE,
  GRAPH_OUTPUT,
  type OnnxNode,
  readNode,
  readTensorShape,
  writeNode,
} from './onnxGraph.js';

const MODEL_GRAPH = 7;
const [NODE_INPUT, NODE_OUTPUT, NODE_NAME] = [1, 2, 3];
const [TENSOR_SIZE, TENSOR_NAME] = [1, 8];
const VALUE_NAME = 1;
const PREFIX = 'csk.beside.';
const DIFFERENCE = 'csk.difference.';
const FEATURES = 'features';
/** What the second network makes of the images. */
export const FEATURES_BESIDE = PREFIX + FEATURES;

/** The name of the first network's tensor of which this is the second one's; undefined for one of the first. */
export function besideOf(name: string): string | undefined {
  return name.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined;
}

/** The name of the kernel whose difference between the two networks, at its center, this tensor `[m, c, 1, ...]` is. */
export function differenceOf(name: string): string | undefined {
  return name.startsWith(DIFFERENCE) ? name.slice(DIFFERENCE.length) : undefined;
}

/**
 * The model with a second network beside it, whose `kernels` have other names and whose features are an output; of these kernels,
 * those among `whole` differ in more than their centers. Throws MalformedError.
 */
export function withBeside(
  model: Uint8Array,
  kernels: ReadonlySet<string>,
  whole: ReadonlySet<string> = new Set(),
): Uint8Array {
  return concatenate(
    rewritten(model, ({ number, value }) =>
      number === MODEL_GRAPH ? graphWithBeside(message(value), kernels, whole) : undefined,
    ),
  );
}

function graphWithBeside(
  graph: Uint8Array,
  kernels: ReadonlySet<string>,
  wholes: ReadonlySet<string>,
): Uint8Array[] {
  const parts = (wanted: number): Uint8Array[] =>
    [...fields(graph)].filter(({ number }) => number === wanted).map(({ value }) => message(value));
  const nodes = parts(GRAPH_NODE).map(readNode);
  const own = ownOf(nodes, kernels);
  const shapes = new Map(
    parts(GRAPH_INITIALIZER)
      .map(readTensorShape)
      .filter(([name]) => kernels.has(name) && !wholes.has(name)),
  );
  const isFirst = (node: OnnxNode): boolean =>
    isCentred(node, shapes.get(node.inputs[1]!)) && !own.has(node.inputs[0]!);
  const differences = new Set(nodes.filter(isFirst).map(({ inputs }) => inputs[1]!));
  const copied = new Set(nodes.filter((node) => !isFirst(node)).flatMap(({ inputs }) => inputs));
  const renamed = (bytes: Uint8Array, ...names: readonly number[]): Uint8Array[] =>
    rewritten(bytes, ({ number, value }) => {
      if (!names.includes(number)) return undefined;
      const name = text(value);
      return [utf8(own.has(name) || number === NODE_NAME ? PREFIX + name : name)];
    });
  return [...fields(graph)].flatMap(({ number, value, whole }) => {
    const another = (...names: readonly number[]): Uint8Array[] =>
      delimited(number, renamed(message(value), ...names));
    if (number === GRAPH_NODE) {
      const node = readNode(message(value));
      if (!node.outputs.some((name) => own.has(name))) return [whole];
      return [whole, ...(isFirst(node) ? moved(node) : another(NODE_INPUT, NODE_OUTPUT, NODE_NAME))];
    }
    if (number === GRAPH_INITIALIZER) {
      const name = nameIn(message(value), TENSOR_NAME);
      return [
        whole,
        ...(own.has(name) && copied.has(name) ? another(TENSOR_NAME) : []),
        ...(differences.has(name) ? delimited(number, differenceTensor(message(value))) : []),
      ];
    }
    if (number === GRAPH_OUTPUT && nameIn(message(value), VALUE_NAME) === FEATURES) {
      return [whole, ...another(VALUE_NAME)];
    }
    return [whole];
  });
}

/** Names of what the second network has of its own: the kernels, and what depends on them on the way to the features. */
function ownOf(nodes: readonly OnnxNode[], kernels: ReadonlySet<string>): ReadonlySet<string> {
  const behind = new Set(kernels);
  for (const { inputs, outputs } of nodes) {
    if (inputs.some((name) => behind.has(name))) for (const name of outputs) behind.add(name);
  }
  const wanted = new Set([FEATURES]);
  for (const { inputs, outputs } of [...nodes].reverse()) {
    if (outputs.some((name) => wanted.has(name))) for (const name of inputs) wanted.add(name);
  }
  return new Set([...behind].filter((name) => wanted.has(name)));
}

/** Whether the center of a kernel `[m, c, ...taps]` reads where a 1x1 kernel of the same strides does. */
function isCentred({ op, attributes, ints }: OnnxNode, shape: readonly number[] | undefined): boolean {
  if (op !== 'Conv' || !shape || attributes.has('auto_pad')) return false;
  const taps = shape.slice(2);
  const pads = ints.get('pads') ?? [];
  const dilations = ints.get('dilations') ?? [];
  return [...taps, ...taps].every(
    (count, side) => (pads[side] ?? 0) === ((count - 1) * (dilations[side % taps.length] ?? 1)) / 2,
  );
}

/** What a convolution gives in the second network, of what it gives in the first. */
function moved({ inputs, outputs, ints }: OnnxNode): Uint8Array[] {
  const [change, output] = [`${DIFFERENCE}${outputs[0]!}`, outputs[0]!];
  const strides = ints.get('strides');
  const [group = 1] = ints.get('group') ?? [];
  return [
    ...writeNode('Conv', [inputs[0]!, DIFFERENCE + inputs[1]!], change, {
      group,
      ...(strides && { strides }),
    }),
    ...writeNode('Add', [output, change], PREFIX + output),
  ];
}

/** A kernel's tensor as that of the difference at its center. */
function differenceTensor(kernel: Uint8Array): Uint8Array[] {
  const [name, [m, c, ...taps]] = readTensorShape(kernel);
  const shape = [m!, c!, ...taps.map(() => 1)];
  return [
    ...shape.map((size) => concatenate([tag(TENSOR_SIZE, VARINT), varint(size)])),
    ...[...fields(kernel)]
      .filter(({ number }) => number !== TENSOR_SIZE && number !== TENSOR_NAME)
      .map(({ whole }) => whole),
    ...delimited(TENSOR_NAME, [utf8(DIFFERENCE + name)]),
  ];
}

function nameIn(bytes: Uint8Array, field: number): string {
  return (
    [...fields(bytes)].flatMap(({ number, value }) => (number === field ? [text(value)] : [])).at(-1) ?? ''
  );
}
