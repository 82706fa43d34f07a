/**
 * Systems with a symmetric matrix, by its Cholesky factor, as flat, row-major Float64Arrays.
 *
 * All goes by blocks of columns: what the columns before a block make of it is one product of matrices, and only within the
 * block one number follows from the other. ml-matrix takes ten times as long to solve and six times to decompose with 832
 * features (docs/decisions/0018), and that was most of what a task took.
 */

import { Matrix, solve } from 'ml-matrix';
import { eigenSymmetric, identity, timesTransposed, transposed } from './matrix.js';

/** Columns of a block: few enough that its triangle stays in the cache, and enough that products are most of the work. */
const BLOCK = 48;

/** `x` `(n, m)` with `a x = b`, for an `a` `(n, n)` as `SymmetricSystem` takes and `b` `(n, m)`. */
export function solveSymmetric(a: Float64Array, b: Float64Array, n: number, m: number): Float64Array {
  return transposed(new SymmetricSystem(a, n).solveRows(transposed(b, n, m), m), m, n);
}

/**
 * For each row `b` of `rows` `(m, n)` the `x` with `a x = b`, for any regular `a` `(n, n)`: `(m, n)`. By its normal equations,
 * and once more for what these leave, which is as exact as LU unless `a` is next to singular, and takes less than half of its time.
 */
export function solvedRows(a: Float64Array, rows: Float64Array, m: number, n: number): Float64Array {
  const columns = transposed(a, n, n);
  const system = new SymmetricSystem(timesTransposed(columns, columns, n, n, n), n);
  const solved = (right: Float64Array): Float64Array =>
    system.solveRows(timesTransposed(right, columns, m, n, n), m);
  const found = solved(rows);
  const reached = timesTransposed(found, a, m, n, n);
  const more = solved(rows.map((value, at) => value - reached[at]!));
  return found.map((value, at) => value + more[at]!);
}

/** A symmetric, positive definite `a` `(n, n)`, decomposed once; where rounding made it indefinite, by LU. */
export class SymmetricSystem {
  private readonly lower: Float64Array | undefined;
  private readonly upper: Float64Array | undefined;

  constructor(
    private readonly a: Float64Array,
    private readonly n: number,
  ) {
    this.lower = choleskyFactor(a, n);
    this.upper = this.lower && transposed(this.lower, n, n);
  }

  /** For each row `b` of `rows` `(m, n)` the `x` with `a x = b`: `(m, n)`. */
  solveRows(rows: Float64Array, m: number): Float64Array {
    const { a, lower, n } = this;
    if (lower) return this.unwhitenRows(this.whitenRows(rows, m), m);
    const right = Matrix.from1DArray(m, n, rows).transpose();
    return Float64Array.from(
      solve(Matrix.from1DArray(n, n, a), right)
        .transpose()
        .to1DArray(),
    );
  }

  /** `rows` `(m, n)` times a root of the inverse, `root root^T`: under it, what `a` is the covariance of has the identity. */
  whitenRows(rows: Float64Array, m: number): Float64Array {
    const { lower, n } = this;
    if (!lower) return timesTransposed(rows, transposed(this.root(), n, n), m, n, n);
    const found = rows.slice();
    for (let start = 0; start < n; start += BLOCK) {
      const end = Math.min(start + BLOCK, n);
      subtractProduct(found, m, lower, n, start, end, 0, start);
      for (let row = 0; row < m; row += 4) {
        const four = fourRows(row, m, n);
        for (let i = start; i < end; i++) substitute(lower, n, i, start, i, found, four);
      }
    }
    return found;
  }

  /** `rows` `(m, n)` times that root, transposed: weights of whitened features as those of the features themselves. */
  unwhitenRows(rows: Float64Array, m: number): Float64Array {
    const { upper, n } = this;
    if (!upper) return timesTransposed(rows, this.root(), m, n, n);
    const found = rows.slice();
    for (let end = n; end > 0; end -= Math.min(BLOCK, end)) {
      const start = Math.max(end - BLOCK, 0);
      subtractProduct(found, m, upper, n, start, end, end, n);
      for (let row = 0; row < m; row += 4) {
        const four = fourRows(row, m, n);
        for (let i = end - 1; i >= start; i--) substitute(upper, n, i, i + 1, end, found, four);
      }
    }
    return found;
  }

  /** Where there is no Cholesky factor: by eigenvalues, of which none is taken for negative. */
  private root(): Float64Array {
    const { a, n } = this;
    const { values, vectors } = eigenSymmetric(a, n);
    return transposed(
      vectors.map((value, at) => {
        const own = values[Math.floor(at / n)]!;
        return own > 0 ? value / Math.sqrt(own) : 0;
      }),
      n,
      n,
    );
  }

  /** The diagonal of the inverse: sums of squares over the columns of the inverse of the Cholesky factor. */
  inverseDiagonal(): Float64Array {
    const { lower, n } = this;
    const found = new Float64Array(n);
    if (!lower) {
      const inverse = this.solveRows(identity(n), n);
      return found.map((_, j) => inverse[j * n + j]!);
    }
    const columns = new Float64Array(4 * n);
    const four = fourRows(0, 4, n);
    for (let start = 0; start < n; start += 4) {
      columns.fill(0);
      for (let row = 0; row < Math.min(4, n - start); row++) columns[row * n + start + row] = 1;
      for (let i = start; i < n; i++) substitute(lower, n, i, start, i, columns, four);
      for (let row = 0; row < Math.min(4, n - start); row++) {
        for (let i = start; i < n; i++) found[start + row] = found[start + row]! + columns[row * n + i]! ** 2;
      }
    }
    return found;
  }
}

/**
 * Lower triangular `l` `(n, n)` with `l l^T = a`, for a symmetric `a` (of what rounding has left of that, the mean with
 * its transpose); undefined where it is not positive definite.
 */
export function choleskyFactor(a: Float64Array, n: number): Float64Array | undefined {
  const lower = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) lower[i * n + j] = (a[i * n + j]! + a[j * n + i]!) / 2;
  }
  for (let start = 0; start < n; start += BLOCK) {
    const end = Math.min(start + BLOCK, n);
    const below = lower.subarray(start * n);
    subtractProduct(below, n - start, lower, n, start, end, 0, start);
    if (!factorBlock(lower, n, start, end)) return undefined;
    for (let row = end; row < n; row += 4) {
      const four = fourRows(row, n, n);
      for (let i = start; i < end; i++) substitute(lower, n, i, start, i, lower, four);
    }
  }
  // The products went over the diagonal.
  for (let i = 0; i < n; i++) lower.fill(0, i * n + i + 1, (i + 1) * n);
  return lower;
}

/** The block on the diagonal from `start` to `end`, of which what lies before is subtracted; false where it is not definite. */
function factorBlock(lower: Float64Array, n: number, start: number, end: number): boolean {
  for (let row = start; row < end; row++) {
    for (let column = start; column <= row; column++) {
      let rest = lower[row * n + column]!;
      for (let k = start; k < column; k++) rest -= lower[row * n + k]! * lower[column * n + k]!;
      if (column < row) lower[row * n + column] = rest / lower[column * n + column]!;
      else if (rest > 0) lower[row * n + row] = Math.sqrt(rest);
      else return false;
    }
  }
  return true;
}

/**
 * From columns `start` to `end` of `x` `(m, n)`, subtract its columns `first` to `last` times those of rows `start` to `end`
 * of the `triangle` `(n, n)`.
 */
function subtractProduct(
  x: Float64Array,
  m: number,
  triangle: Float64Array,
  n: number,
  start: number,
  end: number,
  first: number,
  last: number,
): void {
  const [depth, width] = [last - first, end - start];
  if (!depth) return;
  const rows = columnsOf(triangle.subarray(start * n), width, n, first, last);
  // Some rows at a time, so that what is copied stays small.
  for (let at = 0; at < m; at += BLOCK) {
    const count = Math.min(BLOCK, m - at);
    const part = columnsOf(x.subarray(at * n), count, n, first, last);
    const product = timesTransposed(part, rows, count, width, depth);
    for (let i = 0; i < count; i++) {
      const to = (at + i) * n + start;
      for (let j = 0; j < width; j++) x[to + j] = x[to + j]! - product[i * width + j]!;
    }
  }
}

/** Columns `first` to `last` of the first `m` rows of `x`, which are `n` long, copied. */
function columnsOf(x: Float64Array, m: number, n: number, first: number, last: number): Float64Array {
  const found = new Float64Array(m * (last - first));
  for (let i = 0; i < m; i++) found.set(x.subarray(i * n + first, i * n + last), i * (last - first));
  return found;
}

type Four = readonly [number, number, number, number];

/** Where `row` and the three after it begin, of `m` rows of `n`; instead of one that is missing, the last. */
function fourRows(row: number, m: number, n: number): Four {
  const start = (one: number): number => Math.min(one, m - 1) * n;
  return [start(row), start(row + 1), start(row + 2), start(row + 3)];
}

/**
 * Number `i` of four rows of `x`: what is left of it without the part of the `triangle` `(n, n)` from column `start` to
 * `end`, over its diagonal. In place, and the same row may come twice.
 */
function substitute(
  triangle: Float64Array,
  n: number,
  i: number,
  start: number,
  end: number,
  x: Float64Array,
  four: Four,
): void {
  const [a, b, c, d] = four;
  let inA = 0;
  let inB = 0;
  let inC = 0;
  let inD = 0;
  const row = i * n;
  for (let j = start; j < end; j++) {
    const factor = triangle[row + j]!;
    inA += factor * x[a + j]!;
    inB += factor * x[b + j]!;
    inC += factor * x[c + j]!;
    inD += factor * x[d + j]!;
  }
  const own = triangle[row + i]!;
  const foundA = (x[a + i]! - inA) / own;
  const foundB = (x[b + i]! - inB) / own;
  const foundC = (x[c + i]! - inC) / own;
  const foundD = (x[d + i]! - inD) / own;
  x[a + i] = foundA;
  x[b + i] = foundB;
  x[c + i] = foundC;
  x[d + i] = foundD;
}
