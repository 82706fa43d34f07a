/** What class statistics say of where features were: around their classes' means, with one covariance. */

import type { ClassStatistics } from './heads.js';
import { timesTransposed, transposed } from './matrix.js';

/** Means `(seen, f)` of the classes that have samples, in the order of the statistics. */
export function meansOf({ features: f, counts, sums }: ClassStatistics): Float64Array {
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

/** The covariance within classes, `(f, f)`: `(gram - sum n_c mu_c mu_c^T) / (n - C)`, divided by 1 at least. */
export function covarianceWithin({ features: f, counts, sums, gram }: ClassStatistics): Float64Array {
  const between = betweenClasses(sums, counts, f);
  const seen = counts.filter((count) => count > 0).length;
  const freedom = Math.max(counts.reduce((sum, count) => sum + count, 0) - seen, 1);
  return gram.map((value, at) => (value - between[at]!) / freedom);
}
