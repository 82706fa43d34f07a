/** The nodes, shapes and small constants of an ONNX graph, read and written as protobuf. Field numbers are those of onnx.proto. */

import { concatenate, utf8 } from '../formats/bytes.js';
import { delimited, type Field, fields, tag, VARINT, varint } from '../formats/protobuf.js';
import { message, text } from './onnxFile.js';

export const GRAPH_NODE = 1;
export const GRAPH_INITIALIZER = 5;
export const GRAPH_INPUT = 11;
export const GRAPH_OUTPUT = 12;
export const GRAPH_VALUE = 13;
const INT64 = 7;
const ATTRIBUTE_INT = 3;
const ATTRIBUTE_INTS = 8;
// AttributeProto.AttributeType.
const KIND_INT = 2;
const KIND_INTS = 7;

/** A node; of its attributes those that are whole numbers, or lists of them. */
export interface OnnxNode {
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlySet<string>;
  readonly ints: ReadonlyMap<string, readonly number[]>;
}

export function readNode(node: Uint8Array): OnnxNode {
  const found = { op: '', domain: '', inputs: [] as string[], outputs: [] as string[] };
  const attributes = new Set<string>();
  const ints = new Map<string, readonly number[]>();
  for (const { number, value } of fields(node)) {
    if (number === 1) found.inputs.push(text(value));
    else if (number === 2) found.outputs.push(text(value));
    else if (number === 4) found.op = text(value);
    else if (number === 7) found.domain = text(value);
    else if (number === 5) {
      const parts = [...fields(message(value))];
      const name = parts.filter((part) => part.number === 1).map((part) => text(part.value))[0] ?? '';
      attributes.add(name);
      ints.set(
        name,
        parts
          .filter((part) => part.number === ATTRIBUTE_INT || part.number === ATTRIBUTE_INTS)
          .flatMap(numbersOf),
      );
    }
  }
  return { ...found, attributes, ints };
}

/** Name and shape of a ValueInfoProto; undefined for a size that is not a number. */
export function readValue(
  value: Uint8Array,
): readonly [name: string, shape: readonly (number | undefined)[]] {
  const inside = (bytes: Uint8Array, wanted: number): Uint8Array[] =>
    [...fields(bytes)].filter(({ number }) => number === wanted).map((field) => message(field.value));
  const shape = inside(value, 2)
    .flatMap((type) => inside(type, 1))
    .flatMap((tensor) => inside(tensor, 2))
    .flatMap((dimensions) => inside(dimensions, 1))
    .map((dimension) => {
      const size = [...fields(dimension)].find(({ number }) => number === 1)?.value;
      return typeof size === 'number' ? size : undefined;
    });
  return [text(inside(value, 1)[0] ?? new Uint8Array()), shape];
}

/** Name and shape of a TensorProto. */
export function readTensorShape(tensor: Uint8Array): readonly [name: string, shape: readonly number[]] {
  let name = '';
  const shape: number[] = [];
  for (const field of fields(tensor)) {
    if (field.number === 1) shape.push(...numbersOf(field));
    if (field.number === 8) name = text(field.value);
  }
  return [name, shape];
}

/** A node of a graph; attributes are whole numbers, or lists of them. */
export function writeNode(
  op: string,
  inputs: readonly string[],
  output: string,
  attributes: Readonly<Record<string, number | readonly number[]>> = {},
): Uint8Array[] {
  const written = Object.entries(attributes).flatMap(([name, value]) => {
    const list = typeof value !== 'number';
    const number = list ? ATTRIBUTE_INTS : ATTRIBUTE_INT;
    const content = (list ? value : [value]).map((one) => whole(number, one));
    return delimited(5, [...delimited(1, [utf8(name)]), ...content, whole(20, list ? KIND_INTS : KIND_INT)]);
  });
  return delimited(GRAPH_NODE, [
    ...inputs.flatMap((input) => delimited(1, [utf8(input)])),
    ...delimited(2, [utf8(output)]),
    ...delimited(4, [utf8(op)]),
    ...written,
  ]);
}

/** A constant of a graph, int64. */
export function writeInts(name: string, shape: readonly number[], values: readonly number[]): Uint8Array[] {
  const data = BigInt64Array.from(values, BigInt);
  return delimited(GRAPH_INITIALIZER, [
    ...shape.map((size) => whole(1, size)),
    whole(2, INT64),
    ...delimited(8, [utf8(name)]),
    ...delimited(9, [new Uint8Array(data.buffer)]),
  ]);
}

function whole(number: number, value: number): Uint8Array {
  return concatenate([tag(number, VARINT), varint(value)]);
}

/** The numbers of a repeated field, each in a field of its own or all packed into one. */
function numbersOf({ value }: Field): number[] {
  if (typeof value === 'number') return [value];
  // Packed numbers are what fields without tags would be: a tag is put before each byte that begins one.
  const numbers: number[] = [];
  let start = 0;
  value.forEach((byte, at) => {
    if (byte >= 0x80) return;
    const one = concatenate([tag(1, VARINT), value.subarray(start, at + 1)]);
    for (const field of fields(one)) numbers.push(field.value as number);
    start = at + 1;
  });
  return numbers;
}
