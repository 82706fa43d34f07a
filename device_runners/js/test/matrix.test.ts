/** Products and systems against sums written out, at every size around the four rows that are computed at a time. */

import { describe, expect, it } from 'vitest';
import { Spread } from '../src/method/forgetting.js';
import { ClassStatistics } from '../src/method/heads.js';
import {
  argmax,
  around,
  columnSquares,
  identity,
  rowProducts,
  timesTransposed,
  transposed,
} from '../src/method/matrix.js';
import { Random } from '../src/method/random.js';
import { choleskyFactor, SymmetricSystem, solvedRows, solveSymmetric } from '../src/method/symmetric.js';

const SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 13];

function drawn(count: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: count }, () => random.normal());
}

function product(a: Float64Array, b: Float64Array, m: number, n: number, k: number): Float64Array {
  return Float64Array.from({ length: m * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let l = 0; l < k; l++) sum += a[i * k + l]! * b[j * k + l]!;
    return sum;
  });
}

/** Symmetric and positive definite, `(n, n)`. */
function definite(n: number, seed: number): Float64Array {
  const factor = drawn(n * n, seed);
  return product(factor, factor, n, n, n).map((value, at) => value + (at % (n + 1) === 0 ? 0.1 : 0));
}

function expectClose(found: Float64Array | undefined, expected: Float64Array, tolerance = 1e-9): void {
  expect(found?.length).toBe(expected.length);
  expected.forEach((value, at) => {
    expect(Math.abs(found![at]! - value)).toBeLessThan(tolerance);
  });
}

describe('products', () => {
  it.each(SIZES)('of %i rows with every other number of them', (m) => {
    for (const n of SIZES) {
      const [a, b] = [drawn(m * 6, m), drawn(n * 6, 100 + n)];
      expectClose(timesTransposed(a, b, m, n, 6), product(a, b, m, n, 6));
    }
    const a = drawn(m * 6, m);
    expectClose(timesTransposed(a, a, m, m, 6), product(a, a, m, m, 6));
  });
});

describe('of rows and columns', () => {
  it.each(SIZES)('are what sums of %i numbers are', (n) => {
    const [a, b, map] = [drawn(3 * n, n), drawn(3 * n, 100 + n), drawn(n * n, 200 + n)];
    const across = product(a, b, 3, 3, n);
    expectClose(rowProducts(a, b, n), Float64Array.of(across[0]!, across[4]!, across[8]!));
    const columns = transposed(a, 3, n);
    const squares = product(columns, columns, n, n, 3);
    expectClose(
      columnSquares(a, n),
      squares.filter((_, at) => at % (n + 1) === 0),
    );
    const gram = definite(n, n);
    const half = product(map, transposed(gram, n, n), n, n, n);
    expectClose(around(map, gram, n), product(half, map, n, n, n), 1e-8);
  });
});

it.each([
  [[1, 3, 3, 2], undefined, undefined, 1],
  [[9, 1, 2, 2, 9], 1, 3, 1],
  [[Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY], undefined, undefined, 0],
])('of equals the first is the largest: %j from %j, %j of them', (values, start, count, place) => {
  expect(argmax(values, start, count)).toBe(place);
});

describe('symmetric systems', () => {
  it.each(SIZES)('of size %i are solved for any number of right-hand sides', (n) => {
    const a = definite(n, n);
    const system = new SymmetricSystem(a, n);
    for (const m of SIZES) {
      const rows = drawn(m * n, 200 + m);
      expectClose(product(system.solveRows(rows, m), a, m, n, n), rows, 1e-6);
      const columns = transposed(rows, m, n);
      expectClose(solveSymmetric(a, columns, n, m), transposed(system.solveRows(rows, m), m, n));
    }
    const inverse = system.solveRows(identity(n), n);
    const root = system.whitenRows(identity(n), n);
    expectClose(product(root, root, n, n, n), inverse);
    expectClose(system.unwhitenRows(identity(n), n), transposed(root, n, n));
    expectClose(
      system.inverseDiagonal(),
      inverse.filter((_, at) => at % (n + 1) === 0),
    );
  });

  it.each(SIZES)('of size %i have a factor', (n) => {
    const a = definite(n, n);
    const lower = choleskyFactor(a, n)!;
    expectClose(product(lower, lower, n, n, n), a);
    expect(lower.every((value, at) => at % n <= Math.floor(at / n) || value === 0)).toBe(true);
  });

  it('that rounding has made indefinite are solved all the same', () => {
    const a = Float64Array.from([1, 2, 0, 2, 1, 0, 0, 0, 1]);
    expect(choleskyFactor(a, 3)).toBeUndefined();
    const rows = drawn(6, 0);
    const system = new SymmetricSystem(a, 3);
    expectClose(product(system.solveRows(rows, 2), a, 2, 3, 3), rows);
    expectClose(system.inverseDiagonal(), Float64Array.from([-1 / 3, -1 / 3, 1]));
    // Eigenvalues 3, 1 and -1: of the last, nothing is in the root.
    const root = system.whitenRows(identity(3), 3);
    expectClose(
      product(root, root, 3, 3, 3),
      Float64Array.from([1, 1, 0, 1, 1, 0, 0, 0, 6].map((v) => v / 6)),
    );
    expectClose(system.unwhitenRows(identity(3), 3), transposed(root, 3, 3));
  });
});

describe('systems of any form', () => {
  it.each(SIZES)('of %i unknowns are solved', (n) => {
    const a = drawn(n * n, n).map((value, at) => value + (at % (n + 1) ? 0 : 3));
    const rows = drawn(5 * n, 1);
    expectClose(product(solvedRows(a, rows, 5, n), a, 5, n, n), rows, 1e-9);
  });

  it('are, where features have all but died', () => {
    // After three lessons, each of which left a hundredth of some.
    const n = 12;
    const a = identity(n).map((value, at) => value * (at % 5 ? 1 : 1e-6) + 0.1 * (at === 1 ? 1 : 0));
    const known = drawn(4 * n, 2);
    expectClose(solvedRows(a, product(known, a, 4, n, n), 4, n), known, 1e-6);
  });
});

describe('made-up features', () => {
  it.each([4, 9, 40])('spread as the statistics of %i images say, one feature never fires', (pictures) => {
    const f = 12;
    const x = Float32Array.from(drawn(pictures * f, 1), (value, at) => (at % f === 3 ? 0 : value));
    const labels = Array.from({ length: pictures }, (_, i) => i % 2);
    const known = ClassStatistics.empty(f).add(x, labels, ['a', 'b']);
    const means = [0, 1].map((label) =>
      Float64Array.from({ length: f }, (_, j) => known.sums[label * f + j]! / known.counts[label]!),
    );
    const within = Float64Array.from(x, (value, at) => value - means[labels[Math.floor(at / f)]!]![at % f]!);
    const columns = transposed(within, pictures, f);
    const covariance = product(columns, columns, f, f, pictures).map((value) => value / (pictures - 2));
    const spread = new Spread(known).times(identity(f), f);
    expectClose(product(spread, spread, f, f, f), covariance, 1e-5);
  });
});
