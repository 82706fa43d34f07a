/**
 * Products of matrices as flat, row-major Float64Arrays, and the eigendecomposition, which ml-matrix does.
 *
 * Large products are taken to the tiles of WebAssembly. What else does them takes arrays of one element type only, so that the
 * engine compiles it once; float32 data are copied into a buffer first, which costs little beside the product.
 */

import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { type Block, DEPTH, FastTiles, ROWS, rowsFrom, tile, tiles } from './tiles.js';

/** So many multiplications take longer than copying what they are of. */
const WORTH_COPYING = 1 << 14;
/** Of one side, few enough rows in the memory to stay in the cache, and of the other one as many as a bound allows. */
const MOST_COLUMNS = 96;
const MOST_NUMBERS = 1 << 20;
/** Rows and columns that are turned at once. */
const SQUARE = 32;

/**
 * `a b^T`: `a` `(m, k)`, `b` `(n, k)`, into `out` `(m, n)`. Of what is `symmetric`, as `a a^T` is, half is computed.
 */
export function timesTransposed(
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  k: number,
  out: Float64Array = new Float64Array(m * n),
  symmetric = a === b,
): Float64Array {
  const found = tiles();
  if (m * n * k >= WORTH_COPYING && found instanceof FastTiles) {
    byTiles(found, a, b, m, n, k, out, symmetric);
  } else plainly(a, b, m, n, k, out, symmetric);
  if (symmetric) mirror(out, n);
  return out;
}

/** By blocks of rows in the memory of `found`; of what is symmetric, none below the diagonal. Rows that are there are not put again. */
function byTiles(
  found: FastTiles,
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  k: number,
  out: Float64Array,
  symmetric: boolean,
): void {
  const depth = upTo(k, DEPTH);
  const most = upTo(Math.ceil(MOST_NUMBERS / depth), ROWS);
  const [rows, columns] = [Math.min(most, upTo(m, ROWS)), Math.min(most, MOST_COLUMNS, upTo(n, ROWS))];
  const left = { at: 0, stride: depth };
  const right = { at: rows * depth, stride: depth };
  const to = { at: (rows + columns) * depth, stride: columns };
  const numbers = found.memory(to.at + rows * columns);
  for (let i = 0; i < m; i += rows) {
    const some = Math.min(rows, m - i);
    put(numbers, left, a, i, some, k);
    for (let j = symmetric ? i : 0; j < n; j += columns) {
      const others = Math.min(columns, n - j);
      const there = a === b && j + others <= i + some;
      if (!there) put(numbers, right, b, j, others, k);
      const second = there ? { at: (j - i) * depth, stride: depth } : right;
      const above = symmetric ? Math.min(some, j + others - i) : some;
      found.times(to, left, second, upTo(above, ROWS), upTo(others, ROWS), depth);
      for (let row = 0; row < above; row++) {
        const start = to.at + row * columns;
        out.set(numbers.subarray(start, start + others), (i + row) * n + j);
      }
    }
  }
}

/** Rows `first` to `first + count` of `from` `(..., k)` into a block of at least as long ones, whose ends are 0. */
function put(
  numbers: Float64Array,
  { at, stride }: Block,
  from: Float64Array,
  first: number,
  count: number,
  k: number,
): void {
  if (k === stride) {
    numbers.set(from.subarray(first * k, (first + count) * k), at);
    return;
  }
  for (let row = 0; row < count; row++) {
    const start = at + row * stride;
    numbers.set(from.subarray((first + row) * k, (first + row + 1) * k), start);
    numbers.fill(0, start + k, start + stride);
  }
}

/** The least multiple of `step` from `count` on. */
export function upTo(count: number, step: number): number {
  return step * Math.ceil(count / step);
}

/** Four rows of each at a time. */
function plainly(
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  k: number,
  out: Float64Array,
  symmetric: boolean,
): void {
  const sums = new Float64Array(16);
  for (let i = 0; i < m; i += 4) {
    const of = rowsFrom(0, i, m, k);
    const rows = Math.min(4, m - i);
    for (let j = symmetric ? i : 0; j < n; j += 4) {
      tile(a, of, b, rowsFrom(0, j, n, k), k, sums);
      const columns = Math.min(4, n - j);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) out[(i + r) * n + j + c] = sums[4 * r + c]!;
      }
    }
  }
}

/** What is above the diagonal of `a` `(n, n)` below it, too. By squares, of which both sides are in the cache. */
function mirror(a: Float64Array, n: number): void {
  for (let top = 0; top < n; top += SQUARE) {
    const bottom = Math.min(top + SQUARE, n);
    for (let left = 0; left <= top; left += SQUARE) {
      for (let i = top; i < bottom; i++) {
        const end = Math.min(left + SQUARE, i);
        for (let j = left; j < end; j++) a[i * n + j] = a[j * n + i]!;
      }
    }
  }
}

/** The transpose of `a` `(m, n)`: `(n, m)`. */
export function transposed(a: Float32Array | Float64Array, m: number, n: number): Float64Array {
  // Of one element type, as in a product.
  const from = a instanceof Float64Array ? a : new Float64Array(a);
  const out = new Float64Array(m * n);
  for (let top = 0; top < m; top += SQUARE) {
    const bottom = Math.min(top + SQUARE, m);
    for (let left = 0; left < n; left += SQUARE) {
      const right = Math.min(left + SQUARE, n);
      for (let j = left; j < right; j++) {
        for (let i = top; i < bottom; i++) out[j * m + i] = from[i * n + j]!;
      }
    }
  }
  return out;
}

/** The sum of the diagonal of `a` `(n, n)`. */
export function trace(a: ArrayLike<number>, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[i * n + i]!;
  return sum;
}

/** The Euclidean norm of all elements. */
export function norm(a: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * a[i]!;
  return Math.sqrt(sum);
}

/** The sum of all products of two elements at one place. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += a[at]! * b[at]!;
  return sum;
}

/** `to + factor other`, in place. */
export function add(to: Float64Array, other: Float64Array, factor = 1): void {
  for (let at = 0; at < to.length; at++) to[at] = to[at]! + factor * other[at]!;
}

/** `factor a`, a new one. */
export function scaled(a: Float64Array, factor: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let at = 0; at < a.length; at++) out[at] = factor * a[at]!;
  return out;
}

/** From `to` subtract `factor` times what is in `rows` from `start` on. */
export function subtractRow(to: Float64Array, rows: Float64Array, start: number, factor: number): void {
  for (let j = 0; j < to.length; j++) to[j] = to[j]! - factor * rows[start + j]!;
}

export function difference(a: Float64Array, b: Float64Array): Float64Array {
  const out = a.slice();
  for (let at = 0; at < out.length; at++) out[at] = out[at]! - b[at]!;
  return out;
}

/** By row, the product of `a`'s and `b`'s, both `(n, f)`: `(n,)`. */
export function rowProducts(a: Float64Array, b: Float64Array, f: number): Float64Array {
  return Float64Array.from({ length: a.length / f }, (_, row) => {
    let sum = 0;
    for (let at = row * f; at < (row + 1) * f; at++) sum += a[at]! * b[at]!;
    return sum;
  });
}

/** Those rows of `features` `(n, f)`, copied. */
export function rowsAt(features: Float32Array, rows: readonly number[], f: number): Float32Array;
export function rowsAt(features: Float64Array, rows: readonly number[], f: number): Float64Array;
export function rowsAt(
  features: Float32Array | Float64Array,
  rows: readonly number[],
  f: number,
): Float32Array | Float64Array {
  const out =
    features instanceof Float32Array ? new Float32Array(rows.length * f) : new Float64Array(rows.length * f);
  for (const [at, row] of rows.entries()) out.set(features.subarray(row * f, (row + 1) * f), at * f);
  return out;
}

/** The sum of squares in each column of `rows` `(n, f)`: `(f,)`. */
export function columnSquares(rows: Float64Array, f: number): Float64Array {
  const out = new Float64Array(f);
  for (let row = 0; row < rows.length; row += f) {
    for (let j = 0; j < f; j++) out[j] = out[j]! + rows[row + j]! * rows[row + j]!;
  }
  return out;
}

/** `map gram map^T`, all `(n, n)`: gram is symmetric, so by two products with a transpose. */
export function around(map: Float64Array, gram: Float64Array, n: number): Float64Array {
  return timesTransposed(timesTransposed(map, gram, n, n, n), map, n, n, n);
}

/** A head's weight `(n, f)` as it is in front of `map` `(f, g)`, which leads to its features: `weight map`, `(n, g)`. */
export function headBehind(weight: Float32Array, map: Float64Array, f: number, g = f): Float32Array {
  const columns = transposed(map, f, g);
  return new Float32Array(timesTransposed(new Float64Array(weight), columns, weight.length / f, g, f));
}

/** Where the largest of `count` numbers from `start` on is, counted from there; of equals the first. */
export function argmax(values: ArrayLike<number>, start = 0, count = values.length - start): number {
  let best = 0;
  for (let c = 1; c < count; c++) if (values[start + c]! > values[start + best]!) best = c;
  return best;
}

/** The identity `(n, n)`. */
export function identity(n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) out[i * n + i] = 1;
  return out;
}

/** Eigenvalues of a symmetric `a` `(n, n)`, ascending, and eigenvectors as the rows of `(n, n)`. */
export function eigenSymmetric(a: Float64Array, n: number): { values: Float64Array; vectors: Float64Array } {
  const found = new EigenvalueDecomposition(Matrix.from1DArray(n, n, a), { assumeSymmetric: true });
  const columns = found.eigenvectorMatrix;
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) vectors[j * n + i] = columns.get(i, j);
  return { values: Float64Array.from(found.realEigenvalues), vectors };
}
