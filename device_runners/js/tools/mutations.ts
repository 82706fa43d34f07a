/** Inputs that nobody would write: right ones with bytes, or parts of their JSON, changed. By fast-check, which shrinks. */

import fc from 'fast-check';
import { textOf, utf8 } from '../src/formats/bytes.js';

type Change = (bytes: Uint8Array) => Uint8Array;

const EDGES = [0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 53];
const WORDS = [
  'null',
  'true',
  '1e999',
  '-1',
  '""',
  '[]',
  '{}',
  '"__proto__"',
  '"constructor"',
  '\\ud800',
  '\0',
  '\ufeff',
];

const spliced = (at: number, gone: number, put: Uint8Array): Change => {
  return (bytes) => {
    const start = bytes.length ? at % (bytes.length + 1) : 0;
    const rest = bytes.subarray(Math.min(bytes.length, start + gone));
    const made = new Uint8Array(start + put.length + rest.length);
    made.set(bytes.subarray(0, start));
    made.set(put, start);
    made.set(rest, start + put.length);
    return made;
  };
};

const at = fc.nat(1 << 16);
const inBytes: fc.Arbitrary<Change> = fc.oneof(
  fc
    .tuple(at, fc.nat(16), fc.uint8Array({ maxLength: 16 }))
    .map(([place, gone, put]) => spliced(place, gone, put)),
  fc.tuple(at, fc.constantFrom(...WORDS)).map(([place, word]) => spliced(place, 0, utf8(word))),
  fc.tuple(at, fc.nat(7)).map(([place, bit]) => (bytes: Uint8Array) => {
    const made = bytes.slice();
    if (made.length) made[place % made.length]! ^= 1 << bit;
    return made;
  }),
  fc.tuple(at, fc.constantFrom(1, 2, 4, 8), fc.constantFrom(...EDGES)).map(([place, width, value]) => {
    const put = new Uint8Array(8);
    new DataView(put.buffer).setBigUint64(0, BigInt(value), true);
    return spliced(place, width, put.subarray(0, width));
  }),
  fc.tuple(at, at, fc.nat(64)).map(([from, to, length]) => (bytes: Uint8Array) => {
    const start = bytes.length ? from % bytes.length : 0;
    return spliced(to, 0, bytes.slice(start, start + length))(bytes);
  }),
  at.map((end) => (bytes: Uint8Array) => bytes.slice(0, bytes.length ? end % bytes.length : 0)),
);

/** Of what is JSON, or JSON behind eight bytes of length, one value at some place is another, gone, or there twice. */
const inJson: fc.Arbitrary<Change> = fc
  .tuple(
    fc.nat(1 << 12),
    fc.constantFrom('put', 'drop', 'add', 'nest'),
    fc.oneof(fc.jsonValue(), fc.constantFrom(...EDGES)),
  )
  .map(([place, how, value]) => (bytes: Uint8Array) => {
    const header =
      bytes.length > 8 && bytes[0] !== 0x7b
        ? bytes.subarray(8, 8 + (bytes[0]! | (bytes[1]! << 8)))
        : undefined;
    let whole: unknown;
    try {
      whole = JSON.parse(textOf(header ?? bytes));
    } catch {
      return bytes;
    }
    const text = utf8(JSON.stringify(changed(whole, place, how, value)));
    if (!header) return text;
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
    return spliced(0, 8 + header.length, Uint8Array.of(...length, ...text))(bytes);
  });

function changed(whole: unknown, place: number, how: string, value: unknown): unknown {
  const places: [parent: Record<string, unknown>, key: string][] = [];
  const walk = (one: unknown): void => {
    if (typeof one !== 'object' || one === null) return;
    for (const key of Object.keys(one)) {
      places.push([one as Record<string, unknown>, key]);
      walk((one as Record<string, unknown>)[key]);
    }
  };
  walk(whole);
  if (!places.length) return value;
  const [parent, key] = places[place % places.length]!;
  if (how === 'drop') delete parent[key];
  else if (how === 'add') parent[`${key}x`] = value;
  else if (how === 'nest') parent[key] = { [key]: parent[key] };
  else parent[key] = value;
  return whole;
}

/** One of the inputs, changed up to eight times. */
export function mutated(inputs: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const changes = fc.array(fc.oneof(inBytes, inJson), { minLength: 1, maxLength: 8 });
  return fc
    .tuple(fc.constantFrom(...inputs), changes)
    .map(([input, made]) => made.reduce((bytes, change) => change(bytes), input).slice(0, 1 << 16));
}
