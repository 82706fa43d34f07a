/**
 * Products of matrices as flat, row-major Float64Arrays, and the eigendecomposition, which ml-matrix does.
 *
 * One kernel does all products. It takes arrays of one element type only, so that the engine compiles it once; float32
 * data are copied into a buffer first, which costs little beside the product.
 */

import { EigenvalueDecomposition, Matrix } from 'ml-matrix';

/** Rows and columns that are turned at once. */
const SQUARE = 32;

/**
 * `a b^T`: `a` `(m, k)`, `b` `(n, k)`, into `out` `(m, n)`. Four rows of each at a time, so that every number that is loaded
 * is used four times. Where a fourth row is missing, the last one comes again, and the same number is written twice. Of
 * `a a^T` half is computed.
 */
export function timesTransposed(
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  k: number,
  out: Float64Array = new Float64Array(m * n),
): Float64Array {
  const symmetric = a === b;
  for (let i = 0; i < m; i += 4) {
    const [i1, i2, i3] = [Math.min(i + 1, m - 1), Math.min(i + 2, m - 1), Math.min(i + 3, m - 1)];
    for (let j = symmetric ? i : 0; j < n; j += 4) {
      const [j1, j2, j3] = [Math.min(j + 1, n - 1), Math.min(j + 2, n - 1), Math.min(j + 3, n - 1)];
      tile(a, b, n, k, out, i, i1, i2, i3, j, j1, j2, j3);
    }
  }
  if (symmetric) mirror(out, n);
  return out;
}

/** The products of rows `i` to `i3` of `a` and `j` to `j3` of `b`, both `k` long, into `out`, whose rows are `n` long. */
function tile(
  a: Float64Array,
  b: Float64Array,
  n: number,
  k: number,
  out: Float64Array,
  i: number,
  i1: number,
  i2: number,
  i3: number,
  j: number,
  j1: number,
  j2: number,
  j3: number,
): void {
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
    const y0 = b[j * k + l]!;
    const y1 = b[j1 * k + l]!;
    const y2 = b[j2 * k + l]!;
    const y3 = b[j3 * k + l]!;
    let x = a[i * k + l]!;
    s00 += x * y0;
    s01 += x * y1;
    s02 += x * y2;
    s03 += x * y3;
    x = a[i1 * k + l]!;
    s10 += x * y0;
    s11 += x * y1;
    s12 += x * y2;
    s13 += x * y3;
    x = a[i2 * k + l]!;
    s20 += x * y0;
    s21 += x * y1;
    s22 += x * y2;
    s23 += x * y3;
    x = a[i3 * k + l]!;
    s30 += x * y0;
    s31 += x * y1;
    s32 += x * y2;
    s33 += x * y3;
  }
  out[i * n + j] = s00;
  out[i * n + j1] = s01;
  out[i * n + j2] = s02;
  out[i * n + j3] = s03;
  out[i1 * n + j] = s10;
  out[i1 * n + j1] = s11;
  out[i1 * n + j2] = s12;
  out[i1 * n + j3] = s13;
  out[i2 * n + j] = s20;
  out[i2 * n + j1] = s21;
  out[i2 * n + j2] = s22;
  out[i2 * n + j3] = s23;
  out[i3 * n + j] = s30;
  out[i3 * n + j1] = s31;
  out[i3 * n + j2] = s32;
  out[i3 * n + j3] = s33;
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
  const out = new Float64Array(a.length / f);
  for (let at = 0; at < a.length; at++) {
    const row = Math.floor(at / f);
    out[row] = out[row]! + a[at]! * b[at]!;
  }
  return out;
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
  for (let at = 0; at < rows.length; at++) out[at % f] = out[at % f]! + rows[at]! * rows[at]!;
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
  return {
    values: Float64Array.from(found.realEigenvalues),
    vectors: Float64Array.from(found.eigenvectorMatrix.transpose().to1DArray()),
  };
}
