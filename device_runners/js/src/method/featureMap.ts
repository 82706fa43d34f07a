/**
 * What was learned on one network's features, as another network's features would have had it.
 *
 * Where each new feature is one of the old ones, columns are picked and nothing is lost. Else `new = forward old + offset`,
 * and what this leaves of classes that the fit has not seen is `unexplained`: a carried class gets it as spread.
 * csk_sdk/method/feature_map.py; docs/decisions/0032-upgrade.md.
 */

import { BundleError } from '../errors.js';
import type { StoredTensor, Tensors } from '../formats/tensors.js';
import { Contribution, DIRECTIONS, MIXTURES } from './contributions.js';
import type { HeadArrays } from './logistic.js';
import { columnSquares, eigenSymmetric, headBehind, timesTransposed, transposed } from './matrix.js';
import type { Random } from './random.js';

const NAMES = ['columns', 'forward', 'offset', 'unexplained', 'backward', 'back_offset'] as const;

/**
 * From `before` features to `after` ones: which old feature each new one is in `columns` `(after,)`, -1 for none; `forward`
 * `(after, before)`, `offset` `(after,)` and `unexplained` `(rows, after)`, empty where the columns say it all; for heads
 * `backward` `(before, after)` and `backOffset` `(before,)`, empty where all features stay.
 */
export class FeatureMap {
  private constructor(
    readonly before: number,
    readonly after: number,
    private readonly columns: readonly number[],
    private readonly forward: Float64Array,
    private readonly offset: Float64Array,
    private readonly unexplained: Float64Array,
    private readonly backward: Float64Array,
    private readonly backOffset: Float64Array,
  ) {}

  /** Read back what Python wrote. Throws BundleError where that is no map from so many features to so many. */
  static from(tensors: Tensors, before: number, after: number): FeatureMap {
    const found = NAMES.map((name) => tensors.get(name));
    if (found.some((one) => !one)) {
      throw new BundleError('what carries knowledge over to this bundle is not all there');
    }
    const [columns, forward, offset, unexplained, backward, backOffset] = found as StoredTensor[];
    const mapped = forward!.data.length > 0;
    const back = backward!.data.length > 0;
    const is = (one: StoredTensor, ...shape: number[]): boolean =>
      one.dtype === 'float32' && String(one.shape) === String(shape) && one.data.every(Number.isFinite);
    const picked = columns!.dtype === 'int64' ? Array.from(columns!.data, Number) : [];
    const fits =
      picked.length === after &&
      picked.every((column) => column >= (mapped ? -1 : 0) && column < before) &&
      is(forward!, ...(mapped ? [after, before] : [0, 0])) &&
      is(offset!, mapped ? after : 0) &&
      is(unexplained!, unexplained!.shape[0] ?? 0, mapped ? after : (unexplained!.shape[1] ?? 0)) &&
      (mapped || unexplained!.data.length === 0) &&
      is(backward!, ...(back ? [before, after] : [0, 0])) &&
      is(backOffset!, back ? before : 0) &&
      (back || (!mapped && before === after));
    if (!fits) {
      throw new BundleError(`what carries knowledge over is no map of ${before} features to ${after}`);
    }
    const [f, o, u, b, c] = [forward!, offset!, unexplained!, backward!, backOffset!].map((one) =>
      Float64Array.from(one.data as Float32Array),
    );
    return new FeatureMap(before, after, picked, f!, o!, u!, b!, c!);
  }

  /** Whether each new feature is one of the old ones. */
  get exact(): boolean {
    return !this.forward.length;
  }

  /** Whether features are what they were, in their order. */
  get same(): boolean {
    return this.exact && !this.backward.length;
  }

  /**
   * What the same images of a class contribute in the new features. `random` draws how what is unexplained is mixed into the
   * factor: another one for each class, so that over many classes the errors of mixing cancel out.
   */
  contribution({ count, mean, factor }: Contribution, random: Random): Contribution {
    const { before, after, columns, forward } = this;
    const n = factor.length / before;
    if (this.exact) {
      const picked = (rows: Float32Array, many: number): Float32Array =>
        Float32Array.from({ length: many * after }, (_, at) => {
          return rows[Math.floor(at / after) * before + columns[at % after]!]!;
        });
      return new Contribution(count, picked(mean, 1), picked(factor, n));
    }
    const moved = timesTransposed(Float64Array.from(mean), forward, 1, after, before);
    const left = this.unexplained.length / after;
    const wanted = columnSquares(this.unexplained, after).map((value) => count * value);
    const mixed = withSquares(signed(this.unexplained, left, after, random), wanted, after);
    const rows = new Float64Array((n + MIXTURES) * after);
    rows.set(timesTransposed(Float64Array.from(factor), forward, n, after, before));
    rows.set(mixed, n * after);
    return new Contribution(
      count,
      Float32Array.from(moved, (value, j) => value + this.offset[j]!),
      Float32Array.from(shortened(rows, after, random)),
    );
  }

  /** `n` rows over the old features as they are over the new ones, without the offset. */
  through(rows: Float64Array, n: number): Float64Array {
    const { before, after, columns } = this;
    if (!this.exact) return timesTransposed(rows, this.forward, n, after, before);
    return Float64Array.from({ length: n * after }, (_, at) => {
      return rows[Math.floor(at / after) * before + columns[at % after]!]!;
    });
  }

  /** A point of the old features, in the new ones. */
  point(features: Float64Array): Float64Array {
    const found = this.through(features, 1);
    return this.exact ? found : found.map((value, j) => value + this.offset[j]!);
  }

  /** Weights `(n, before)` over the old features behind the way back: over the new ones. */
  behind(weight: Float64Array, n: number): Float64Array {
    return timesTransposed(
      weight,
      transposed(this.backward, this.before, this.after),
      n,
      this.after,
      this.before,
    );
  }

  /** Weights `(n, after)` over the new features as weights over the old ones. */
  backThrough(rows: Float64Array, n: number): Float64Array {
    const { before, after, columns } = this;
    if (!this.exact) {
      return timesTransposed(rows, transposed(this.forward, after, before), n, before, after);
    }
    const found = new Float64Array(n * before);
    rows.forEach((value, at) => {
      const place = Math.floor(at / after) * before + columns[at % after]!;
      found[place] = found[place]! + value;
    });
    return found;
  }

  /** The covariance of what the way to the new features leaves, `(after, after)`. */
  left(): Float64Array {
    const { after, unexplained } = this;
    const n = this.exact ? 0 : unexplained.length / after;
    const columns = n ? transposed(unexplained, n, after) : unexplained;
    return n ? timesTransposed(columns, columns, after, after, n) : new Float64Array(after * after);
  }

  /** A head over the old features for the new ones: behind the way back. */
  head({ weight, bias }: HeadArrays): HeadArrays {
    if (this.same) return { weight, bias };
    const { before, after, backward, backOffset } = this;
    const more = timesTransposed(Float64Array.from(weight), backOffset, bias.length, 1, before);
    const now = headBehind(weight, backward, before, after);
    return { weight: now, bias: bias.map((value, c) => value + more[c]!) };
  }
}

/** Fewer rows with nearly the same `rows^T rows`; each feature's own spread stays exact (contributions.ts). */
function shortened(rows: Float64Array, f: number, random: Random): Float64Array {
  const n = rows.length / f;
  if (n <= DIRECTIONS + MIXTURES) return rows;
  const { vectors } = eigenSymmetric(timesTransposed(rows, rows, n, n, f), n);
  const chosen = vectors.slice((n - DIRECTIONS) * n);
  const columns = transposed(rows, n, f);
  const largest = timesTransposed(chosen, columns, DIRECTIONS, f, n);
  const explained = timesTransposed(
    transposed(chosen, DIRECTIONS, n),
    transposed(largest, DIRECTIONS, f),
    n,
    f,
    DIRECTIONS,
  );
  const rest = rows.map((value, at) => value - explained[at]!);
  const [all, kept] = [columnSquares(rows, f), columnSquares(largest, f)];
  const wanted = all.map((value, j) => Math.max(value - kept[j]!, 0));
  const mixed = withSquares(signed(rest, n, f, random), wanted, f);
  const out = new Float64Array(largest.length + mixed.length);
  out.set(largest);
  out.set(mixed, largest.length);
  return out;
}

/** Mixtures `(MIXTURES, f)` of `rows` `(n, f)`, each with random signs. */
function signed(rows: Float64Array, n: number, f: number, random: Random): Float64Array {
  const signs = Float64Array.from({ length: MIXTURES * n }, () => (random.bits() >>> 31 ? 1 : -1));
  return timesTransposed(signs, transposed(rows, n, f), MIXTURES, f, n);
}

/** Rows with each feature scaled so that its squares sum up to `wanted`. */
function withSquares(rows: Float64Array, wanted: Float64Array, f: number): Float64Array {
  const found = columnSquares(rows, f);
  return rows.map((value, at) => {
    const j = at % f;
    return found[j]! > 0 ? value * Math.sqrt(wanted[j]! / found[j]!) : 0;
  });
}
