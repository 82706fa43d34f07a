/**
 * What a task costs the tasks before it, estimated without any of their images.
 *
 * Class statistics say where an old class's features were: around its mean, with the covariance that all classes share.
 * Made-up features of that kind are moved as the task's own images were seen to move, by the linear drift and by what
 * of single images it does not explain; the old heads are asked before, and the heads as they would be committed after.
 * docs/decisions/0016-max-forgetting.md has how well that agrees with the truth.
 */

import { FORGETTING } from '../contract/thresholds.js';
import { covarianceWithin, roundingOf, variancesWithin } from './covariance.js';
import type { Drift } from './drift.js';
import type { ClassStatistics } from './heads.js';
import type { HeadArrays } from './logistic.js';
import { argmax, timesTransposed, transposed } from './matrix.js';
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
    spread ??= spreadOf(statistics);
    const old = { means, before: before.get(task)!, after: after.get(task)! };
    lost.set(task, pointsLost(old, spread, drift, random));
  }
  return lost;
}

/** What makes the covariance within classes of standard normal numbers: a lower triangular matrix `(f, f)`. */
export interface Spread {
  /** `rows` `(m, f)` times it: `(m, f)`. */
  times(rows: Float64Array, m: number): Float64Array;
}

/** Cholesky's factor of the covariance within classes. */
export function spreadOf(statistics: ClassStatistics): Spread {
  const f = statistics.features;
  const own = variancesWithin(statistics);
  // Of fewer images than features, or a feature that never fires, it is singular. A millionth more of each feature's
  // own variance is nothing to see; where rounding has left more to mend, ten times that.
  const floor = roundingOf(statistics);
  const more = own.map((value) => FORGETTING.moreVariance * Math.max(value, 0) + floor);
  const thin = thinCovariance(statistics);
  if (thin) return { times: (rows, m) => timesFactor(thin, more, rows, m) };
  const covariance = covarianceWithin(statistics);
  for (let attempt = 0; attempt < FORGETTING.attempts; attempt++) {
    for (let j = 0; j < f; j++) covariance[j * f + j] = covariance[j * f + j]! + more[j]! * 10 ** attempt;
    const factor = choleskyFactor(covariance, f);
    if (!factor) continue;
    const upper = transposed(factor, f, f);
    return { times: (rows, m) => timesTransposed(rows, upper, m, f, f) };
  }
  const deviation = own.map((_, j) => Math.sqrt(covariance[j * f + j]!));
  return { times: (rows) => rows.map((value, at) => value * deviation[at % f]!) };
}

/**
 * Points of accuracy that one old task loses where its features, around their `means` by `spread`, move by `forward`
 * and by a row of `unexplained`.
 *
 * Only logits are looked at, so the matrices are multiplied with the heads first: a made-up image then costs as much as
 * its classes have features, not their square.
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
  const ahead = forward.ahead(now, classes);
  const around = [
    { head: old, bias: before.bias },
    { head: ahead, bias: after.bias },
  ].map(({ head, bias }) => withBias(timesTransposed(means, head, classes, classes, f), bias));
  // Both heads are asked of the same features.
  const both = new Float64Array(2 * classes * f);
  both.set(old);
  both.set(ahead, old.length);
  const wide = spread.times(both, 2 * classes).map((value) => WIDTH * value);
  const further = timesTransposed(unexplained, now, movements, classes, f);
  const order = random.permutation(classes);
  const [was, is] = [new Float64Array(classes), new Float64Array(classes)];
  let fewer = 0;
  for (let start = 0; start < FORGETTING.samples; start += FORGETTING.atOnce) {
    const normals = random.normals(FORGETTING.atOnce * f);
    const moved = timesTransposed(normals, wide, FORGETTING.atOnce, 2 * classes, f);
    for (let i = 0; i < FORGETTING.atOnce; i++) {
      const own = order[(start + i) % classes]!;
      const movement = random.integer(0, movements - 1) * classes;
      for (let c = 0; c < classes; c++) {
        const [here, there] = [2 * i * classes + c, (2 * i + 1) * classes + c];
        was[c] = around[0]![own * classes + c]! + moved[here]!;
        is[c] = around[1]![own * classes + c]! + moved[there]! + further[movement + c]!;
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
