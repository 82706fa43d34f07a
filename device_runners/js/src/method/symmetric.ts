/**
 * Systems with a symmetric matrix, by its Cholesky factor, as flat, row-major Float64Arrays.
 *
 * All goes by blocks of columns: what the columns before a block make of it is one product of matrices, and only within the
 * block one number follows from the other. ml-matrix takes ten times as long to solve and six times to decompose with 832
 * features (docs/decisions/0018), and that was most of what a task took.
 */

import { Matrix, solve } from 'ml-matrix';
import {
  add,
  difference,
  eigenSymmetric,
  identity,
  norm,
  timesTransposed,
  transposed,
  upTo,
} from './matrix.js';
import { Random } from './random.js';
import { type Block, ROWS, tiles } from './tiles.js';

/** Columns of a block: few enough that what is not a product of large matrices is little, and a multiple of what tiles take. */
const BLOCK = 24;
/** What a solution may leave of what it is to make, as a share. */
const LEFT = 1e-12;
/** Of more rows that are solved, what is left is looked at in so many sums of them. */
const LOOKED_AT = 16;
/** Rows that are solved at once, whole blocks of them; and of the identity fewer, so that more of what is 0 is left out. */
const AT_ONCE = 42 * BLOCK;
const UNITS_AT_ONCE = 8 * BLOCK;

/** `x` `(n, m)` with `a x = b`, for an `a` `(n, n)` as `SymmetricSystem` takes and `b` `(n, m)`. */
export function solveSymmetric(a: Float64Array, b: Float64Array, n: number, m: number): Float64Array {
  return transposed(new SymmetricSystem(a, n).solveRows(transposed(b, n, m), m), m, n);
}

/**
 * For each row `b` of `rows` `(m, n)` the `x` with `a x = b`, for any regular `a` `(n, n)`: `(m, n)`. By two triangles, as maps
 * near the identity are solved as they stand; where too much is left of the rows, by the normal equations.
 */
export function solvedRows(a: Float64Array, rows: Float64Array, m: number, n: number): Float64Array {
  const both = triangles(a, n);
  if (!both) return byNormalEquations(a, rows, m, n);
  const found = byRows(rows, m, n, (solved, count) => {
    solved.forward(both.lower, count, 0);
    solved.backward(both.upper, count);
  });
  const [asked, answered] = [rows, found].map((all) => fewOf(all, m, n));
  const left = difference(asked!, timesTransposed(answered!, a, asked!.length / n, n, n));
  return norm(left) <= LEFT * norm(asked!) ? found : byNormalEquations(a, rows, m, n);
}

/** `rows` `(m, n)`, or of many of them sums with random signs: what is left of a row is left of these, but for its sign. */
function fewOf(rows: Float64Array, m: number, n: number): Float64Array {
  if (m <= LOOKED_AT) return rows;
  const random = new Random(m);
  const signs = Float64Array.from({ length: LOOKED_AT * m }, () => (random.bits() >>> 31 ? 1 : -1));
  return timesTransposed(signs, transposed(rows, m, n), LOOKED_AT, n, m);
}

/** And once more for what they leave, which is as exact as LU unless `a` is next to singular. */
function byNormalEquations(a: Float64Array, rows: Float64Array, m: number, n: number): Float64Array {
  const columns = transposed(a, n, n);
  const system = new SymmetricSystem(timesTransposed(columns, columns, n, n, n), n);
  const solved = (right: Float64Array): Float64Array =>
    system.solveRows(timesTransposed(right, columns, m, n, n), m);
  const found = solved(rows);
  add(found, solved(difference(rows, timesTransposed(found, a, m, n, n))));
  return found;
}

/** A symmetric, positive definite `a` `(n, n)`, decomposed once; where rounding made it indefinite, by LU. */
export class SymmetricSystem {
  private readonly lower: Float64Array | undefined;

  constructor(
    private readonly a: Float64Array,
    private readonly n: number,
  ) {
    this.lower = choleskyFactor(a, n);
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
    return byRows(rows, m, n, (solved, count) => solved.forward(lower, count, 0));
  }

  /** `rows` `(m, n)` times that root, transposed: weights of whitened features as those of the features themselves. */
  unwhitenRows(rows: Float64Array, m: number): Float64Array {
    const { lower, n } = this;
    if (!lower) return timesTransposed(rows, this.root(), m, n, n);
    return byRows(rows, m, n, (solved, count) => solved.backward(lower, count));
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
    const solved = new Solved(n, UNITS_AT_ONCE);
    for (let first = 0; first < n; first += UNITS_AT_ONCE) {
      const count = Math.min(UNITS_AT_ONCE, n - first);
      // Rows of the identity, and in front of their ones all stays 0.
      solved.unit(first, count);
      solved.forward(lower, count, first);
      for (let row = 0; row < count; row++) found[first + row] = solved.square(row, first);
    }
    return found;
  }
}

/** `rows` `(m, n)`, as many at once as the memory has room for, as `how` leaves them. */
function byRows(
  rows: Float64Array,
  m: number,
  n: number,
  how: (solved: Solved, count: number) => void,
): Float64Array {
  const found = new Float64Array(m * n);
  const solved = new Solved(n, Math.min(AT_ONCE, upTo(m, ROWS)));
  for (let first = 0; first < m; first += AT_ONCE) {
    const count = Math.min(AT_ONCE, m - first);
    solved.put(rows.subarray(first * n, (first + count) * n), count);
    how(solved, count);
    solved.take(found.subarray(first * n, (first + count) * n), count);
  }
  return found;
}

/**
 * Some rows `(m, n)` in the memory, solved in place. Block by block: what other blocks make of one is a product of matrices, and
 * within it they are multiplied by the inverse of the triangle on the diagonal.
 */
class Solved {
  private readonly width: number;
  private readonly rows: Block;
  /** Of the triangle, the rows of one block; the inverse of what of them is on the diagonal; and what is being solved. */
  private readonly panel: Block;
  private readonly corner: Block;
  private readonly rest: Block;
  private readonly numbers: Float64Array;

  /** With room for `most` rows. */
  constructor(
    private readonly n: number,
    private readonly most: number,
  ) {
    this.width = upTo(n, BLOCK);
    this.rows = { at: 0, stride: this.width };
    this.panel = { at: most * this.width, stride: this.width };
    this.corner = { at: this.panel.at + BLOCK * this.width, stride: BLOCK };
    this.rest = { at: this.corner.at + BLOCK * BLOCK, stride: BLOCK };
    this.numbers = tiles().memory(this.rest.at + most * BLOCK);
  }

  put(rows: Float64Array, count: number): void {
    const { n, numbers, width } = this;
    for (let row = 0; row < count; row++) {
      numbers.set(rows.subarray(row * n, (row + 1) * n), row * width);
      numbers.fill(0, row * width + n, (row + 1) * width);
    }
  }

  /** `count` rows of the identity from row `first` on. */
  unit(first: number, count: number): void {
    const { most, numbers, width } = this;
    numbers.fill(0, 0, most * width);
    for (let row = 0; row < count; row++) numbers[row * width + first + row] = 1;
  }

  take(into: Float64Array, count: number): void {
    const { n, numbers, width } = this;
    for (let row = 0; row < count; row++) into.set(numbers.subarray(row * width, row * width + n), row * n);
  }

  /** The sum of squares of a row from a column on. */
  square(row: number, first: number): number {
    const { numbers, width, n } = this;
    let sum = 0;
    for (let at = row * width + first; at < row * width + n; at++) sum += numbers[at]! ** 2;
    return sum;
  }

  /** `x` with `x lower^T` what the rows were, of rows that are 0 in front of the column `first`, of a block. */
  forward(lower: Float64Array, count: number, first: number): void {
    const { n, width, numbers, panel, corner } = this;
    for (let start = first; start < width; start += BLOCK) {
      const end = Math.min(start + BLOCK, n);
      numbers.fill(0, panel.at, corner.at);
      for (let row = start; row < end; row++) {
        const to = panel.at + (row - start) * width;
        numbers.set(lower.subarray(row * n + first, row * n + start), to);
      }
      const inverse = inverseOfCorner(lower, n, start, end);
      numbers.set(inverse, corner.at);
      this.solve(count, start, first, start - first);
    }
  }

  /** `x` with `x lower` what the rows were. */
  backward(lower: Float64Array, count: number): void {
    const { n, width, numbers, panel, corner } = this;
    for (let start = width - BLOCK; start >= 0; start -= BLOCK) {
      const end = Math.min(start + BLOCK, n);
      const behind = width - start - BLOCK;
      numbers.fill(0, panel.at, corner.at);
      for (let row = end; row < n; row++) {
        const from = row * n;
        for (let column = start; column < end; column++) {
          numbers[panel.at + (column - start) * width + row - end] = lower[from + column]!;
        }
      }
      const inverse = inverseOfCorner(lower, n, start, end);
      for (let i = 0; i < BLOCK; i++) {
        for (let j = 0; j < BLOCK; j++) numbers[corner.at + i * BLOCK + j] = inverse[j * BLOCK + i]!;
      }
      this.solve(count, start, start + BLOCK, behind);
    }
  }

  /** The block from column `start` on, less the product of `depth` columns from `first` on with the panel, times the corner. */
  private solve(count: number, start: number, first: number, depth: number): void {
    const { rows, panel, corner, rest } = this;
    const found = tiles();
    const m = upTo(count, ROWS);
    const from = { at: rows.at + start, stride: rows.stride };
    const a = { at: rows.at + first, stride: rows.stride };
    found.subtract(rest, from, a, panel, m, BLOCK, depth);
    found.times(from, rest, corner, m, BLOCK, BLOCK);
  }
}

/**
 * Lower triangular `l` `(n, n)` with `l l^T = a`, for a symmetric `a` (of what rounding has left of that, the mean with
 * its transpose); undefined where it is not positive definite.
 */
export function choleskyFactor(a: Float64Array, n: number): Float64Array | undefined {
  const width = upTo(n, BLOCK);
  const found = tiles();
  const rest = { at: width * width, stride: BLOCK };
  const corner = { at: rest.at + width * BLOCK, stride: BLOCK };
  const numbers = found.memory(corner.at + BLOCK * BLOCK);
  putSymmetric(numbers, a, n, width);
  for (let start = 0; start < width; start += BLOCK) {
    const row = { at: start * width, stride: width };
    const from = { at: row.at + start, stride: width };
    found.subtract(rest, from, row, row, width - start, BLOCK, start);
    const own = numbers.subarray(rest.at, rest.at + BLOCK * BLOCK);
    if (!factorCorner(own)) return undefined;
    for (let i = 0; i < BLOCK; i++) {
      numbers.set(own.subarray(i * BLOCK, (i + 1) * BLOCK), from.at + i * width);
    }
    numbers.set(inverseOfCorner(own, BLOCK, 0, BLOCK), corner.at);
    const below = { at: from.at + BLOCK * width, stride: width };
    const left = { at: rest.at + BLOCK * BLOCK, stride: BLOCK };
    if (start + BLOCK < width) found.times(below, left, corner, width - start - BLOCK, BLOCK, BLOCK);
  }
  return triangleOf(numbers, { at: 0, stride: width }, n);
}

/**
 * `lower` with ones on its diagonal and the transpose of an `upper` one, both lower triangular `(n, n)`, whose product is `a`
 * `(n, n)`; undefined where a number to divide by is 0. No rows are exchanged, so that whoever solves by it has to look at what is left.
 */
function triangles(a: Float64Array, n: number): { lower: Float64Array; upper: Float64Array } | undefined {
  const width = upTo(n, BLOCK);
  const found = tiles();
  const [lower, upper] = [
    { at: 0, stride: width },
    { at: width * width, stride: width },
  ];
  const rest = { at: 2 * width * width, stride: BLOCK };
  const corner = { at: rest.at + width * BLOCK, stride: BLOCK };
  const numbers = found.memory(corner.at + BLOCK * BLOCK);
  putWhole(numbers, lower, a, n, width);
  putWhole(numbers, upper, transposed(a, n, n), n, width);
  /** Of a triangle, the block of columns from `start` on without what the columns before make of it, from row `first` on. */
  const remaining = (of: Block, other: Block, start: number, first: number): void => {
    const from = { at: of.at + first * width + start, stride: width };
    const before = { at: of.at + first * width, stride: width };
    const others = { at: other.at + start * width, stride: width };
    found.subtract(rest, from, before, others, width - first, BLOCK, start);
  };
  /** Into its rows below those of the block: what remains, of which the first is in `row` of `rest`, by the other's corner. */
  const below = (of: Block, start: number, row: number, inverse: Float64Array): void => {
    const [first, left] = [start + BLOCK, { at: rest.at + row * BLOCK, stride: BLOCK }];
    numbers.set(inverse, corner.at);
    const into = { at: of.at + first * width + start, stride: width };
    found.times(into, left, corner, width - first, BLOCK, BLOCK);
  };
  for (let start = 0; start < width; start += BLOCK) {
    remaining(lower, upper, start, start);
    const own = cornerTriangles(numbers.subarray(rest.at, rest.at + BLOCK * BLOCK));
    if (!own) return undefined;
    for (const [of, part] of [
      [lower, own.lower],
      [upper, own.upper],
    ] as const) {
      for (let i = 0; i < BLOCK; i++) {
        const to = of.at + (start + i) * width + start;
        numbers.set(part.subarray(i * BLOCK, (i + 1) * BLOCK), to);
      }
    }
    if (start + BLOCK === width) continue;
    below(lower, start, BLOCK, inverseOfCorner(own.upper, BLOCK, 0, BLOCK));
    remaining(upper, lower, start, start + BLOCK);
    below(upper, start, 0, inverseOfCorner(own.lower, BLOCK, 0, BLOCK));
  }
  return { lower: triangleOf(numbers, lower, n), upper: triangleOf(numbers, upper, n) };
}

/** Of `a` `(BLOCK, BLOCK)` both, as `triangles` has them. */
function cornerTriangles(a: Float64Array): { lower: Float64Array; upper: Float64Array } | undefined {
  const [lower, upper] = [identity(BLOCK), new Float64Array(BLOCK * BLOCK)];
  for (let i = 0; i < BLOCK; i++) {
    for (let j = 0; j < BLOCK; j++) {
      let rest = a[i * BLOCK + j]!;
      for (let k = 0; k < Math.min(i, j); k++) rest -= lower[i * BLOCK + k]! * upper[j * BLOCK + k]!;
      if (j < i) lower[i * BLOCK + j] = rest / upper[j * BLOCK + j]!;
      else upper[j * BLOCK + i] = rest;
    }
    if (!upper[i * BLOCK + i]) return undefined;
  }
  return { lower, upper };
}

/** `a` `(n, n)`, and behind it the identity, into a block `(width, width)`. */
function putWhole(numbers: Float64Array, block: Block, a: Float64Array, n: number, width: number): void {
  for (let i = 0; i < width; i++) {
    const to = block.at + i * width;
    if (i < n) numbers.set(a.subarray(i * n, (i + 1) * n), to);
    numbers.fill(0, i < n ? to + n : to, to + width);
    if (i >= n) numbers[to + i] = 1;
  }
}

/** What is in a block up to its diagonal, `(n, n)`. */
function triangleOf(numbers: Float64Array, { at, stride }: Block, n: number): Float64Array {
  const found = new Float64Array(n * n);
  for (let i = 0; i < n; i++) found.set(numbers.subarray(at + i * stride, at + i * stride + i + 1), i * n);
  return found;
}

/** The lower half of the mean of `a` `(n, n)` with its transpose, and behind it of the identity, into the memory `(width, width)`. */
function putSymmetric(numbers: Float64Array, a: Float64Array, n: number, width: number): void {
  for (let top = 0; top < n; top += BLOCK) {
    const bottom = Math.min(top + BLOCK, n);
    for (let left = 0; left <= top; left += BLOCK) {
      for (let i = top; i < bottom; i++) {
        const right = Math.min(left + BLOCK, i + 1);
        for (let j = left; j < right; j++) numbers[i * width + j] = (a[i * n + j]! + a[j * n + i]!) / 2;
      }
    }
  }
  for (let i = n; i < width; i++) {
    numbers.fill(0, i * width, (i + 1) * width);
    numbers[i * width + i] = 1;
  }
}

/** Cholesky's factor of `own` `(BLOCK, BLOCK)`, of which the lower half counts, in its place; false where it is not definite. */
function factorCorner(own: Float64Array): boolean {
  for (let row = 0; row < BLOCK; row++) {
    for (let column = 0; column <= row; column++) {
      let rest = own[row * BLOCK + column]!;
      for (let k = 0; k < column; k++) rest -= own[row * BLOCK + k]! * own[column * BLOCK + k]!;
      if (column < row) own[row * BLOCK + column] = rest / own[column * BLOCK + column]!;
      else if (rest > 0) own[row * BLOCK + row] = Math.sqrt(rest);
      else return false;
    }
    own.fill(0, row * BLOCK + row + 1, (row + 1) * BLOCK);
  }
  return true;
}

/** The inverse `(BLOCK, BLOCK)` of the triangle on the diagonal of `lower` `(n, n)` from `start` to `end`, behind it the identity. */
function inverseOfCorner(lower: Float64Array, n: number, start: number, end: number): Float64Array {
  const inverse = new Float64Array(BLOCK * BLOCK);
  const size = end - start;
  for (let i = 0; i < BLOCK; i++) {
    if (i >= size) {
      inverse[i * BLOCK + i] = 1;
      continue;
    }
    const row = (start + i) * n + start;
    const own = lower[row + i]!;
    inverse[i * BLOCK + i] = 1 / own;
    for (let j = 0; j < i; j++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum += lower[row + k]! * inverse[k * BLOCK + j]!;
      inverse[i * BLOCK + j] = -sum / own;
    }
  }
  return inverse;
}
