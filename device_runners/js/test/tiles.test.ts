/** Products in the memory of tiles, and what is solved by them, in WebAssembly and without, against sums written out. */

import { setFlagsFromString } from 'node:v8';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { compiled } from '../src/engine.js';
import { Random } from '../src/method/random.js';
import { type Block, FastTiles, PlainTiles, type Tiles } from '../src/method/tiles.js';
import { type TilesModule, tilesModule } from '../src/method/wasmTiles.js';

// Node 20 has relaxed SIMD behind this flag; later ones have no such flag, and need none.
if (!compiled(tilesModule(true))) setFlagsFromString('--experimental-wasm-relaxed-simd');

const ENGINES = [
  ['WebAssembly', (): Tiles => new FastTiles(compiled(tilesModule(false)) as () => TilesModule)],
  ['relaxed WebAssembly', (): Tiles => new FastTiles(compiled(tilesModule(true)) as () => TilesModule)],
  ['JavaScript', (): Tiles => new PlainTiles()],
] as const;

function drawn(count: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: count }, () => random.normal());
}

/** The number at `(row, column)`. */
const at = (numbers: Float64Array, block: Block, row: number, column: number): number =>
  numbers[block.at + row * block.stride + column]!;

describe.each(ENGINES)('tiles in %s', (_, open) => {
  it.each([
    [3, 3, 4],
    [3, 6, 8],
    [24, 24, 0],
    [192, 24, 40],
    [9, 96, 1536],
  ])('multiply %i rows by %i, %i long, and subtract', (m, n, k) => {
    const tiles = open();
    const [a, b] = [
      { at: 5, stride: k + 3 },
      { at: 5 + m * (k + 3), stride: k + 1 },
    ];
    const from = { at: b.at + n * b.stride, stride: n + 2 };
    const out = { at: from.at + m * from.stride, stride: n };
    const count = out.at + m * n;
    const numbers = tiles.memory(count);
    // What is not of the blocks is no number, and nothing may come of it.
    numbers.fill(Number.NaN);
    for (const [seed, block, rows, columns] of [
      [1, a, m, k],
      [2, b, n, k],
      [3, from, m, n],
    ] as const) {
      const given = drawn(rows * columns, seed);
      for (let row = 0; row < rows; row++) {
        numbers.set(given.subarray(row * columns, (row + 1) * columns), block.at + row * block.stride);
      }
    }
    const product = (i: number, j: number): number => {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += at(numbers, a, i, l) * at(numbers, b, j, l);
      return sum;
    };
    for (const subtracts of [false, true]) {
      if (subtracts) tiles.subtract(out, from, a, b, m, n, k);
      else tiles.times(out, a, b, m, n, k);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          const expected = subtracts ? at(numbers, from, i, j) - product(i, j) : product(i, j);
          expect(Math.abs(at(numbers, out, i, j) - expected)).toBeLessThan(1e-10);
        }
      }
    }
    // Between the rows of a block nothing was written.
    expect(at(numbers, from, 0, n)).toBeNaN();
  });

  it('have as much memory as is asked for', () => {
    const tiles = open();
    for (const count of [1, 8191, 8192, 300_000, 10]) {
      expect(tiles.memory(count).length).toBeGreaterThanOrEqual(count);
    }
    expect(tiles.memory(1).buffer.byteLength).toBeGreaterThanOrEqual(8 * 300_000);
    tiles.release();
    expect(tiles.memory(1).buffer.byteLength).toBeLessThanOrEqual(1 << 16);
  });
});

it('are so small a module that a page compiles it at once', () => {
  // Chromium refuses more of a page's own thread.
  for (const fused of [false, true]) expect(tilesModule(fused).length).toBeLessThan(4096);
});

describe.each(['WebAssembly', 'JavaScript'])('in %s', (engine) => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.resetModules();
  });

  /** The modules as an engine has them, whose memory is full of what others left. */
  async function modules() {
    vi.resetModules();
    if (engine === 'JavaScript') vi.stubGlobal('WebAssembly', undefined);
    const { tiles, ...others } = await import('../src/method/tiles.js');
    expect(tiles() instanceof others.FastTiles).toBe(engine === 'WebAssembly');
    tiles()
      .memory(1 << 20)
      .fill(Number.NaN);
    return { ...(await import('../src/method/matrix.js')), ...(await import('../src/method/symmetric.js')) };
  }

  /** The largest difference between `found` `(m, n)` and `a b^T`. */
  function offProduct(
    found: Float64Array,
    a: Float64Array,
    b: Float64Array,
    m: number,
    n: number,
    k: number,
  ): number {
    expect(found.length).toBe(m * n);
    let most = 0;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let l = 0; l < k; l++) sum += a[i * k + l]! * b[j * k + l]!;
        const off = Math.abs(found[i * n + j]! - sum);
        // Of no number, too.
        most = off <= most ? most : off;
      }
    }
    return most;
  }

  it.each([
    [5, 1, 20_000],
    [1, 7, 20_000],
    [193, 5, 97],
    [5, 391, 41],
    [387, 200, 3],
    [7, 8, 90_001],
  ])('large products of %i rows by %i, %i long', async (m, n, k) => {
    const { timesTransposed } = await modules();
    const [a, b] = [drawn(m * k, 1), drawn(n * k, 2)];
    expect(offProduct(timesTransposed(a, b, m, n, k), a, b, m, n, k)).toBeLessThan(1e-12 * k + 1e-12);
    expect(offProduct(timesTransposed(a, a, m, m, k), a, a, m, m, k)).toBeLessThan(1e-12 * k + 1e-12);
  });

  it.each([23, 24, 25, 48, 193, 217, 390])('systems of %i unknowns', async (n) => {
    const { choleskyFactor, identity, SymmetricSystem, timesTransposed, transposed } = await modules();
    const rows = drawn(n * n, n);
    const a = timesTransposed(rows, rows, n, n, n);
    for (let i = 0; i < n; i++) a[i * n + i] = a[i * n + i]! + n;
    const lower = choleskyFactor(a, n)!;
    expect(offProduct(a, lower, lower, n, n, n)).toBeLessThan(1e-9);
    for (let i = 0; i < n; i++)
      expect(lower.subarray(i * n + i + 1, (i + 1) * n).every((v) => v === 0)).toBe(true);
    const system = new SymmetricSystem(a, n);
    for (const m of [1, 5, 200]) {
      const right = drawn(m * n, m);
      // x a = right, w lower^T = right, u lower = right.
      expect(offProduct(right, system.solveRows(right, m), a, m, n, n)).toBeLessThan(1e-9);
      expect(offProduct(right, system.whitenRows(right, m), lower, m, n, n)).toBeLessThan(1e-9);
      const upper = transposed(lower, n, n);
      expect(offProduct(right, system.unwhitenRows(right, m), upper, m, n, n)).toBeLessThan(1e-9);
    }
    const inverse = system.solveRows(identity(n), n);
    system.inverseDiagonal().forEach((value, i) => {
      expect(Math.abs(value - inverse[i * n + i]!)).toBeLessThan(1e-12);
    });
  });

  it.each([23, 24, 25, 100, 193])('systems of any form of %i unknowns', async (n) => {
    const { identity, solvedRows, timesTransposed } = await modules();
    const near = identity(n).map((value, place) => value + 0.02 * Math.sin(place * place));
    // Without an exchange of rows the first number to divide by is 0.
    const turned = Float64Array.from(
      near,
      (_, place) => near[((Math.floor(place / n) + 1) % n) * n + (place % n)]!,
    );
    turned[0] = 0;
    for (const a of [near, turned]) {
      // Of many rows, sums are looked at.
      for (const m of [7, 40]) {
        const right = drawn(m * n, n);
        expect(offProduct(right, solvedRows(a, right, m, n), a, m, n, n)).toBeLessThan(1e-10);
        const known = drawn(m * n, n + 1);
        const found = solvedRows(a, timesTransposed(known, a, m, n, n), m, n);
        found.forEach((value, place) => {
          expect(Math.abs(value - known[place]!)).toBeLessThan(1e-8);
        });
      }
    }
  });

  it('what is not definite has no factor, wherever that shows', async () => {
    const { choleskyFactor, identity } = await modules();
    for (const place of [0, 23, 24, 99]) {
      const a = identity(100);
      a[place * 101] = -1;
      expect(choleskyFactor(a, 100)).toBeUndefined();
      a[place * 101] = Number.NaN;
      expect(choleskyFactor(a, 100)).toBeUndefined();
    }
  });
});
