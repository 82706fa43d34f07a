/**
 * Convolutions on maps of a few pixels as matrix products, when a graph is opened.
 *
 * ONNX Runtime computes a convolution as one product per image, with a column for each output pixel, and its kernels
 * work on 16 columns at once: on a map of 2x2, three quarters of the work is thrown away. (Native code for x86 has
 * another layout for convolutions; WebAssembly has not.) On so few pixels the whole layer is one matrix,
 *
 *     y[n, (m, q)] = sum over (c, p) of x[n, (c, p)] D[(c, p), (m, q)],
 *
 * where D[(c, p), (m, q)] is the kernel's element that leads from input pixel p to output pixel q, or 0 where there is
 * none. All images are then one product. D is made of the kernel by ops on constants, which the runtime computes once
 * while it opens the graph. Of a 1x1 kernel on a few more pixels, D would be mostly zeros: there the pixels of all images are
 * the rows of one product, y[(n, p), m] = sum over c of x[(n, p), c] K[m, c], and channels are moved behind and back.
 * Shapes come from the graph's value_info: where the builder wrote none, nothing changes.
 */

import { concatenate } from '../formats/bytes.js';
import { fields } from '../formats/protobuf.js';
import { sizeOf } from '../formats/tensors.js';
import { message, rewritten, STANDARD_DOMAIN } from './onnxFile.js';
import {
  GRAPH_INITIALIZER,
  GRAPH_INPUT,
  GRAPH_NODE,
  GRAPH_VALUE,
  type OnnxNode,
  readNode,
  readTensorShape,
  readValue,
  writeInts,
  writeNode,
} from './onnxGraph.js';

const MODEL_GRAPH = 7;
// Columns that ONNX Runtime's float32 kernels work on at once.
const COLUMNS = 16;
// A product must have less than this of a convolution's multiplications.
const WORTH = 0.8;
// The matrix may be twice as large as the kernel, or this many elements.
const GROWTH = 2;
const ALWAYS = 1 << 18;
const PREFIX = 'csk.map';

type Shapes = ReadonlyMap<string, readonly (number | undefined)[]>;
type Pair = readonly [number, number];

/** A convolution of known size: kernel `[m, c, ...taps]`, from `input` to `output` pixels. */
interface Layer {
  readonly kernel: readonly [m: number, c: number];
  readonly taps: Pair;
  readonly input: Pair;
  readonly output: Pair;
  readonly strides: Pair;
  readonly dilations: Pair;
  /** Rows above and columns on the left. */
  readonly before: Pair;
  /** On any side. */
  readonly padded: boolean;
}

/** The model with its convolutions on small maps as products, where that is less work. Throws MalformedError. */
export function withSmallMaps(model: Uint8Array): Uint8Array {
  return concatenate(
    rewritten(model, ({ number, value }) =>
      number === MODEL_GRAPH ? graphWithSmallMaps(message(value)) : undefined,
    ),
  );
}

function graphWithSmallMaps(graph: Uint8Array): Uint8Array[] {
  const { shapes, constants } = facts(graph);
  const pieces: Uint8Array[] = [];
  let count = 0;
  for (const { number, value, whole } of fields(graph)) {
    const node = number === GRAPH_NODE ? readNode(message(value)) : undefined;
    const layer = node && constants.has(node.inputs[1] ?? '') ? layerOf(node, shapes) : undefined;
    if (node && layer && isWorthIt(layer)) pieces.push(...product(node, layer, `${PREFIX}${count++}`));
    else if (node && layer && isWorthTurning(layer))
      pieces.push(...turned(node, layer, `${PREFIX}${count++}`));
    else pieces.push(whole);
  }
  return pieces;
}

/** Shapes by name, and the names of what does not depend on the graph's inputs. */
function facts(graph: Uint8Array): { shapes: Shapes; constants: ReadonlySet<string> } {
  const shapes = new Map<string, readonly (number | undefined)[]>();
  const inputs = new Set<string>();
  const constants = new Set<string>();
  for (const { number, value } of fields(graph)) {
    if (number === GRAPH_INPUT || number === GRAPH_VALUE) {
      const [name, shape] = readValue(message(value));
      shapes.set(name, shape);
      if (number === GRAPH_INPUT) inputs.add(name);
    } else if (number === GRAPH_INITIALIZER) {
      const [name, shape] = readTensorShape(message(value));
      shapes.set(name, shape);
      constants.add(name);
    }
  }
  // An initializer that is an input too is only its default.
  for (const name of inputs) constants.delete(name);
  for (const { number, value } of fields(graph)) {
    if (number !== GRAPH_NODE) continue;
    const node = readNode(message(value));
    if (node.inputs.length && node.inputs.every((name) => name === '' || constants.has(name))) {
      for (const name of node.outputs) constants.add(name);
    }
  }
  return { shapes, constants };
}

function layerOf({ op, domain, inputs, attributes, ints }: OnnxNode, shapes: Shapes): Layer | undefined {
  if (op !== 'Conv' || (domain || STANDARD_DOMAIN) !== STANDARD_DOMAIN) return undefined;
  const image = shapes.get(inputs[0]!)?.slice(1);
  const kernel = shapes.get(inputs[1]!);
  if (image?.length !== 3 || kernel?.length !== 4 || ![...image, ...kernel].every((size) => size))
    return undefined;
  const [group = 1] = ints.get('group') ?? [];
  if (group !== 1 || attributes.has('auto_pad')) return undefined;
  const [m, c, ...taps] = kernel as number[];
  const strides = ints.get('strides') ?? [1, 1];
  const dilations = ints.get('dilations') ?? [1, 1];
  const pads = ints.get('pads') ?? [0, 0, 0, 0];
  const output = [0, 1].map((axis) => {
    const room = image[axis + 1]! + pads[axis]! + pads[axis + 2]! - dilations[axis]! * (taps[axis]! - 1) - 1;
    return Math.floor(room / strides[axis]!) + 1;
  });
  const pair = ([height, width]: readonly (number | undefined)[]): Pair => [height!, width!];
  return {
    kernel: [m!, c!],
    taps: pair(taps),
    input: pair(image.slice(1)),
    output: pair(output),
    strides: pair(strides),
    dilations: pair(dilations),
    before: pair(pads),
    padded: pads.some(Boolean),
  };
}

function isWorthIt({ kernel, taps, input, output }: Layer): boolean {
  const dense = sizeOf(input) * sizeOf(output);
  const columns = columnsFor(sizeOf(output));
  const elements = sizeOf(kernel) * dense;
  const room = Math.max(ALWAYS, GROWTH * sizeOf(kernel) * sizeOf(taps));
  return dense < WORTH * sizeOf(taps) * columns && elements <= room;
}

/** How many columns are computed where there are so many. */
function columnsFor(count: number): number {
  return COLUMNS * Math.ceil(count / COLUMNS);
}

/** A 1x1 kernel that fills the columns better with its channels than with the pixels. */
function isWorthTurning({ kernel: [m], taps, output, strides, padded }: Layer): boolean {
  if (padded || sizeOf(taps) !== 1 || sizeOf(strides) !== 1) return false;
  const pixels = sizeOf(output);
  return pixels * columnsFor(m) < WORTH * m * columnsFor(pixels);
}

/** Nodes in place of a 1x1 convolution: one product whose rows are the pixels of all images. */
function turned({ inputs, outputs }: OnnxNode, layer: Layer, name: string): Uint8Array[] {
  const [m, c] = layer.kernel;
  const pixels = sizeOf(layer.output);
  const own = (part: string): string => `${name}.${part}`;
  const [x, kernel, bias] = inputs;
  return [
    writeInts(own('kernel.shape'), [2], [m, c]),
    writeInts(own('flat.shape'), [3], [0, c, pixels]),
    writeInts(own('rows.shape'), [2], [-1, c]),
    writeInts(own('product.shape'), [3], [-1, pixels, m]),
    writeInts(own('map.shape'), [4], [0, m, ...layer.output]),
    writeNode('Reshape', [kernel!, own('kernel.shape')], own('matrix')),
    writeNode('Reshape', [x!, own('flat.shape')], own('flat')),
    writeNode('Transpose', [own('flat')], own('behind'), { perm: [0, 2, 1] }),
    writeNode('Reshape', [own('behind'), own('rows.shape')], own('rows')),
    writeNode('Gemm', [own('rows'), own('matrix'), ...(bias ? [bias] : [])], own('product'), { transB: 1 }),
    writeNode('Reshape', [own('product'), own('product.shape')], own('pixels')),
    writeNode('Transpose', [own('pixels')], own('back'), { perm: [0, 2, 1] }),
    writeNode('Reshape', [own('back'), own('map.shape')], outputs[0]!),
  ].flat();
}

/** Nodes and constants in place of a convolution; `name` is the beginning of their names. */
function product({ inputs, outputs }: OnnxNode, layer: Layer, name: string): Uint8Array[] {
  const [m, c] = layer.kernel;
  const [taps, from, to] = [layer.taps, layer.input, layer.output].map(sizeOf) as [number, number, number];
  const own = (part: string): string => `${name}.${part}`;
  const [x, kernel, bias] = inputs;
  const pieces = [
    writeInts(own('kernel.shape'), [3], [m, c, taps]),
    // One more tap, which is 0.
    writeInts(own('pads'), [6], [0, 0, 0, 0, 0, 1]),
    writeInts(own('taps'), [from, to], tapsOf(layer)),
    writeInts(own('matrix.shape'), [2], [c * from, m * to]),
    writeInts(own('map.shape'), [4], [0, m, ...layer.output]),
    writeNode('Reshape', [kernel!, own('kernel.shape')], own('kernel')),
    writeNode('Pad', [own('kernel'), own('pads')], own('padded')),
    writeNode('Gather', [own('padded'), own('taps')], own('gathered'), { axis: 2 }),
    writeNode('Transpose', [own('gathered')], own('turned'), { perm: [1, 2, 0, 3] }),
    writeNode('Reshape', [own('turned'), own('matrix.shape')], own('matrix')),
    writeNode('Flatten', [x!], own('rows'), { axis: 1 }),
  ];
  const factors = [own('rows'), own('matrix')];
  if (bias) {
    pieces.push(
      writeInts(own('column.shape'), [2], [m, 1]),
      writeInts(own('bias.shape'), [2], [m, to]),
      writeInts(own('row.shape'), [1], [m * to]),
      writeNode('Reshape', [bias, own('column.shape')], own('column')),
      writeNode('Expand', [own('column'), own('bias.shape')], own('spread')),
      writeNode('Reshape', [own('spread'), own('row.shape')], own('bias')),
    );
    factors.push(own('bias'));
  }
  pieces.push(
    writeNode('Gemm', factors, own('product')),
    writeNode('Reshape', [own('product'), own('map.shape')], outputs[0]!),
  );
  return pieces.flat();
}

/** For each input pixel and each output pixel the tap between them; where there is none, the one behind the last. */
function tapsOf({ taps, input, output, strides, dilations, before }: Layer): number[] {
  const along = (axis: 0 | 1, from: number, to: number): number | undefined => {
    const tap = (from + before[axis] - to * strides[axis]) / dilations[axis];
    return Number.isInteger(tap) && tap >= 0 && tap < taps[axis] ? tap : undefined;
  };
  const found: number[] = [];
  for (let from = 0; from < sizeOf(input); from++) {
    for (let to = 0; to < sizeOf(output); to++) {
      const row = along(0, Math.floor(from / input[1]), Math.floor(to / output[1]));
      const column = along(1, from % input[1], to % output[1]);
      found.push(row === undefined || column === undefined ? sizeOf(taps) : row * taps[1] + column);
    }
  }
  return found;
}
