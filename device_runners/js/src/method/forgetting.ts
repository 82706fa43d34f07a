/**
 * What a task costs the tasks before it, estimated without any of their images.
 *
 * Class statistics say where an old class's features were: around its mean, with the covariance that all classes share.
 * Made-up features of that kind are moved as the task's own images were seen to move, by the linear drift and by what
 * of single images it does not explain; the old heads are asked before, and the heads as they would be committed after.
 * docs/decisions/0016-max-forgetting.md has how well that agrees with the truth.
 */

import { FORGETTING } from '../contract/thresholds.js';
import { covarianceWithin, freedomOf, roundingOf, variancesWithin } from './covariance.js';
import type { Drift } from './drift.js';
import type { ClassStatistics } from './heads.js';
import type { HeadArrays } from './logistic.js';
import { argmax, scaled, timesTransposed, transposed } from './matrix.js';
import { choleskyFactor } from './symmetric.js';
import { thinCovariance, timesFactor } from './thin.js';

/** How much wider made-up features are than the statistics. */
export const WIDTH = FORGETTING.width;

/** Where random numbers come from: `data/random.ts`, or a test that replays another generator's. */
export interface Draws {
  permutation(count: number): ArrayLike<number>;
  normals(count: number): Float64Array;
  integer(least: number, most: number): number;
}

/** An old task as it is asked: means of its classes `(classes, f)`, and its head before and after. */
export interface OldTask {
  readonly means: Float64Array;
  readonly before: HeadArrays;
  readonly after: HeadArrays;
}

/**
 * By old task, the percentage points of accuracy that it is about to lose; below 0 where it gains.
 *
 * `statistics` are those before the task, `classes` and heads are by old task. Tasks of which a class has no statistics
 * are left out.
 */
export function estimatedForgetting(
  statistics: ClassStatistics,
  classes: ReadonlyMap<string, readonly string[]>,
  before: ReadonlyMap<string, HeadArrays>,
  after: ReadonlyMap<string, HeadArrays>,
  drift: Pick<Drift, 'forward' | 'unexplained'>,
  random: Draws,
): Map<string, number> {
  const lost = new Map<string, number>();
  let spread: Spread | undefined;
  for (const [task, names] of classes) {
    const means = meansOf(statistics, names);
    if (!means) continue;
    spread ??= new Spread(statistics);
    const old = { means, before: before.get(task)!, after: after.get(task)! };
    lost.set(task, pointsLost(old, spread, drift, random));
  }
  return lost;
}

/** Of scores, what standard normal numbers `(k,)` are multiplied with to be spread as they are: `draws` `(m, k)`. */
export interface Scores {
  readonly draws: Float64Array;
  readonly k: number;
}

/** How features are spread within classes, to be drawn as a head's scores see them. */
export class Spread {
  /** What is added to each feature's own variance. */
  private readonly more: Float64Array;
  private found: ((rows: Float64Array, m: number) => Float64Array) | undefined;

  constructor(private readonly statistics: ClassStatistics) {
    // Of fewer images than features, or a feature that never fires, their covariance is singular. A millionth more of
    // each feature's own variance is nothing to see.
    const floor = roundingOf(statistics);
    const own = variancesWithin(statistics);
    this.more = own.map((value) => FORGETTING.moreVariance * Math.max(value, 0) + floor);
  }

  /**
   * Of the scores that `weights` `(m, f)` give. Of few weights by the scores' own covariance: so many numbers are drawn, and
   * the features' has no factor made.
   */
  of(weights: Float64Array, m: number): Scores {
    const { more, statistics } = this;
    const { features: f, scatter, counts } = statistics;
    if (2 * m > f) return { draws: this.times(weights, m), k: f };
    const freedom = freedomOf(counts);
    const seen = timesTransposed(weights, scatter, m, f, f);
    for (let at = 0; at < seen.length; at++) {
      seen[at] = seen[at]! / freedom + weights[at]! * more[at % f]!;
    }
    const covariance = timesTransposed(seen, weights, m, m, f);
    const own = Float64Array.from({ length: m }, (_, c) => FORGETTING.moreOfScores * covariance[c * m + c]!);
    const factor = factorOf(covariance, own, m);
    return { draws: factor ?? diagonal(covariance, m), k: m };
  }

  /** `rows` `(m, f)` times Cholesky's factor of the features' covariance: `(m, f)`. */
  times(rows: Float64Array, m: number): Float64Array {
    this.found ??= this.ofFeatures();
    return this.found(rows, m);
  }

  private ofFeatures(): (rows: Float64Array, m: number) => Float64Array {
    const { more, statistics } = this;
    const f = statistics.features;
    const thin = thinCovariance(statistics);
    if (thin) return (rows, m) => timesFactor(thin, more, rows, m);
    const covariance = covarianceWithin(statistics);
    const factor = factorOf(covariance, more, f);
    const upper = transposed(factor ?? diagonal(covariance, f), f, f);
    return (rows, m) => timesTransposed(rows, upper, m, f, f);
  }
}

/**
 * Cholesky's lower factor of a `covariance` `(n, n)`, to whose diagonal `more` is added; ten times that where rounding has
 * left more to mend.
 */
function factorOf(covariance: Float64Array, more: Float64Array, n: number): Float64Array | undefined {
  for (let attempt = 0; attempt < FORGETTING.attempts; attempt++) {
    for (let j = 0; j < n; j++) covariance[j * n + j] = covariance[j * n + j]! + more[j]! * 10 ** attempt;
    const factor = choleskyFactor(covariance, n);
    if (factor) return factor;
  }
  return undefined;
}

/** The roots of its diagonal, with nothing beside it. */
function diagonal(covariance: Float64Array, n: number): Float64Array {
  return covariance.map((value, at) => (at % (n + 1) ? 0 : Math.sqrt(value)));
}

/**
 * Points of accuracy that one old task loses where its features, around their `means` by `spread`, move by `forward`
 * and by a row of `unexplained`.
 *
 * Only logits are looked at, so the matrices are multiplied with the heads first.
 */
export function pointsLost(
  { means, before, after }: OldTask,
  spread: Spread,
  { forward, unexplained }: Pick<Drift, 'forward' | 'unexplained'>,
  random: Draws,
): number {
  const classes = before.bias.length;
  const f = before.weight.length / classes;
  const movements = unexplained.length / f;
  const old = Float64Array.from(before.weight);
  const now = Float64Array.from(after.weight);
  // The head after, of the features before.
  const both = new Float64Array(2 * classes * f);
  both.set(old);
  both.set(forward.ahead(now, classes), classes * f);
  const biases = new Float32Array([...before.bias, ...after.bias]);
  const around = withBias(timesTransposed(means, both, classes, 2 * classes, f), biases);
  const { draws, k } = spread.of(both, 2 * classes);
  const wide = scaled(draws, WIDTH);
  const further = timesTransposed(unexplained, now, movements, classes, f);
  const order = random.permutation(classes);
  const [was, is] = [new Float64Array(classes), new Float64Array(classes)];
  let fewer = 0;
  for (let start = 0; start < FORGETTING.samples; start += FORGETTING.atOnce) {
    const normals = random.normals(FORGETTING.atOnce * k);
    const drawn = timesTransposed(normals, wide, FORGETTING.atOnce, 2 * classes, k);
    for (let i = 0; i < FORGETTING.atOnce; i++) {
      const own = order[(start + i) % classes]!;
      const movement = random.integer(0, movements - 1) * classes;
      for (let c = 0; c < classes; c++) {
        const [from, at] = [2 * own * classes + c, 2 * i * classes + c];
        was[c] = around[from]! + drawn[at]!;
        is[c] = around[from + classes]! + drawn[at + classes]! + further[movement + c]!;
      }
      fewer += Number(argmax(was) === own) - Number(argmax(is) === own);
    }
  }
  return (100 * fewer) / FORGETTING.samples;
}

/** Means `(names, f)`; undefined where a name, or any at all, has no samples. */
function meansOf(
  { features: f, classes, counts, sums }: ClassStatistics,
  names: readonly string[],
): Float64Array | undefined {
  const rows = names.map((name) => classes.indexOf(name));
  if (!rows.length || rows.some((row) => !(counts[row]! > 0))) return undefined;
  const means = new Float64Array(rows.length * f);
  rows.forEach((row, at) => {
    for (let j = 0; j < f; j++) means[at * f + j] = sums[row * f + j]! / counts[row]!;
  });
  return means;
}

/** Rows of logits, each with `bias` added. */
function withBias(logits: Float64Array, bias: Float32Array): Float64Array {
  return logits.map((value, at) => value + bias[at % bias.length]!);
}
