/** What class statistics say of where features were: around their classes' means, with one covariance. */

import { COVARIANCE } from '../contract/thresholds.js';
import { timesTransposed, trace, transposed } from './matrix.js';

const ROUNDING = COVARIANCE.roundings * Number.EPSILON;
const TINY = 2.2250738585072014e-308;

/** Of class statistics, the sums: features `f`, counts `(classes,)`, sums `(classes, f)`, gram `(f, f)`. */
export interface ClassSums {
  readonly features: number;
  readonly counts: Float64Array;
  readonly sums: Float64Array;
  readonly gram: Float64Array;
}

/** Means `(seen, f)` of the classes that have samples, in the order of the statistics. */
export function meansOf({ features: f, counts, sums }: Omit<ClassSums, 'gram'>): Float64Array {
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

/** The covariance within classes, `(f, f)`: `(gram - sum n_c mu_c mu_c^T)` over the degrees of freedom. */
export function covarianceWithin({ features: f, counts, sums, gram }: ClassSums): Float64Array {
  const between = betweenClasses(sums, counts, f);
  const freedom = freedomOf(counts);
  return gram.map((value, at) => (value - between[at]!) / freedom);
}

/** What rounding of these sums may make a variance off by; above 0, so that it makes a matrix regular. */
export function roundingOf({ features: f, counts, gram }: Omit<ClassSums, 'sums'>): number {
  return Math.max((ROUNDING * trace(gram, f)) / freedomOf(counts), TINY);
}
