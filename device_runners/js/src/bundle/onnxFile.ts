/**
 * What an ONNX file would have a runtime do, read before a runtime sees it; and putting tensors into it.
 *
 * A bundle's graphs refer to weights.safetensors for their large tensors. Every runtime opens a model from memory, but
 * not every one finds a file beside it (and after a task the sites' kernels are others), so the tensors are written
 * into the model: `raw_data` in place of `external_data`. Field numbers are those of onnx.proto.
 */

import { concatenate, textOf } from '../formats/bytes.js';
import {
  DELIMITED,
  delimited,
  type Field,
  fields,
  MalformedError,
  tag,
  varint,
  varints,
} from '../formats/protobuf.js';

/** How the domain of ONNX's own ops is called here; in a file it is the empty string, too. */
export const STANDARD_DOMAIN = 'ai.onnx';

const MODEL_GRAPH = 7;
const MODEL_FUNCTIONS = 25;
const GRAPH_NODE = 1;
const GRAPH_INITIALIZER = 5;
const GRAPH_SPARSE = 15;
const GRAPH_ENDS = new Set([11, 12, 13]);
const GRAPH_INPUT = 11;
const GRAPH_VALUE = 13;
const NODE_OP = 4;
const NODE_ATTRIBUTE = 5;
const NODE_DOMAIN = 7;
const ATTRIBUTE_TENSORS = new Set([5, 10]);
const ATTRIBUTE_GRAPHS = new Set([6, 11]);
const ATTRIBUTE_SPARSES = new Set([22, 23]);
const SPARSE_PARTS = new Set([1, 2]);
const TENSOR_DIMS = 1;
const TENSOR_NAME = 8;
const TENSOR_RAW_DATA = 9;
const TENSOR_EXTERNAL = 13;
const TENSOR_LOCATION = 14;
const VALUE_NAME = 1;
const VALUE_TYPE = 2;
const TYPE_TENSOR = 1;
const TENSOR_TYPE = 1;
const TENSOR_SHAPE = 2;
const SHAPE_DIM = 1;
const DIM_VALUE = 1;
const DEEPEST = 32;

/** Where a tensor's data lie. Without a length, they go to the end of the file. */
export interface External {
  readonly location: string;
  readonly offset: number;
  readonly length?: number;
}

/**
 * An input or output: its element type (TensorProto.DataType; 0 for what is no tensor), and its shape. A size is null
 * where it is free, the whole shape undefined where nothing is said of it.
 */
export interface End {
  readonly type: number;
  readonly shape: readonly (number | null)[] | undefined;
}

export interface OnnxContents {
  /** Domains of all ops, for an import alone runs nothing. */
  readonly domains: Set<string>;
  /** Ops that run a graph of their own: If, Loop, Scan. */
  readonly branching: Set<string>;
  readonly external: External[];
  readonly inputs: Map<string, End>;
  readonly outputs: Map<string, End>;
  /** Number of local functions, which could give an op's name another meaning. */
  functions: number;
  /** How many elements all tensors and values of known shape claim to have; a free size counts as 1. */
  numbers: number;
}

function nothing(): OnnxContents {
  return {
    ...{ domains: new Set<string>(), branching: new Set<string>(), external: [] },
    ...{ inputs: new Map<string, End>(), outputs: new Map<string, End>(), functions: 0, numbers: 0 },
  };
}

/** What a ModelProto holds. Throws MalformedError. */
export function readOnnx(model: Uint8Array): OnnxContents {
  if (!model.length) throw new MalformedError('it is empty');
  const found = nothing();
  for (const { number, value } of fields(model)) {
    if (number === MODEL_FUNCTIONS) found.functions += 1;
    if (number === MODEL_GRAPH) walkGraph(message(value), found, 0);
  }
  return found;
}

function walkGraph(graph: Uint8Array, found: OnnxContents, depth: number): void {
  if (depth > DEEPEST) throw new MalformedError(`graphs are nested more than ${DEEPEST} deep`);
  for (const { number, value } of fields(graph)) {
    if (number === GRAPH_NODE) walkNode(message(value), found, depth);
    else if (number === GRAPH_INITIALIZER) walkTensor(message(value), found);
    else if (number === GRAPH_SPARSE) walkSparse(message(value), found);
    else if (GRAPH_ENDS.has(number)) {
      const [name, end] = endOf(message(value));
      found.numbers += productOf((end.shape ?? []).map((size) => size || 1));
      if (depth === 0 && number !== GRAPH_VALUE) {
        (number === GRAPH_INPUT ? found.inputs : found.outputs).set(name, end);
      }
    }
  }
}

/** A ValueInfoProto: a name, and the type and shape of a tensor. What is repeated is merged, as protobuf has it. */
function endOf(info: Uint8Array): [string, End] {
  let name = '';
  let type = 0;
  let shape: (number | null)[] | undefined;
  for (const outer of fields(info)) {
    if (outer.number === VALUE_NAME) name = text(outer.value);
    if (outer.number !== VALUE_TYPE) continue;
    for (const kind of fields(message(outer.value))) {
      if (kind.number !== TYPE_TENSOR) continue;
      for (const { number, value } of fields(message(kind.value))) {
        if (number === TENSOR_TYPE && typeof value === 'number') type = value;
        if (number !== TENSOR_SHAPE) continue;
        const dims = [...fields(message(value))].filter((one) => one.number === SHAPE_DIM);
        shape = [...(shape ?? []), ...dims.map((one) => sizeIn(message(one.value)))];
      }
    }
  }
  return [name, { type, shape }];
}

/** A size, or null for one that has a name instead, or nothing. */
function sizeIn(dim: Uint8Array): number | null {
  let found: number | null = null;
  for (const { number, value } of fields(dim)) {
    found = number === DIM_VALUE && typeof value === 'number' ? signed(value) : null;
  }
  return found;
}

function signed(value: number): number {
  return value >= 2 ** 63 ? value - 2 ** 64 : value;
}

function productOf(sizes: readonly number[]): number {
  return sizes.reduce((found, size) => found * Math.max(size, 0), 1);
}

function walkNode(node: Uint8Array, found: OnnxContents, depth: number): void {
  let domain = '';
  let op = '';
  let branches = false;
  for (const { number, value } of fields(node)) {
    // The last one counts, as everywhere in protobuf.
    if (number === NODE_DOMAIN) domain = text(value);
    if (number === NODE_OP) op = text(value);
    if (number !== NODE_ATTRIBUTE) continue;
    for (const one of fields(message(value))) {
      if (ATTRIBUTE_TENSORS.has(one.number)) walkTensor(message(one.value), found);
      else if (ATTRIBUTE_GRAPHS.has(one.number)) {
        branches = true;
        walkGraph(message(one.value), found, depth + 1);
      } else if (ATTRIBUTE_SPARSES.has(one.number)) walkSparse(message(one.value), found);
    }
  }
  found.domains.add(domain || STANDARD_DOMAIN);
  if (branches) found.branching.add(op);
}

function walkSparse(sparse: Uint8Array, found: OnnxContents): void {
  for (const { number, value } of fields(sparse)) {
    if (SPARSE_PARTS.has(number)) walkTensor(message(value), found);
  }
}

function walkTensor(tensor: Uint8Array, found: OnnxContents): void {
  found.numbers += productOf([...dimsOf(tensor)]);
  const external = externalOf(tensor);
  if (external) found.external.push(external);
}

/** One by one, or packed into one field: readers take both. */
function* dimsOf(tensor: Uint8Array): Generator<number> {
  for (const { number, value } of fields(tensor)) {
    if (number !== TENSOR_DIMS) continue;
    for (const size of typeof value === 'number' ? [value] : varints(value)) yield signed(size);
  }
}

function externalOf(tensor: Uint8Array): External | undefined {
  const entries = new Map<string, string>();
  for (const { number, value } of fields(tensor)) {
    if (number !== TENSOR_EXTERNAL) continue;
    const parts = new Map([...fields(message(value))].map((part) => [part.number, text(part.value)]));
    entries.set(parts.get(1) ?? '', parts.get(2) ?? '');
  }
  if (!entries.size) return undefined;
  const length = entries.get('length');
  const place = { location: entries.get('location') ?? '', offset: count(entries.get('offset') ?? '0') };
  return length === undefined ? place : { ...place, length: count(length) };
}

function count(digits: string): number {
  if (!/^\d{1,15}$/.test(digits)) throw new MalformedError(`'${digits.slice(0, 40)}' is no offset or length`);
  return Number(digits);
}

/** The bytes of a tensor, by its name and where the file says that they are. */
export type Resolve = (name: string, external: External) => Uint8Array;

/** The model with every external tensor's data inside. Throws MalformedError. */
export function withTensors(model: Uint8Array, resolve: Resolve): Uint8Array {
  return concatenate(
    rewritten(model, (field) =>
      field.number === MODEL_GRAPH ? filledGraph(message(field.value), resolve) : undefined,
    ),
  );
}

/** A message in pieces, with the content of those fields replaced for which `change` gives some. */
export function rewritten(
  bytes: Uint8Array,
  change: (field: Field) => Uint8Array[] | undefined,
): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (const field of fields(bytes)) {
    const content = change(field);
    if (content) pieces.push(...delimited(field.number, content));
    else pieces.push(field.whole);
  }
  return pieces;
}

function filledGraph(graph: Uint8Array, resolve: Resolve): Uint8Array[] {
  return rewritten(graph, ({ number, value }) => {
    if (number === GRAPH_INITIALIZER) return filledTensor(message(value), resolve);
    if (number === GRAPH_NODE) return filledNode(message(value), resolve);
    return undefined;
  });
}

function filledNode(node: Uint8Array, resolve: Resolve): Uint8Array[] | undefined {
  const here = nothing();
  walkNode(node, here, 0);
  if (!here.external.length) return undefined;
  return rewritten(node, (attribute) =>
    attribute.number !== NODE_ATTRIBUTE
      ? undefined
      : rewritten(message(attribute.value), ({ number, value }) => {
          if (ATTRIBUTE_TENSORS.has(number)) return filledTensor(message(value), resolve);
          if (ATTRIBUTE_GRAPHS.has(number)) return filledGraph(message(value), resolve);
          return undefined;
        }),
  );
}

function filledTensor(tensor: Uint8Array, resolve: Resolve): Uint8Array[] | undefined {
  const external = externalOf(tensor);
  if (!external) return undefined;
  const kept: Uint8Array[] = [];
  let name = '';
  for (const field of fields(tensor)) {
    if (field.number === TENSOR_NAME) name = text(field.value);
    if (field.number !== TENSOR_EXTERNAL && field.number !== TENSOR_LOCATION) kept.push(field.whole);
  }
  const data = resolve(name, external);
  return [...kept, concatenate([tag(TENSOR_RAW_DATA, DELIMITED), varint(data.length)]), data];
}

export function message(value: number | Uint8Array): Uint8Array {
  if (typeof value === 'number') throw new MalformedError('a number stands where a message should');
  return value;
}

export function text(value: number | Uint8Array): string {
  return textOf(message(value));
}
