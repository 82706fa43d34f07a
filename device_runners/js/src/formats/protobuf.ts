/**
 * Just enough of protobuf's wire format to write and to walk an ONNX file without an ONNX library.
 *
 * A message is a sequence of fields, each a tag (field number and wire type, as one varint) and a value.
 */

import { concatenate } from './bytes.js';

export const VARINT = 0;
const FIXED64 = 1;
export const DELIMITED = 2;
const FIXED32 = 5;
const LONGEST_VARINT = 10;

/** Bytes that are no protobuf message, or no ONNX file that may be opened. */
export class MalformedError extends Error {}

export interface Field {
  readonly number: number;
  /** A number's value (exact up to 2^53), or the bytes of everything else. */
  readonly value: number | Uint8Array;
  /** The field as it stands in the message, tag included. */
  readonly whole: Uint8Array;
}

/** The fields of a message in their order. Throws MalformedError for what is no message. */
export function* fields(message: Uint8Array): Generator<Field> {
  let position = 0;
  while (position < message.length) {
    const start = position;
    const [key, behind] = readVarint(message, position);
    const number = Math.floor(key / 8);
    const type = key % 8;
    if (number === 0) throw new MalformedError('a field has number 0');
    if (type === VARINT) {
      const [value, next] = readVarint(message, behind);
      position = next;
      yield { number, value, whole: message.subarray(start, next) };
      continue;
    }
    let length: number;
    let content = behind;
    if (type === DELIMITED) [length, content] = readVarint(message, behind);
    else if (type === FIXED64) length = 8;
    else if (type === FIXED32) length = 4;
    else throw new MalformedError(`wire type ${type} is not known`);
    if (length > message.length - content) {
      throw new MalformedError(`a field of ${length} bytes is longer than what is left`);
    }
    position = content + length;
    yield { number, value: message.subarray(content, position), whole: message.subarray(start, position) };
  }
}

/** The numbers of a packed field. Throws MalformedError for what is none. */
export function* varints(packed: Uint8Array): Generator<number> {
  let position = 0;
  while (position < packed.length) {
    const [value, next] = readVarint(packed, position);
    position = next;
    yield value;
  }
}

function readVarint(message: Uint8Array, position: number): [number, number] {
  let value = 0;
  let scale = 1;
  for (let index = 0; index < LONGEST_VARINT && position + index < message.length; index++) {
    const byte = message[position + index]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return [value, position + index + 1];
    scale *= 128;
  }
  throw new MalformedError('a number has no end');
}

/** A number, 7 bits in a byte, the lowest first. */
export function varint(value: number): Uint8Array {
  const pieces: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    pieces.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  pieces.push(rest);
  return Uint8Array.from(pieces);
}

/** What a field begins with. */
export function tag(number: number, wireType: number): Uint8Array {
  return varint(number * 8 + wireType);
}

/** A length-delimited field in pieces: what stands before its content, then its content. */
export function delimited(number: number, content: readonly Uint8Array[]): Uint8Array[] {
  const length = content.reduce((sum, piece) => sum + piece.length, 0);
  return [concatenate([tag(number, DELIMITED), varint(length)]), ...content];
}
