/**
 * What an ONNX file would have a runtime do, read before a runtime sees it; and putting tensors into it.
 *
 * A bundle's graphs refer to weights.safetensors for their large tensors. Every runtime opens a model from memory, but
 * not every one finds a file beside it (and after a task the sites' kernels are others), so the tensors are written
 * into the model: `raw_data` in place of `external_data`. Field numbers are those of onnx.proto.
 */

import { concatenate, textOf } from '../bytes.js';
import { DELIMITED, delimited, type Field, fields, MalformedError, tag, varint } from '../protobuf.js';

/** How the domain of ONNX's own ops is called here; in a file it is the empty string, too. */
export const STANDARD_DOMAIN = 'ai.onnx';

const MODEL_GRAPH = 7;
const MODEL_FUNCTIONS = 25;
const GRAPH_NODE = 1;
const GRAPH_INITIALIZER = 5;
const GRAPH_SPARSE = 15;
const NODE_ATTRIBUTE = 5;
const NODE_DOMAIN = 7;
const ATTRIBUTE_TENSORS = new Set([5, 10]);
const ATTRIBUTE_GRAPHS = new Set([6, 11]);
const ATTRIBUTE_SPARSES = new Set([22, 23]);
const SPARSE_PARTS = new Set([1, 2]);
const TENSOR_NAME = 8;
const TENSOR_RAW_DATA = 9;
const TENSOR_EXTERNAL = 13;
const TENSOR_LOCATION = 14;
const DEEPEST = 32;

/** Where a tensor's data lie. Without a length, they go to the end of the file. */
export interface External {
  readonly location: string;
  readonly offset: number;
  readonly length?: number;
}

export interface OnnxContents {
  /** Domains of all ops, for an import alone runs nothing. */
  readonly domains: Set<string>;
  readonly external: External[];
  /** Number of local functions, which could give an op's name another meaning. */
  functions: number;
}

/** What a ModelProto holds. Throws MalformedError. */
export function readOnnx(model: Uint8Array): OnnxContents {
  if (!model.length) throw new MalformedError('it is empty');
  const found: OnnxContents = { domains: new Set(), external: [], functions: 0 };
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
  }
}

function walkNode(node: Uint8Array, found: OnnxContents, depth: number): void {
  let domain = '';
  for (const { number, value } of fields(node)) {
    // The last one counts, as everywhere in protobuf.
    if (number === NODE_DOMAIN) domain = text(value);
    if (number !== NODE_ATTRIBUTE) continue;
    for (const one of fields(message(value))) {
      if (ATTRIBUTE_TENSORS.has(one.number)) walkTensor(message(one.value), found);
      else if (ATTRIBUTE_GRAPHS.has(one.number)) walkGraph(message(one.value), found, depth + 1);
      else if (ATTRIBUTE_SPARSES.has(one.number)) walkSparse(message(one.value), found);
    }
  }
  found.domains.add(domain || STANDARD_DOMAIN);
}

function walkSparse(sparse: Uint8Array, found: OnnxContents): void {
  for (const { number, value } of fields(sparse)) {
    if (SPARSE_PARTS.has(number)) walkTensor(message(value), found);
  }
}

function walkTensor(tensor: Uint8Array, found: OnnxContents): void {
  const external = externalOf(tensor);
  if (external) found.external.push(external);
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
  const here: OnnxContents = { domains: new Set(), external: [], functions: 0 };
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
