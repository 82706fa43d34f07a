/** What class statistics say of where features were: around their classes' means, with one covariance. */

import type { ClassStatistics } from './heads.js';
import { timesTransposed, transposed } from './matrix.js';

/** Means `(seen, f)` of the classes that have samples, in the order of the statistics. */
export function meansOf(statistics: ClassStatistics): Float64Array {
  return divided(statistics, (count) => count);
}

/** The covariance within classes, `(f, f)`: `(gram - sum n_c mu_c mu_c^T) / (n - C)`, divided by 1 at least. */
export function covarianceWithin(statistics: ClassStatistics): Float64Array {
  const { features: f, counts, gram } = statistics;
  const roots = divided(statistics, Math.sqrt);
  const seen = roots.length / f;
  const columns = transposed(roots, seen, f);
  const between = timesTransposed(columns, columns, f, f, seen);
  const freedom = Math.max(counts.reduce((sum, count) => sum + count, 0) - seen, 1);
  return gram.map((value, at) => (value - between[at]!) / freedom);
}

/** Sums of the classes that have samples, each over what `by` makes of its count. */
function divided(
  { features: f, counts, sums }: ClassStatistics,
  by: (count: number) => number,
): Float64Array {
  const seen = Array.from(counts.keys()).filter((c) => counts[c]! > 0);
  const out = new Float64Array(seen.length * f);
  seen.forEach((c, row) => {
    const divisor = by(counts[c]!);
    for (let j = 0; j < f; j++) out[row * f + j] = sums[c * f + j]! / divisor;
  });
  return out;
}
