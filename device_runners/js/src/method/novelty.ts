/**
 * How far a task's images are from everything known, in the features' own units.
 *
 * The squared Mahalanobis distance to the nearest known class, with the covariance within classes, over its expectation
 * for the images that the statistics were made of: about 1 for images like those. After Lee et al., arXiv 1807.03888.
 */

import { NOVELTY } from '../contract/thresholds.js';
import { covarianceWithin, meansOf } from './covariance.js';
import type { ClassStatistics } from './heads.js';
import { rowProducts, timesTransposed } from './matrix.js';
import { SymmetricSystem } from './symmetric.js';

/** The mean distance of features `(n, f)` from the nearest known class; undefined where too little is known. */
export function novelty(known: ClassStatistics, features: Float32Array): number | undefined {
  const f = known.features;
  const n = features.length / f;
  if (known.counts.reduce((sum, count) => sum + count, 0) < NOVELTY.imagesPerFeature * f) return undefined;
  const within = covarianceWithin(known);
  const spread = Float64Array.from({ length: f }, (_, j) => within[j * f + j]!);
  if (Math.max(...spread) <= 0) return undefined;
  // Towards no correlation; what never varies (a unit that is always zero) gets a little of the mean.
  const least = (NOVELTY.leastVariance * spread.reduce((sum, one) => sum + one, 0)) / f;
  for (let at = 0; at < within.length; at++) within[at] = (1 - NOVELTY.shrinkage) * within[at]!;
  for (let j = 0; j < f; j++) within[j * f + j] = within[j * f + j]! + NOVELTY.shrinkage * spread[j]! + least;
  const means = meansOf(known);
  const count = means.length / f;
  const all = new Float64Array((n + count) * f);
  all.set(features);
  all.set(means, n * f);
  const white = new SymmetricSystem(within, f).whitenRows(all, n + count);
  const own = rowProducts(white, white, f);
  const across = timesTransposed(white.subarray(0, n * f), white.subarray(n * f), n, count, f);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    let nearest = Number.POSITIVE_INFINITY;
    for (let c = 0; c < count; c++) {
      nearest = Math.min(nearest, own[i]! + own[n + c]! - 2 * across[i * count + c]!);
    }
    sum += nearest;
  }
  return sum / n / f;
}
