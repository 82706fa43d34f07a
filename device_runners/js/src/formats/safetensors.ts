/**
 * safetensors files: 8 bytes of length (little-endian), a JSON object of that length, the data.
 *
 * The header is checked before it is believed: every tensor has the bytes that its type and shape ask for, none
 * overlaps another or leaves a hole, and all of them fill the file.
 */

import { concatenate, textOf, utf8 } from './bytes.js';
import { byCodePoint } from './json.js';
import { bytesOf, type Dtype, type StoredTensor, sizeOf, type Tensors } from './tensors.js';

const BYTES: Record<string, number> = {
  F64: 8,
  F32: 4,
  I64: 8,
  U8: 1,
  F16: 2,
  BF16: 2,
  I32: 4,
  I16: 2,
  I8: 1,
  BOOL: 1,
};
const CODES: Record<Dtype, string> = { float32: 'F32', float64: 'F64', int64: 'I64', uint8: 'U8' };
const LONGEST_HEADER = 16 << 20;

export interface Place {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Where its data begin and end in the file, in bytes. */
  readonly begin: number;
  readonly end: number;
}

/** Where each tensor of a file lies, and its text metadata. Throws Error, saying what is wrong. */
export function readHeader(file: Uint8Array): { places: Map<string, Place>; metadata: Map<string, string> } {
  if (file.length < 8) throw new Error(`it has ${file.length} bytes, too few for a safetensors file`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > Math.min(LONGEST_HEADER, file.length - 8)) {
    throw new Error(`its header claims ${length} bytes, and the file has ${file.length}`);
  }
  let header: unknown;
  try {
    header = JSON.parse(textOf(file.subarray(8, 8 + length)));
  } catch {
    throw new Error('its header is not valid JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw new Error('its header is not a JSON object');
  }
  const { __metadata__, ...entries } = header as Record<string, unknown>;
  const start = 8 + length;
  const placed = Object.entries(entries).map(([name, entry]) => [name, placeOf(name, entry)] as const);
  placed.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const [name, place] of placed) {
    if (place.begin !== end) {
      throw new Error(`tensor '${name.slice(0, 80)}' does not begin where the one before it ends`);
    }
    end = place.end;
  }
  if (end !== file.length - start) {
    throw new Error(`its tensors take ${end} bytes, and the file has ${file.length - start} for them`);
  }
  const places = new Map(
    placed.map(([name, p]) => [name, { ...p, begin: p.begin + start, end: p.end + start }] as const),
  );
  return { places, metadata: texts(__metadata__) };
}

function texts(value: unknown): Map<string, string> {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}

function placeOf(name: string, entry: unknown): Place {
  const short = name.slice(0, 80);
  const raw = (typeof entry === 'object' && entry !== null ? entry : {}) as Record<string, unknown>;
  const { dtype, shape, data_offsets: offsets } = raw;
  if (!Array.isArray(shape) || !Array.isArray(offsets) || offsets.length !== 2) {
    throw new Error(`tensor '${short}' lacks dtype, shape or data_offsets`);
  }
  if (typeof dtype !== 'string' || !Object.hasOwn(BYTES, dtype)) {
    throw new Error(`tensor '${short}' has a dtype that is not known`);
  }
  const possible = (n: unknown): boolean =>
    Number.isSafeInteger(n) && (n as number) >= 0 && (n as number) < 2 ** 48;
  if (shape.length > 64 || ![...shape, ...offsets].every(possible)) {
    throw new Error(`tensor '${short}' has a shape or offsets that cannot be`);
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== sizeOf(shape) * BYTES[dtype]!) {
    throw new Error(`tensor '${short}' of shape [${shape.slice(0, 8)}] cannot have ${end - begin} bytes`);
  }
  return { dtype, shape, begin, end };
}

/** One tensor of a file, copied. Throws Error for an element type that neither a bundle nor a state has. */
export function readTensor(file: Uint8Array, name: string, place: Place): StoredTensor {
  // A copy, since an element need not begin at a multiple of its size in the file; Node's Buffer.slice() makes none.
  const { buffer } = new Uint8Array(file.subarray(place.begin, place.end));
  const { shape } = place;
  if (place.dtype === 'F32') return { dtype: 'float32', shape, data: new Float32Array(buffer) };
  if (place.dtype === 'F64') return { dtype: 'float64', shape, data: new Float64Array(buffer) };
  if (place.dtype === 'I64') return { dtype: 'int64', shape, data: new BigInt64Array(buffer) };
  if (place.dtype === 'U8') return { dtype: 'uint8', shape, data: new Uint8Array(buffer) };
  throw new Error(
    `tensor '${name}' is ${place.dtype}; a state holds arrays of float32, float64, int64, uint8`,
  );
}

/** All tensors of a file, copied, and its metadata. Throws Error, saying what is wrong. */
export function decode(file: Uint8Array): {
  tensors: Map<string, StoredTensor>;
  metadata: Map<string, string>;
} {
  const { places, metadata } = readHeader(file);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, place] of places) tensors.set(name, readTensor(file, name, place));
  return { tensors, metadata };
}

/** The file that holds `tensors` and text `metadata`; the largest elements come first, so that all are aligned. */
export function encode(tensors: Tensors, metadata: Record<string, string> = {}): Uint8Array {
  const order = [...tensors].sort(
    ([a, x], [b, y]) => BYTES[CODES[y.dtype]]! - BYTES[CODES[x.dtype]]! || byCodePoint(a, b),
  );
  const header: Record<string, unknown> = Object.keys(metadata).length ? { __metadata__: metadata } : {};
  let end = 0;
  const entries: [string, unknown][] = [];
  for (const [name, tensor] of order) {
    const begin = end;
    end += tensor.data.byteLength;
    entries.push([name, { dtype: CODES[tensor.dtype], shape: tensor.shape, data_offsets: [begin, end] }]);
  }
  const text = utf8(JSON.stringify(Object.fromEntries([...Object.entries(header), ...entries])));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(0x20);
  padded.set(text);
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(padded.length), true);
  return concatenate([prefix, padded, ...order.map(([, tensor]) => bytesOf(tensor))]);
}
