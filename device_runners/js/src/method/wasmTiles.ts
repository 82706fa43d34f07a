/**
 * The product of `Tiles` as a module of WebAssembly, put together here, so that there is neither a compiler nor a file to load.
 *
 * Two float64 are multiplied at once, of three rows of either side with each other: so nine sums of two numbers and what is
 * loaded fit into the 16 vector registers that x86 has without AVX-512. Engines that do not tier up, or whose code for
 * arrays checks each index, take eight times as long for the same in JavaScript.
 *
 * https://webassembly.github.io/spec/core/binary has the opcodes.
 */

/** Rows of either side in a tile. */
export const ROWS = 3;
/** Numbers of a row in one round of the innermost loop. */
export const DEPTH = 4;
const BYTES = 8;
const VECTOR = 16;

type Code = readonly number[];

const I32 = 0x7f;
const V128 = 0x7b;
const NOTHING = 0x40;
const [LOOP, IF, ELSE, END] = [0x03, 0x04, 0x05, 0x0b];
const AGAIN: Code = [0x0d, 0];
const [ADD, MULTIPLY, LESS] = [0x6a, 0x6c, 0x49];
const [F64_ADD, F64_SUBTRACT] = [0xa0, 0xa1];
const F64X2_ADD = vector(0xf0);
const F64X2_MULTIPLY = vector(0xf2);
/** `a b + c`, rounded once where the machine has that, from three vectors in this order. */
const F64X2_RELAXED_MADD = vector(0x107);
const ZERO: Code = [...vector(12), ...Array<number>(VECTOR).fill(0)];
/** Alignment, of 2 ** 3 bytes. */
const ALIGNED = 3;

/** What the module exports. Places and lengths are bytes; `from` is 0 where nothing is subtracted from. */
export interface TilesModule {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  tiles(
    a: number,
    aStride: number,
    b: number,
    bStride: number,
    out: number,
    outStride: number,
    from: number,
    fromStride: number,
    m: number,
    n: number,
    k: number,
  ): void;
}
const PARAMETERS = 11;

/** A number of at most 32 bits, seven at a time (LEB128). */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** The same for a number from 0 on where a sign is expected. */
function signed(value: number): Code {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)];
}

function vector(opcode: number): Code {
  return [0xfd, ...unsigned(opcode)];
}

function list(items: readonly Code[]): Code {
  return [...unsigned(items.length), ...items.flat()];
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function named(text: string): Code {
  return list(Array.from(text, (one) => [one.charCodeAt(0)]));
}

const get = (local: number): Code => [0x20, ...unsigned(local)];
const set = (local: number): Code => [0x21, ...unsigned(local)];
const constant = (value: number): Code => [0x41, ...signed(value)];
/** `to = one + other`. */
const sum = (to: number, one: number, other: Code): Code => [...get(one), ...other, ADD, ...set(to)];
const times = (local: number, factor: number): Code => [...get(local), ...constant(factor), MULTIPLY];
/** Once, and again as long as `local`, which `step` is added to, is below `end`. */
const loop = (local: number, step: number, end: number, body: Code): Code => [
  ...[LOOP, NOTHING, ...body, ...sum(local, local, constant(step))],
  ...[...get(local), ...get(end), LESS, ...AGAIN, END],
];

/** Numbers the locals behind the parameters, by type. */
class Locals {
  private readonly declared: Code[] = [];
  private next = PARAMETERS;

  of(type: number, count: number): number[] {
    this.declared.push([...unsigned(count), type]);
    return Array.from({ length: count }, () => this.next++);
  }

  declaration(): Code {
    return list(this.declared);
  }
}

/** The body of `tiles`: `out = a b^T`, or `from - a b^T`, three rows by three. */
function tilesCode(fused: boolean): Code {
  const [a, aStride, b, bStride, out, outStride, from, fromStride, m, n, k] = Array.from(
    { length: PARAMETERS },
    (_, i) => i,
  ) as [number, number, number, number, number, number, number, number, number, number, number];
  const locals = new Locals();
  const [row, column, next, end, to, less] = locals.of(I32, 6) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const [left, right] = [locals.of(I32, ROWS), locals.of(I32, ROWS)];
  const sums = left.map(() => locals.of(V128, ROWS));
  const lefts = locals.of(V128, ROWS);
  const [one] = locals.of(V128, 1) as [number];

  /** What is at `place`, two numbers, into `local`. */
  const load = (local: number, place: number, offset: number): Code => [
    ...[...get(place), ...vector(0), ALIGNED, ...unsigned(offset), ...set(local)],
  ];
  const multiplied = (offset: number): Code => [
    ...left.flatMap((place, r) => load(lefts[r]!, place, offset)),
    ...right.flatMap((place, c) => [
      ...load(one, place, offset),
      ...sums.flatMap((those, r) => {
        const [factors, to] = [[...get(lefts[r]!), ...get(one)], those[c]!];
        const more = fused
          ? [...factors, ...get(to), ...F64X2_RELAXED_MADD]
          : [...get(to), ...factors, ...F64X2_MULTIPLY, ...F64X2_ADD];
        return [...more, ...set(to)];
      }),
    ]),
  ];
  const deep: Code = [
    ...multiplied(0),
    ...multiplied(VECTOR),
    ...right.flatMap((place) => sum(place, place, constant(DEPTH * BYTES))),
    ...left.slice(1).flatMap((place) => sum(place, place, constant(DEPTH * BYTES))),
  ];

  /** Where `ROWS` rows from `start` on begin, into `places`. */
  const rows = (places: readonly number[], start: number, stride: number): Code =>
    places.flatMap((place, r) =>
      r ? sum(place, places[r - 1]!, get(stride)) : [...get(start), ...set(place)],
    );
  const whole = (local: number): Code => [
    ...[...get(local), ...vector(0x21), 0, ...get(local), ...vector(0x21), 1, F64_ADD],
  ];
  const stored = (c: number): Code => [0x39, ALIGNED, ...unsigned(c * BYTES)];
  const had = (c: number): Code => [...get(less), 0x2b, ALIGNED, ...unsigned(c * BYTES)];
  const storing = (subtracts: boolean): Code =>
    sums.flatMap((those, r) => [
      ...(r ? sum(to, to, get(outStride)) : []),
      ...(r && subtracts ? sum(less, less, get(fromStride)) : []),
      ...those.flatMap((local, c) => [
        ...get(to),
        ...(subtracts ? [...had(c), ...whole(local), F64_SUBTRACT] : whole(local)),
        ...stored(c),
      ]),
    ]);

  const tile: Code = [
    ...rows(left, a, aStride),
    ...rows(right, next, bStride),
    ...sum(next, right[ROWS - 1]!, get(bStride)),
    ...sums.flat().flatMap((local) => [...ZERO, ...set(local)]),
    ...sum(end, a, get(k)),
    ...[...get(k), IF, NOTHING, ...loop(left[0]!, DEPTH * BYTES, end, deep), END],
    ...sum(to, out, times(column, BYTES)),
    ...[...get(from), IF, NOTHING, ...sum(less, from, times(column, BYTES)), ...storing(true)],
    ...[ELSE, ...storing(false), END],
  ];
  return [
    ...locals.declaration(),
    ...loop(row, ROWS, m, [
      ...[...constant(0), ...set(column), ...get(b), ...set(next)],
      ...loop(column, ROWS, n, tile),
      ...sum(a, a, times(aStride, ROWS)),
      ...sum(out, out, times(outStride, ROWS)),
      ...[...get(from), IF, NOTHING, ...sum(from, from, times(fromStride, ROWS)), END],
    ]),
    END,
  ];
}

/**
 * The module's bytes, less than two thousand: a page may compile so few at once. `fused` is one instruction in the place of two,
 * for engines that have relaxed SIMD: twice as fast on most machines, and an engine without it compiles no such module.
 */
export function tilesModule(fused: boolean): Uint8Array {
  const code = tilesCode(fused);
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list([[0x60, ...list(Array<Code>(PARAMETERS).fill([I32])), 0]])),
    ...section(3, list([[0]])),
    ...section(5, list([[0, 1]])),
    ...section(
      7,
      list([
        [...named('memory'), 2, 0],
        [...named('tiles'), 0, 0],
      ]),
    ),
    ...section(10, list([[...unsigned(code.length), ...code]])),
  ]);
}
