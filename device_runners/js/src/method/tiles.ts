/**
 * Products of blocks of matrices in one memory: `a b^T`, or what is left of another block without it. In WebAssembly where the
 * engine has it with vectors, and in JavaScript elsewhere, as in React Native: the same sums in another order.
 */

import { compiled } from '../engine.js';
import { DEPTH, ROWS, type TilesModule, tilesModule } from './wasmTiles.js';

/** Rows in the memory: where the first one begins, and each after the one before it; in numbers. */
export interface Block {
  readonly at: number;
  readonly stride: number;
}

/**
 * Takes blocks of `m` and `n` rows, multiples of `ROWS`, of `k` numbers, a multiple of `DEPTH`. `out` is no block that is read.
 * There is one memory, so that what is in it is over when somebody else computes.
 */
export abstract class Tiles {
  /** At least so many numbers, and what is in them is anything. */
  abstract memory(count: number): Float64Array;

  /** Give the memory back, until there is more to compute. */
  abstract release(): void;

  /** `out = a b^T`, `(m, n)`. */
  times(out: Block, a: Block, b: Block, m: number, n: number, k: number): void {
    this.run(out, undefined, a, b, m, n, k);
  }

  /** `out = from - a b^T`, `(m, n)`. */
  subtract(out: Block, from: Block, a: Block, b: Block, m: number, n: number, k: number): void {
    this.run(out, from, a, b, m, n, k);
  }

  /** Either of them. */
  protected abstract run(
    out: Block,
    from: Block | undefined,
    a: Block,
    b: Block,
    m: number,
    n: number,
    k: number,
  ): void;
}

export { DEPTH, ROWS };

const BYTES = 8;
const PAGE = 65536;
/** Multiplications in one call. */
const AT_ONCE = 1 << 20;

/** In WebAssembly. */
export class FastTiles extends Tiles {
  private opened: TilesModule | undefined;

  constructor(private readonly open: () => TilesModule) {
    super();
  }

  private get module(): TilesModule {
    this.opened ??= this.open();
    return this.opened;
  }

  /** WebAssembly's memory only grows: so it goes with what holds it. */
  release(): void {
    this.opened = undefined;
  }

  memory(count: number): Float64Array {
    const { memory } = this.module;
    // The first bytes are not used: 0 stands for no block.
    const missing = Math.ceil((BYTES * (count + 1) - memory.buffer.byteLength) / PAGE);
    if (missing > 0) memory.grow(missing);
    return new Float64Array(memory.buffer, BYTES, count);
  }

  protected run(
    out: Block,
    from: Block | undefined,
    a: Block,
    b: Block,
    m: number,
    n: number,
    k: number,
  ): void {
    const place = ({ at }: Block, row: number, stride: number): number => BYTES * (at + 1 + row * stride);
    const { module } = this;
    // Engines compile what is called anew better than what goes on.
    const rows = Math.max(ROWS, ROWS * Math.floor(AT_ONCE / (ROWS * n * Math.max(k, 1))));
    for (let row = 0; row < m; row += rows) {
      module.tiles(
        place(a, row, a.stride),
        BYTES * a.stride,
        place(b, 0, 0),
        BYTES * b.stride,
        place(out, row, out.stride),
        BYTES * out.stride,
        from ? place(from, row, from.stride) : 0,
        from ? BYTES * from.stride : 0,
        Math.min(rows, m - row),
        n,
        BYTES * k,
      );
    }
  }
}

/** In JavaScript. */
export class PlainTiles extends Tiles {
  private numbers = new Float64Array(0);

  memory(count: number): Float64Array {
    if (this.numbers.length < count) this.numbers = new Float64Array(count);
    return this.numbers;
  }

  release(): void {
    this.numbers = new Float64Array(0);
  }

  protected run(
    out: Block,
    from: Block | undefined,
    a: Block,
    b: Block,
    m: number,
    n: number,
    k: number,
  ): void {
    const { numbers } = this;
    const sums = new Float64Array(16);
    for (let i = 0; i < m; i += 4) {
      for (let j = 0; j < n; j += 4) {
        tile(numbers, rowsFrom(a.at, i, m, a.stride), numbers, rowsFrom(b.at, j, n, b.stride), k, sums);
        const [rows, columns] = [Math.min(4, m - i), Math.min(4, n - j)];
        for (let r = 0; r < rows; r++) {
          const to = out.at + (i + r) * out.stride + j;
          const less = from && from.at + (i + r) * from.stride + j;
          for (let c = 0; c < columns; c++) {
            const value = sums[4 * r + c]!;
            numbers[to + c] = less === undefined ? value : numbers[less + c]! - value;
          }
        }
      }
    }
  }
}

export type Four = readonly [number, number, number, number];

/** Where row `i` and the three after it begin, of `m` rows; in the place of one that is missing, the last. */
export function rowsFrom(at: number, i: number, m: number, stride: number): Four {
  const start = (row: number): number => at + Math.min(row, m - 1) * stride;
  return [start(i), start(i + 1), start(i + 2), start(i + 3)];
}

/** The products of four rows of `a` and four of `b`, `k` long, into `sums` `(4, 4)`: every number that is loaded is used four times. */
export function tile(
  a: Float64Array,
  of: Four,
  b: Float64Array,
  by: Four,
  k: number,
  sums: Float64Array,
): void {
  const [a0, a1, a2, a3] = of;
  const [b0, b1, b2, b3] = by;
  let s00 = 0;
  let s01 = 0;
  let s02 = 0;
  let s03 = 0;
  let s10 = 0;
  let s11 = 0;
  let s12 = 0;
  let s13 = 0;
  let s20 = 0;
  let s21 = 0;
  let s22 = 0;
  let s23 = 0;
  let s30 = 0;
  let s31 = 0;
  let s32 = 0;
  let s33 = 0;
  for (let l = 0; l < k; l++) {
    const y0 = b[b0 + l]!;
    const y1 = b[b1 + l]!;
    const y2 = b[b2 + l]!;
    const y3 = b[b3 + l]!;
    let x = a[a0 + l]!;
    s00 += x * y0;
    s01 += x * y1;
    s02 += x * y2;
    s03 += x * y3;
    x = a[a1 + l]!;
    s10 += x * y0;
    s11 += x * y1;
    s12 += x * y2;
    s13 += x * y3;
    x = a[a2 + l]!;
    s20 += x * y0;
    s21 += x * y1;
    s22 += x * y2;
    s23 += x * y3;
    x = a[a3 + l]!;
    s30 += x * y0;
    s31 += x * y1;
    s32 += x * y2;
    s33 += x * y3;
  }
  sums[0] = s00;
  sums[1] = s01;
  sums[2] = s02;
  sums[3] = s03;
  sums[4] = s10;
  sums[5] = s11;
  sums[6] = s12;
  sums[7] = s13;
  sums[8] = s20;
  sums[9] = s21;
  sums[10] = s22;
  sums[11] = s23;
  sums[12] = s30;
  sums[13] = s31;
  sums[14] = s32;
  sums[15] = s33;
}

let chosen: Tiles | undefined;

/** The one that this engine is best at. */
export function tiles(): Tiles {
  if (!chosen) {
    const open = compiled(tilesModule(true)) ?? compiled(tilesModule(false));
    chosen = open ? new FastTiles(open as () => TilesModule) : new PlainTiles();
  }
  return chosen;
}
