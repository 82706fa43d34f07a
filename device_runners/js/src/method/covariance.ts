/** What class statistics say of where features were: around their classes' means, with one covariance. */

import { COVARIANCE } from '../contract/thresholds.js';
import { scaled, timesTransposed, trace, transposed } from './matrix.js';

const ROUNDING = COVARIANCE.roundings * Number.EPSILON;
const TINY = 2.2250738585072014e-308;

/** Of class statistics: features `f`, counts `(classes,)`, sums `(classes, f)`, and the `scatter` `(f, f)` around the means. */
export interface ClassSums {
  readonly features: number;
  readonly counts: Float64Array;
  readonly sums: Float64Array;
  readonly scatter: Float64Array;
}

/** Means `(seen, f)` of the classes that have samples, in the order of the statistics. */
export function meansOf({ features: f, counts, sums }: Omit<ClassSums, 'scatter'>): Float64Array {
  const seen = Array.from(counts.keys()).filter((c) => counts[c]! > 0);
  const out = new Float64Array(seen.length * f);
  seen.forEach((c, row) => {
    for (let j = 0; j < f; j++) out[row * f + j] = sums[c * f + j]! / counts[c]!;
  });
  return out;
}

/** `sum n_c mu_c mu_c^T`, `(f, f)`: what the classes' means contribute to the sum of `x x^T`. */
export function betweenClasses(sums: Float64Array, counts: Float64Array, f: number): Float64Array {
  const roots = sums.map((value, at) => value / Math.sqrt(counts[Math.floor(at / f)]! || 1));
  const columns = transposed(roots, counts.length, f);
  return timesTransposed(columns, columns, f, f, counts.length);
}

/** Degrees of freedom within classes: samples less classes that have some, at least 1. */
export function freedomOf(counts: Float64Array): number {
  const seen = counts.filter((count) => count > 0).length;
  return Math.max(counts.reduce((sum, count) => sum + count, 0) - seen, 1);
}

/** A `share` of the covariance within classes, `(f, f)`, a new one: the scatter over the degrees of freedom. */
export function covarianceWithin(
  { counts, scatter }: Pick<ClassSums, 'counts' | 'scatter'>,
  share = 1,
): Float64Array {
  return scaled(scatter, share / freedomOf(counts));
}

/** Its diagonal, `(f,)`. */
export function variancesWithin({ features: f, counts, scatter }: Omit<ClassSums, 'sums'>): Float64Array {
  const freedom = freedomOf(counts);
  return Float64Array.from({ length: f }, (_, j) => scatter[j * f + j]! / freedom);
}

/** What rounding of these sums may make a variance off by; above 0, so that it makes a matrix regular. */
export function roundingOf({ features: f, counts, sums, scatter }: ClassSums): number {
  // The sum of all squares: around the means, and of these.
  let total = trace(scatter, f);
  for (let at = 0; at < sums.length; at++) total += sums[at]! ** 2 / (counts[Math.floor(at / f)]! || 1);
  return Math.max((ROUNDING * total) / freedomOf(counts), TINY);
}
