/**
 * What an export with rejection appends to the model: `known` and `distance` beside its own output, in standard ops.
 *
 * As ONNX messages concatenate (export.ts), nodes and outputs can be appended like tensors. They read the features, which
 * the template's classifier reads too. The formulas are those of method/unknown.ts.
 */

import { BundleError } from '../errors.js';
import { concatenate, textOf, utf8 } from '../formats/bytes.js';
import { delimited, fields, MalformedError, tag, VARINT, varint } from '../formats/protobuf.js';
import { type Float32Tensor, float32 } from '../formats/tensors.js';
import { type Distance, UNKNOWN_NUMBERS } from '../method/unknown.js';

const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const GRAPH_OUTPUT = 12;
// Of what else has a name in a graph, in which field it is.
const GRAPH_NAMED = new Map([
  [5, 8],
  [11, 1],
  [12, 1],
  [13, 1],
]);
const NODE_INPUT = 1;
const NODE_OUTPUT = 2;
const NODE_NAME = 3;
const NODE_OP = 4;
const NODE_ATTRIBUTE = 5;
const ATTRIBUTE_NAME = 1;
const ATTRIBUTE_INT = 3;
const ATTRIBUTE_INTS = 8;
const ATTRIBUTE_TYPE = 20;
const INT = 2;
const INTS = 7;
const FLOAT = 1;
const BOOL = 9;
const PREFIX = 'csk_sdk.rejection/';

/** Pieces of ModelProto behind a template, and float32 tensors by name. */
export interface Rejection {
  readonly pieces: readonly Uint8Array[];
  readonly tensors: ReadonlyMap<string, Float32Tensor>;
}

/**
 * For a template whose classifier's weight is called `headWeight`; known is what is no further than `limit`. Throws
 * BundleError where the template is no model with such a classifier.
 */
export function rejection(
  template: Uint8Array,
  headWeight: string,
  distance: Distance,
  limit: number,
): Rejection {
  const { features, taken } = read(template, headWeight);
  const [known, far] = ['known', 'distance'].map((name) => (taken.has(name) ? `csk_sdk_${name}` : name));
  const f = distance.mean.length;
  const classes = distance.bias.length;
  const one = (value: number): Float32Tensor => float32([], Float32Array.of(value));
  const tensors = new Map<string, Float32Tensor>(
    Object.entries({
      weight: float32(
        [classes, f],
        distance.weight.map((value) => value / distance.margin),
      ),
      bias: float32(
        [classes],
        distance.bias.map((value) => value / distance.margin),
      ),
      mean: float32([f], distance.mean),
      scale: float32([f], distance.scale),
      most: one(UNKNOWN_NUMBERS.mostSquared),
      steep: one(UNKNOWN_NUMBERS.steepness / distance.usual),
      from: one(UNKNOWN_NUMBERS.steepness),
      least: one(UNKNOWN_NUMBERS.leastMargin),
      limit: one(limit),
    }).map(([name, tensor]) => [PREFIX + name, tensor]),
  );
  const graph = [
    ...nodes(features, known!, far!).flatMap((node) => delimited(GRAPH_NODE, [node])),
    ...delimited(GRAPH_OUTPUT, [end(known!, BOOL)]),
    ...delimited(GRAPH_OUTPUT, [end(far!, FLOAT)]),
  ];
  return { pieces: delimited(MODEL_GRAPH, graph), tensors };
}

/** The graph of the formulas, from the features `(N, f)`. */
function nodes(features: string, known: string, distance: string): Uint8Array[] {
  const steps: readonly (readonly [string, string, readonly string[]])[] = [
    ['Gemm', 'logits', [features, 'weight', 'bias']],
    ['ReduceMax', 'margin', ['logits']],
    ['Max', 'kept_margin', ['margin', 'least']],
    ['Sub', 'centered', [features, 'mean']],
    ['Mul', 'deviation', ['centered', 'scale']],
    ['Mul', 'square', ['deviation', 'deviation']],
    ['Min', 'winsorised', ['square', 'most']],
    ['ReduceMean', 'oddness', ['winsorised']],
    ['Mul', 'steeper', ['oddness', 'steep']],
    ['Sub', 'excess', ['steeper', 'from']],
    ['Relu', 'exponent', ['excess']],
    ['Exp', 'penalty', ['exponent']],
    ['Div', distance, ['penalty', 'kept_margin']],
    ['LessOrEqual', known, [distance, 'limit']],
  ];
  const outside = new Set([features, known, distance]);
  const named = (name: string): string => (outside.has(name) ? name : PREFIX + name);
  return steps.map(([op, output, inputs]) => node(op, inputs.map(named), named(output)));
}

function node(op: string, inputs: readonly string[], output: string): Uint8Array {
  const attributes: Uint8Array[] = [];
  if (op === 'Gemm') attributes.push(attribute('transB', ATTRIBUTE_INT, INT, 1));
  else if (op.startsWith('Reduce')) {
    attributes.push(attribute('axes', ATTRIBUTE_INTS, INTS, 1), attribute('keepdims', ATTRIBUTE_INT, INT, 0));
  }
  return concatenate([
    ...inputs.flatMap((name) => delimited(NODE_INPUT, [utf8(name)])),
    ...delimited(NODE_OUTPUT, [utf8(output)]),
    ...delimited(NODE_NAME, [utf8(`${PREFIX}${op} ${output}`)]),
    ...delimited(NODE_OP, [utf8(op)]),
    ...attributes.flatMap((one) => delimited(NODE_ATTRIBUTE, [one])),
  ]);
}

function attribute(name: string, number: number, kind: number, value: number): Uint8Array {
  const typed = [tag(number, VARINT), varint(value), tag(ATTRIBUTE_TYPE, VARINT), varint(kind)];
  return concatenate([...delimited(ATTRIBUTE_NAME, [utf8(name)]), ...typed]);
}

/** A ValueInfoProto of shape `(N,)`: 1 is the name, 2 a type with a tensor type of element type and shape. */
function end(name: string, kind: number): Uint8Array {
  const shape = delimited(1, delimited(2, [utf8('N')]));
  const tensor = [tag(1, VARINT), varint(kind), ...delimited(2, shape)];
  return concatenate([...delimited(1, [utf8(name)]), ...delimited(2, delimited(1, tensor))]);
}

/** The name of what the classifier reads, and all names that the graph uses. */
function read(model: Uint8Array, headWeight: string): { features: string; taken: Set<string> } {
  let features: string | undefined;
  const taken = new Set<string>();
  try {
    for (const graph of inside(model, MODEL_GRAPH)) {
      for (const { number, value } of fields(graph)) {
        if (number === GRAPH_NODE) {
          const inputs = inside(message(value), NODE_INPUT).map(textOf);
          for (const name of [...inputs, ...inside(message(value), NODE_OUTPUT).map(textOf)]) taken.add(name);
          if (inputs.indexOf(headWeight) > 0) features = inputs[0];
        } else if (GRAPH_NAMED.has(number)) {
          for (const name of inside(message(value), GRAPH_NAMED.get(number)!)) taken.add(textOf(name));
        }
      }
    }
    if (features === undefined) throw new MalformedError(`no node reads '${headWeight}'`);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new BundleError(
      `the bundle's export template is damaged: ${error.message}. Build the bundle again.`,
    );
  }
  return { features, taken };
}

function inside(bytes: Uint8Array, wanted: number): Uint8Array[] {
  return [...fields(bytes)].filter(({ number }) => number === wanted).map(({ value }) => message(value));
}

function message(value: number | Uint8Array): Uint8Array {
  if (typeof value === 'number') throw new MalformedError('a number stands where a message should');
  return value;
}
