/**
 * A covariance of fewer images than features. It is `rows^T rows` with as many rows as images, so that what is done with it
 * takes products of features by images by images, where Cholesky's factor takes the cube of the features.
 */

import { COVARIANCE } from '../contract/thresholds.js';
import { type ClassSums, freedomOf, roundingOf, variancesWithin } from './covariance.js';
import { argmax, subtractRow, timesTransposed, transposed } from './matrix.js';
import { choleskyFactor } from './symmetric.js';

/** Rows `(n, f)`. */
export interface Rows {
  readonly rows: Float64Array;
  readonly n: number;
  readonly f: number;
}

/** So many rows in the place of `f` features are few. */
export function mostRows(f: number): number {
  return Math.floor(COVARIANCE.thin * f);
}

/** What was found of statistics that are asked for again: they do not change. */
const asked = new WeakMap<ClassSums, { readonly found: Rows | undefined }>();

/** Rows whose `rows^T rows` is the covariance within classes; undefined where these are not few. */
export function thinCovariance(statistics: ClassSums): Rows | undefined {
  const known = asked.get(statistics) ?? { found: rowsOf(statistics) };
  asked.set(statistics, known);
  return known.found;
}

function rowsOf(statistics: ClassSums): Rows | undefined {
  const { features: f, counts, scatter } = statistics;
  const freedom = freedomOf(counts);
  if (freedom > mostRows(f)) return undefined;
  return pivoted(scatter, 1 / freedom, variancesWithin(statistics), roundingOf(statistics));
}

/**
 * Cholesky's factor with complete pivoting (Higham, "Accuracy and Stability of Numerical Algorithms", section 10.3), of `share`
 * of the `scatter`, whose diagonal is given. Each feature's own variance is made 1 first, but for a `floor` under it, so that no
 * feature counts for less than another.
 */
function pivoted(
  scatter: Float64Array,
  share: number,
  diagonal: Float64Array,
  floor: number,
): Rows | undefined {
  const f = diagonal.length;
  const scale = diagonal.map((value) => 1 / Math.sqrt(Math.max(value, 0) + floor));
  const left = diagonal.map((value, j) => value * scale[j]! ** 2);
  const most = mostRows(f);
  const rows = new Float64Array(most * f);
  const found = new Float64Array(f);
  for (let n = 0; ; n++) {
    const pivot = argmax(left);
    if (!(left[pivot]! > COVARIANCE.left)) {
      for (let at = 0; at < n * f; at++) rows[at] = rows[at]! / scale[at % f]!;
      return { rows: rows.slice(0, n * f), n, f };
    }
    if (n === most) return undefined;
    const own = share * scale[pivot]!;
    for (let j = 0; j < f; j++) found[j] = scatter[pivot * f + j]! * own * scale[j]!;
    for (let k = 0; k < n; k++) subtractRow(found, rows, k * f, rows[k * f + pivot]!);
    const root = Math.sqrt(left[pivot]!);
    for (let j = 0; j < f; j++) {
      const value = found[j]! / root;
      rows[n * f + j] = value;
      left[j] = left[j]! - value * value;
    }
    left[pivot] = 0;
  }
}

/** `share rows^T rows` and a diagonal `ridge` above 0 (Woodbury, 1950). */
export class ThinSystem {
  /** `(f,)`: 1 over the root of the ridge. */
  private readonly narrow: Float64Array;
  /** `(n, f)`: the inverse is that of the ridge, less `within^T within`, from both sides times `narrow`. */
  private readonly within: Float64Array;
  private readonly columns: Float64Array;
  /** Cholesky's factor of the kernel, `(n, n)`, and what is in front of `within`, `(n, f)`. */
  private readonly lower: Float64Array;
  private readonly wide: Float64Array;
  private found: Float64Array | undefined;

  constructor(
    private readonly thin: Rows,
    ridge: Float64Array,
    private readonly share: number,
  ) {
    const { rows, n, f } = thin;
    this.narrow = ridge.map((value) => 1 / Math.sqrt(value));
    const root = Math.sqrt(share);
    const within = rows.map((value, at) => root * value * this.narrow[at % f]!);
    const kernel = timesTransposed(within, within, n, n, f);
    for (let i = 0; i < n; i++) kernel[i * n + i] = kernel[i * n + i]! + 1;
    // Not definite where a number is not finite, as then nothing is that follows.
    const lower = choleskyFactor(kernel, n) ?? kernel.fill(Number.NaN);
    this.lower = lower;
    this.wide = within.slice();
    this.within = solveLower(lower, within, n, f, 0);
    this.columns = transposed(within, n, f);
  }

  /**
   * `(n, f)`: the identity less `within^T within` is `root root^T` with the root `1 - within^T rest` (Andrews, "A square root
   * formulation of the Kalman covariance equations", 1968).
   */
  private rest(): Float64Array {
    const { n, f } = this.thin;
    this.found ??= solveLower(this.lower, this.wide.slice(), n, f, 1);
    return this.found;
  }

  /** The trace of the inverse times `rows^T rows`. */
  noise(): number {
    let sum = 0;
    for (const value of this.within) sum += value * value;
    return sum / this.share;
  }

  /** `rows` `(m, f)` times a root of the inverse, `root root^T`. */
  whitenRows(rows: Float64Array, m: number): Float64Array {
    const { narrow, within } = this;
    const { n, f } = this.thin;
    const found = rows.map((value, at) => value * narrow[at % f]!);
    const seen = timesTransposed(found, within, m, n, f);
    const less = timesTransposed(seen, transposed(this.rest(), n, f), m, f, n);
    return found.map((value, at) => value - less[at]!);
  }

  /** `rows` `(m, f)` times that root, transposed. */
  unwhitenRows(rows: Float64Array, m: number): Float64Array {
    const { narrow, columns } = this;
    const { n, f } = this.thin;
    const seen = timesTransposed(rows, this.rest(), m, n, f);
    const less = timesTransposed(seen, columns, m, f, n);
    return rows.map((value, at) => (value - less[at]!) * narrow[at % f]!);
  }

  /** For each row `b` of `rows` `(m, f)` the `x` that this makes `b` of: `(m, f)`. */
  solveRows(rows: Float64Array, m: number): Float64Array {
    const { narrow, within, columns } = this;
    const { n, f } = this.thin;
    const found = rows.map((value, at) => value * narrow[at % f]!);
    const seen = timesTransposed(found, within, m, n, f);
    const less = timesTransposed(seen, columns, m, f, n);
    for (let at = 0; at < found.length; at++) found[at] = (found[at]! - less[at]!) * narrow[at % f]!;
    return found;
  }
}

/** In place, `x` `(n, f)` by the inverse of the triangle `lower` `(n, n)` with `more` on its diagonal. */
function solveLower(lower: Float64Array, x: Float64Array, n: number, f: number, more: number): Float64Array {
  for (let i = 0; i < n; i++) {
    const own = x.subarray(i * f, (i + 1) * f);
    for (let k = 0; k < i; k++) subtractRow(own, x, k * f, lower[i * n + k]!);
    const by = lower[i * n + i]! + more;
    for (let j = 0; j < f; j++) own[j] = own[j]! / by;
  }
  return x;
}

/**
 * `heads` `(m, f)` times the lower triangular Cholesky factor of `rows^T rows` and a diagonal `more`: `(m, f)`. Below its
 * diagonal, number `(i, j)` of the factor is the product of column `i` of the rows with one `(n,)` for each `j`.
 */
export function timesFactor(
  { rows, n, f }: Rows,
  more: Float64Array,
  heads: Float64Array,
  m: number,
): Float64Array {
  const columns = transposed(rows, n, f);
  const { behind, own } = factorOf(columns, n, more);
  const out = new Float64Array(m * f);
  // By head, its numbers for the columns behind, times these columns.
  const below = new Float64Array(m * n);
  for (let j = f - 1; j >= 0; j--) {
    for (let c = 0; c < m; c++) {
      const weight = heads[c * f + j]!;
      let sum = weight * own[j]!;
      for (let k = 0; k < n; k++) {
        sum += below[c * n + k]! * behind[j * n + k]!;
        below[c * n + k] = below[c * n + k]! + weight * columns[j * n + k]!;
      }
      out[c * f + j] = sum;
    }
  }
  return out;
}

/** Of `columns` `(f, n)`: what makes the factor's columns of them, `(f, n)`, and its diagonal, `(f,)`. */
function factorOf(
  columns: Float64Array,
  n: number,
  more: Float64Array,
): { behind: Float64Array; own: Float64Array } {
  const behind = new Float64Array(columns.length);
  const own = new Float64Array(more.length);
  // What the columns so far leave of the identity, `(n, n)`; and of the last one, before it is taken in.
  const rest = new Float64Array(n * n);
  for (let k = 0; k < n; k++) rest[k * n + k] = 1;
  let last = new Float64Array(n);
  let found = new Float64Array(n);
  for (let j = 0; j < more.length; j++) {
    const at = j * n;
    let square = more[j]!;
    for (let k = 0; k < n; k++) {
      const factor = last[k]!;
      let sum = 0;
      for (let l = 0; l < n; l++) {
        const left = rest[k * n + l]! - factor * last[l]!;
        rest[k * n + l] = left;
        sum += left * columns[at + l]!;
      }
      found[k] = sum;
      square += sum * columns[at + k]!;
    }
    own[j] = Math.sqrt(square);
    for (let k = 0; k < n; k++) {
      found[k] = found[k]! / own[j]!;
      behind[at + k] = found[k]!;
    }
    [last, found] = [found, last];
  }
  return { behind, own };
}
