import { describe, expect, it } from 'vitest';
import { decode, encode, readHeader } from '../src/formats/safetensors.js';
import { float32, float64, int64, type StoredTensor, uint8 } from '../src/formats/tensors.js';

function file(header: unknown, bytes: number, length?: number): Uint8Array {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + bytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  out.set(text, 8);
  return out;
}

const entry = (begin: number, end: number, shape = [(end - begin) / 4], dtype = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

describe('safetensors', () => {
  it('reads what it wrote, of every type', () => {
    const tensors = new Map<string, StoredTensor>([
      ['b', uint8(Uint8Array.of(1, 2, 3))],
      ['a', float32([2, 1], Float32Array.of(0.5, -1))],
      ['empty', float64([0, 0])],
      ['i', int64([-1, 2 ** 40])],
      ['d', float64([1], Float64Array.of(Math.PI))],
    ]);
    const { tensors: found, metadata } = decode(encode(tensors, { note: 'ä' }));
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(tensors));
    expect([...metadata]).toEqual([['note', 'ä']]);
  });

  it("copies out of Node's Buffer, whose slice() does not", () => {
    const written = encode(new Map([['a', float32([2], Float32Array.of(0.5, -1))]]));
    const pool = Buffer.concat([Buffer.alloc(5), written]);
    const { data } = decode(pool.subarray(5)).tensors.get('a')!;
    pool.fill(0);
    expect(data).toEqual(Float32Array.of(0.5, -1));
  });

  it.each([
    ['too few bytes', new Uint8Array(7), 'too few'],
    ['a long header', file({}, 0, 1e12), 'claims'],
    ['no JSON', file('{"a"', 0), 'not valid JSON'],
    ['no object', file([], 0), 'not a JSON object'],
    ['a hole', file({ a: entry(0, 4), b: entry(8, 12) }, 12), "'b' does not begin"],
    ['an overlap', file({ a: entry(0, 8), b: entry(4, 12) }, 12), "'b' does not begin"],
    ['bytes behind', file({ a: entry(0, 4) }, 8), 'take 4 bytes'],
    ['bytes missing', file({ a: entry(0, 8) }, 4), 'take 8 bytes'],
    ['a wrong shape', file({ a: entry(0, 8, [3]) }, 8), 'cannot have 8 bytes'],
    ['a negative shape', file({ a: entry(0, 4, [-1, -1]) }, 4), 'cannot be'],
    ['an unknown type', file({ a: entry(0, 4, [1], 'Q9') }, 4), 'dtype'],
    ['a missing field', file({ a: { dtype: 'F32' } }, 0), 'lacks'],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => readHeader(bytes)).toThrow(message);
  });
});
