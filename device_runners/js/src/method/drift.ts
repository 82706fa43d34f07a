/**
 * Following the features as they drift, so that what was learned on the old ones stays valid.
 *
 * The drift is visible on the task's own images, seen by the network before and after, and to first order it is
 * linear: estimated there, it is undone for the old heads and applied to the old class statistics. After learnable drift
 * compensation (Gomez-Villa et al., arXiv 2407.08536), in closed form.
 */

import { DRIFT } from '../contract/thresholds.js';
import { covarianceWithin } from './covariance.js';
import { ClassStatistics } from './heads.js';
import { type LinearMap, ThinMap, WholeMap } from './linearMap.js';
import {
  add,
  difference,
  eigenSymmetric,
  rowProducts,
  timesTransposed,
  trace,
  transposed,
} from './matrix.js';
import { SymmetricSystem, solvedRows } from './symmetric.js';

/** Features `(n, f)` of the same images, before and after; or the other way round. */
type Pair = readonly [Float32Array, Float32Array];

/** Both maps, from the features of the same images before and after; what is added is kept, and not copied. */
export class DriftEstimate {
  private readonly pairs: Pair[] = [];

  constructor(private readonly features: number) {}

  /** One batch: `before` and `after` `(n, f)`. */
  add(before: Float32Array, after: Float32Array): void {
    this.pairs.push([before, after]);
  }

  /** Least squares with `ridge * trace / f` on the distance from the identity. */
  fit(ridge = DRIFT.ridge): Drift {
    const turned = this.pairs.map(([before, after]): Pair => [after, before]);
    const f = this.features;
    const there = towardsIdentity(this.pairs, f, ridge);
    const unexplained = there.leftByOthers();
    return new Drift(f, there.map, towardsIdentity(turned, f, ridge).map, unexplained);
  }
}

/**
 * `after = before @ forward.T` and `before = after @ backward.T`, to first order.
 *
 * `unexplained` `(n, f)` is what a linear map leaves of the movement of the first few hundred images, each seen by the
 * map of all others: of fewer images than features, a map that has seen them explains almost everything.
 */
export class Drift {
  constructor(
    private readonly features: number,
    readonly forward: LinearMap,
    readonly backward: LinearMap,
    readonly unexplained: Float64Array,
  ) {}

  /** A head's weight `(n, f)` for the features after, giving the logits that it gave before. */
  head(weight: Float32Array): Float32Array {
    const rows = new Float64Array(weight);
    return new Float32Array(this.backward.ahead(rows, weight.length / this.features));
  }

  /** Class statistics as the features after would have given them; counts stay. */
  statistics(old: ClassStatistics): ClassStatistics {
    const scatter = this.forward.around(old.scatter);
    const sums = this.forward.led(old.sums, old.classes.length);
    return new ClassStatistics(this.features, old.classes, { scatter }, sums, old.counts, old.temperature);
  }
}

/**
 * What is known of all classes together, as the untouched network had it: their means `(classes, f)`, and the eigenvalues
 * `(f,)`, ascending, and eigenvectors, as rows `(f, f)`, of the covariance that they share.
 */
export interface LedBack {
  readonly means: Float64Array;
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

/** Class statistics from in front of `drift`: sums x with drift x = sum, and the scatter from both sides. */
export function beforeDrift(totals: ClassStatistics, drift: Float64Array | undefined): ClassStatistics {
  if (!drift) return totals;
  const { features: f, classes, counts } = totals;
  const back = (rows: Float64Array, n: number): Float64Array => solvedRows(drift, rows, n, f);
  const scatter = back(transposed(back(totals.scatter, f), f, f), f);
  const sums = back(totals.sums, classes.length);
  return new ClassStatistics(f, classes, { scatter }, sums, counts, totals.temperature);
}

/** Of statistics of the untouched network. */
export function ledBack(totals: ClassStatistics): LedBack {
  const { features: f, sums, counts } = totals;
  const means = sums.map((value, at) => value / (counts[Math.floor(at / f)]! || 1));
  return { means, ...eigenSymmetric(covarianceWithin(totals), f) };
}

interface Fitted {
  readonly map: LinearMap;
  /** What the map that all *other* pairs give leaves of the first targets, `(n, f)`. */
  readonly leftByOthers: () => Float64Array;
}

/** `M = argmin sum |target - M source|^2 + a |M - I|^2` over pairs of sources and targets. */
function towardsIdentity(pairs: readonly Pair[], f: number, ridge: number): Fitted {
  const n = pairs.reduce((sum, [source]) => sum + source.length / f, 0);
  return n < f ? byImages(pairs, f, n, ridge) : byFeatures(pairs, f, ridge);
}

/**
 * Of `n` images, fewer than features. With sources `X` and differences `D`, both `(n, f)`, `M - I` is
 * `D^T X (X^T X + a)^-1 = D^T (X X^T + a)^-1 X`: a system of `n` in the place of `f`.
 */
function byImages(pairs: readonly Pair[], f: number, n: number, ridge: number): Fitted {
  const x = new Float64Array(n * f);
  const d = new Float64Array(n * f);
  let at = 0;
  for (const [source, target] of pairs) {
    x.set(source, at);
    for (let i = 0; i < source.length; i++) d[at + i] = target[i]! - source[i]!;
    at += source.length;
  }
  const kernel = timesTransposed(x, x, n, n, f);
  const pull = (ridge * trace(kernel, n)) / f || 1;
  for (let i = 0; i < n; i++) kernel[i * n + i] = kernel[i * n + i]! + pull;
  const system = new SymmetricSystem(kernel, n);
  let made: Float64Array | undefined;
  // Whoever leads a few rows only needs no more of it than these.
  const left = {
    get matrix(): Float64Array {
      made ??= system.solveRows(transposed(d, n, f), f);
      return made;
    },
    byRows: (rows: Float64Array, m: number): Float64Array =>
      system.solveRows(timesTransposed(rows, d, m, n, f), m),
  };
  // The map leaves `a (X X^T + a)^-1 D`, and that of all others `1 - h` times as much, where `1 - h` is `a` times the inverse's
  // own number: `a` is in both.
  const leftByOthers = (): Float64Array => {
    const rest = system.inverseDiagonal();
    const rows = transposed(left.matrix, f, n).subarray(0, DRIFT.movements * f);
    for (let row = 0; row * f < rows.length; row++) {
      for (let at = row * f; at < (row + 1) * f; at++) rows[at] = rows[at]! / rest[row]!;
    }
    return rows;
  };
  return { map: new ThinMap(left, x, n, f), leftByOthers };
}

/** Of as many images as features or more: by the normal equations. */
function byFeatures(pairs: readonly Pair[], f: number, ridge: number): Fitted {
  const energy = new Float64Array(f * f);
  const moved = new Float64Array(f * f);
  const product = new Float64Array(f * f);
  for (const [source, target] of pairs) {
    const n = source.length / f;
    const columns = transposed(source, n, f);
    const movement = transposed(
      Float64Array.from(target, (value, at) => value - source[at]!),
      n,
      f,
    );
    add(energy, timesTransposed(columns, columns, f, f, n, product));
    add(moved, timesTransposed(movement, columns, f, f, n, product));
  }
  const pull = (ridge * trace(energy, f)) / f || 1;
  for (let i = 0; i < f; i++) energy[i * f + i] = energy[i * f + i]! + pull;
  const system = new SymmetricSystem(energy, f);
  const map = new WholeMap(withIdentity(system.solveRows(moved, f), f), f);
  const leftByOthers = (): Float64Array => {
    const [sources, targets] = ([0, 1] as const).map((side) => first(pairs, side, DRIFT.movements * f));
    const n = sources!.length / f;
    // By the matrix inversion lemma, as the residuals of ridge regression left out one by one.
    const leverage = rowProducts(sources!, system.solveRows(sources!, n), f);
    const left = difference(targets!, map.led(sources!, n));
    return left.map((value, place) => value / (1 - leverage[Math.floor(place / f)]!));
  };
  return { map, leftByOthers };
}

/** Exactly no drift leaves exactly the identity: what is added to it is then zero. */
function withIdentity(map: Float64Array, f: number): Float64Array {
  for (let i = 0; i < f; i++) map[i * f + i] = map[i * f + i]! + 1;
  return map;
}

/** The first `count` numbers of the pairs' sources (0) or targets (1), or as many as there are. */
function first(pairs: readonly Pair[], side: 0 | 1, count: number): Float64Array {
  const there = pairs.reduce((sum, pair) => sum + pair[side].length, 0);
  const taken = new Float64Array(Math.min(count, there));
  let at = 0;
  for (const { [side]: part } of pairs) {
    const fits = part.subarray(0, taken.length - at);
    taken.set(fits, at);
    at += fits.length;
  }
  return taken;
}
