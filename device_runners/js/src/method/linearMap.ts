/** A linear map of features: the whole matrix, or of fewer images than features what they add to the identity. */

import { crosses } from './cross.js';
import { add, around, difference, identity, norm, timesTransposed, transposed } from './matrix.js';
import { solvedRows } from './symmetric.js';
import { mostRows } from './thin.js';

/** A map of few images is near enough to a whole one where about so much is left of a number: float32 leaves a tenth. */
const NEAR = 1e-6;
/** What may be left of rows in the end, as a share of them; and how often they are led back until it is. */
const EXACT = 1e-12;
const ROUNDS = 4;

/** `x -> M x`, of rows `x -> x M^T`. */
export interface LinearMap {
  /** `M`, `(f, f)`. */
  readonly matrix: Float64Array;
  /** How many directions it may move features along. */
  readonly rank: number;
  /** `rows M^T`, `(m, f)`: where rows `(m, f)` are led. */
  led(rows: Float64Array, m: number): Float64Array;
  /** `rows M`, `(m, f)`: what in front of the map is as `rows` are behind it. */
  ahead(rows: Float64Array, m: number): Float64Array;
  /** For each of `rows` `(m, f)` what is led to it. */
  ledBack(rows: Float64Array, m: number): Float64Array;
  /** `M gram M^T`, of a symmetric gram. */
  around(gram: Float64Array): Float64Array;
  /** `M other`, of any `other` `(f, f)`. */
  times(other: Float64Array): Float64Array;
}

/** Any regular matrix `(f, f)`. */
export class WholeMap implements LinearMap {
  constructor(
    readonly matrix: Float64Array,
    private readonly f: number,
  ) {}

  get rank(): number {
    return this.f;
  }

  led(rows: Float64Array, m: number): Float64Array {
    return timesTransposed(rows, this.matrix, m, this.f, this.f);
  }

  ahead(rows: Float64Array, m: number): Float64Array {
    return timesTransposed(rows, transposed(this.matrix, this.f, this.f), m, this.f, this.f);
  }

  ledBack(rows: Float64Array, m: number): Float64Array {
    return this.nearly(rows, m) ?? solvedRows(this.matrix, rows, m, this.f);
  }

  /**
   * By a map of few images that this one nearly is, as a product of such is, and once more for what that leaves until nothing
   * is left. Undefined where it does not come to that.
   */
  private nearly(rows: Float64Array, m: number): Float64Array | undefined {
    const { matrix, f } = this;
    const most = 1 + Math.floor(mostRows(f) / 2);
    if (m > most) return undefined;
    const { left, right, n } = crosses(matrix, f, NEAR, most);
    if (n === most) return undefined;
    const near = ThinMap.of(transposed(left.subarray(0, n * f), n, f), right.subarray(0, n * f), n, f);
    const enough = EXACT * norm(rows);
    const found = near.ledBack(rows, m);
    for (let round = 0; round < ROUNDS; round++) {
      const rest = difference(rows, this.led(found, m));
      if (norm(rest) <= enough) return found;
      add(found, near.ledBack(rest, m));
    }
    return undefined;
  }

  around(gram: Float64Array): Float64Array {
    return around(this.matrix, gram, this.f);
  }

  times(other: Float64Array): Float64Array {
    return timesTransposed(this.matrix, transposed(other, this.f, this.f), this.f, this.f, this.f);
  }
}

/** `(f, n)`, and of rows `(m, f)` their products with it, `(m, n)`. */
export interface Left {
  readonly matrix: Float64Array;
  byRows(rows: Float64Array, m: number): Float64Array;
}

/** The identity and `left right`, `(f, n)` and `(n, f)`: all is products of `f` by `f` by `n`, or less. */
export class ThinMap implements LinearMap {
  private whole: Float64Array | undefined;
  /** `right`, `(f, n)`. */
  private columns: Float64Array | undefined;

  constructor(
    private readonly left: Left,
    private readonly right: Float64Array,
    private readonly n: number,
    private readonly f: number,
  ) {}

  /** Of a `left` `(f, n)` that is there. */
  static of(left: Float64Array, right: Float64Array, n: number, f: number): ThinMap {
    const columns = transposed(left, f, n);
    const byRows = (rows: Float64Array, m: number): Float64Array => timesTransposed(rows, columns, m, n, f);
    return new ThinMap({ matrix: left, byRows }, right, n, f);
  }

  get rank(): number {
    return this.n;
  }

  get matrix(): Float64Array {
    const { left, n, f } = this;
    if (!this.whole) {
      this.whole = timesTransposed(left.matrix, this.turned, f, f, n);
      for (let i = 0; i < f; i++) this.whole[i * f + i] = this.whole[i * f + i]! + 1;
    }
    return this.whole;
  }

  led(rows: Float64Array, m: number): Float64Array {
    const { left, right, n, f } = this;
    const found = timesTransposed(timesTransposed(rows, right, m, n, f), left.matrix, m, f, n);
    add(found, rows);
    return found;
  }

  ahead(rows: Float64Array, m: number): Float64Array {
    const { left, n, f } = this;
    const found = timesTransposed(left.byRows(rows, m), this.turned, m, f, n);
    add(found, rows);
    return found;
  }

  /** Each old head is led ahead, and asked what it loses. */
  private get turned(): Float64Array {
    this.columns ??= transposed(this.right, this.n, this.f);
    return this.columns;
  }

  /** `M x = b` is `x + left t = b` with `t = right x`, so that `(1 + right left) t = right b` (Woodbury, 1950). */
  ledBack(rows: Float64Array, m: number): Float64Array {
    const { left, right, n, f } = this;
    const inner = left.byRows(right, n);
    add(inner, identity(n));
    const seen = solvedRows(inner, timesTransposed(rows, right, m, n, f), m, n);
    const found = rows.slice();
    add(found, timesTransposed(seen, left.matrix, m, f, n), -1);
    return found;
  }

  around(gram: Float64Array): Float64Array {
    const { right, n, f } = this;
    const left = this.left.matrix;
    const seen = timesTransposed(right, gram, n, f, f);
    const inner = timesTransposed(seen, right, n, n, f, new Float64Array(n * n), true);
    // G + L S + (L S)^T + L I L^T, with S = R G and I = S R^T: half of the last on either side, so that it is one product.
    const half = transposed(seen, n, f);
    add(half, timesTransposed(left, inner, f, n, n), 0.5);
    const once = timesTransposed(left, half, f, f, n);
    const found = new Float64Array(f * f);
    for (let i = 0; i < f; i++) {
      for (let j = 0; j <= i; j++) {
        const value = gram[i * f + j]! + (once[i * f + j]! + once[j * f + i]!);
        found[i * f + j] = value;
        found[j * f + i] = value;
      }
    }
    return found;
  }

  times(other: Float64Array): Float64Array {
    const { left, right, n, f } = this;
    const seen = timesTransposed(right, transposed(other, f, f), n, f, f);
    const found = timesTransposed(left.matrix, transposed(seen, n, f), f, f, n);
    add(found, other);
    return found;
  }
}
