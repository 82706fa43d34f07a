/**
 * Products of matrices as flat, row-major Float64Arrays, and two decompositions, which ml-matrix does.
 *
 * One kernel does all products. It takes arrays of one element type only, so that the engine compiles it once; float32
 * data are copied into a buffer first, which costs little beside the product.
 */

import { CholeskyDecomposition, EigenvalueDecomposition, Matrix, solve } from 'ml-matrix';

/**
 * `a b^T`: `a` `(m, k)`, `b` `(n, k)`, into `out` `(m, n)`. Two rows of each at a time: every number that is loaded is
 * used twice.
 */
export function timesTransposed(
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  k: number,
  out: Float64Array = new Float64Array(m * n),
): Float64Array {
  for (let i = 0; i < m; i += 2) {
    const p = i * k;
    const q = i + 1 < m ? p + k : p;
    for (let j = 0; j < n; j += 2) {
      const r = j * k;
      const s = j + 1 < n ? r + k : r;
      let pr = 0;
      let ps = 0;
      let qr = 0;
      let qs = 0;
      for (let l = 0; l < k; l++) {
        const left = a[p + l]!;
        const below = a[q + l]!;
        const up = b[r + l]!;
        const down = b[s + l]!;
        pr += left * up;
        ps += left * down;
        qr += below * up;
        qs += below * down;
      }
      // Where a second row is missing, it was the first one again, and the same number is written twice.
      out[i * n + (s === r ? j : j + 1)] = ps;
      out[i * n + j] = pr;
      if (q !== p) {
        out[(i + 1) * n + (s === r ? j : j + 1)] = qs;
        out[(i + 1) * n + j] = qr;
      }
    }
  }
  return out;
}

/** The transpose of `a` `(m, n)`: `(n, m)`. */
export function transposed(a: ArrayLike<number>, m: number, n: number): Float64Array {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = a[i * n + j]!;
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

/** `x` `(n, m)` with `a x = b`, for an `a` `(n, n)` as `SymmetricSystem` takes and `b` `(n, m)`. */
export function solveSymmetric(a: Float64Array, b: Float64Array, n: number, m: number): Float64Array {
  return new SymmetricSystem(a, n).solve(b, m);
}

/** A symmetric, positive definite `a` `(n, n)`, decomposed once; where rounding made it indefinite, by LU. */
export class SymmetricSystem {
  private readonly matrix: Matrix;
  private readonly cholesky: CholeskyDecomposition;

  constructor(
    a: Float64Array,
    private readonly n: number,
  ) {
    // Rounding leaves sums of products a little asymmetric.
    this.matrix = new Matrix(n, n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) this.matrix.set(i, j, (a[i * n + j]! + a[j * n + i]!) / 2);
    }
    this.cholesky = new CholeskyDecomposition(this.matrix);
  }

  /** `x` `(n, m)` with `a x = b`, for `b` `(n, m)`. */
  solve(b: Float64Array, m: number): Float64Array {
    const { matrix, cholesky, n } = this;
    const right = Matrix.from1DArray(n, m, b);
    const found = cholesky.isPositiveDefinite() ? cholesky.solve(right) : solve(matrix, right);
    return Float64Array.from(found.to1DArray());
  }

  /** The diagonal of the inverse: sums of squares over the columns of the inverse of the Cholesky factor. */
  inverseDiagonal(): Float64Array {
    const { cholesky, n } = this;
    const found = new Float64Array(n);
    if (!cholesky.isPositiveDefinite()) {
      const inverse = this.solve(identity(n), n);
      return found.map((_, j) => inverse[j * n + j]!);
    }
    const factor = Float64Array.from(cholesky.lowerTriangularMatrix.to1DArray());
    const column = new Float64Array(n);
    for (let j = 0; j < n; j++) {
      let squares = 0;
      for (let i = j; i < n; i++) {
        let sum = i === j ? 1 : 0;
        for (let k = j; k < i; k++) sum -= factor[i * n + k]! * column[k]!;
        column[i] = sum / factor[i * n + i]!;
        squares += column[i]! * column[i]!;
      }
      found[j] = squares;
    }
    return found;
  }
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
