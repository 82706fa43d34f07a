/**
 * How sure a discriminant may be: the temperature that its scores are divided by before they become probabilities.
 *
 * Linear discriminant analysis takes features for Gaussian. They are not, and the more of them there are the surer it is of
 * itself. One number mends that (Guo et al., ICML 2017, arXiv 1706.04599), and no decision changes.
 * docs/decisions/0024-probabilities.md.
 */

import { CALIBRATION } from '../contract/thresholds.js';
import { ClassStatistics, ldaHead } from './heads.js';
import { rowsAt } from './matrix.js';

// The logit of a class that a fold's discriminant does not know.
const NEVER = -1e12;

/**
 * `statistics` with the temperature that suits features `(n, f)` and labels `(n,)` into `classes`, if they tell one.
 *
 * Cross-validated: sorted by class, every fifth image is judged by a discriminant of the others, for on the images that
 * it was made from it is right too often. Where that leaves fewer than two classes, or nothing to judge, the temperature
 * stays unknown.
 */
export function calibrated(
  statistics: ClassStatistics,
  features: Float32Array,
  labels: ArrayLike<number>,
  classes: readonly string[],
  priorPictures: number,
): ClassStatistics {
  const f = statistics.features;
  const columns = classes.length;
  const order = Array.from(labels, (_, i) => i).sort((a, b) => labels[a]! - labels[b]! || a - b);
  const total = statisticsOf(order);
  const logits: number[] = [];
  const answers: number[] = [];
  for (let fold = 0; fold < CALIBRATION.folds; fold++) {
    const part = order.filter((_, place) => place % CALIBRATION.folds === fold);
    const others = without(total, statisticsOf(part));
    const present = others.classes.map((name) => classes.indexOf(name));
    const judged = part.filter((i) => present.includes(labels[i]!));
    if (present.length < 2 || !judged.length) continue;
    const { weight, bias } = ldaHead(others, priorPictures);
    for (const i of judged) {
      const scores = new Array<number>(columns).fill(NEVER);
      present.forEach((label, c) => {
        let sum = bias[c]!;
        for (let j = 0; j < f; j++) sum += features[i * f + j]! * weight[c * f + j]!;
        scores[label] = sum;
      });
      logits.push(...scores);
      answers.push(labels[i]!);
    }
  }
  if (!answers.length) return statistics;
  const { gram, sums, counts } = statistics;
  const found = temperature(Float64Array.from(logits), columns, answers);
  return new ClassStatistics(f, statistics.classes, gram, sums, counts, found);

  function statisticsOf(chosen: readonly number[]): ClassStatistics {
    const own = chosen.map((i) => labels[i]!);
    return ClassStatistics.empty(f).add(rowsAt(features, chosen, f), own, classes);
  }
}

/** The statistics of what is in `total` and not in `part`, of the classes that are left. */
function without(total: ClassStatistics, part: ClassStatistics): ClassStatistics {
  const f = total.features;
  const less = (all: Float64Array, some: Float64Array): Float64Array =>
    all.map((value, at) => value - some[at]!);
  const counts = less(total.counts, part.counts);
  const sums = less(total.sums, part.sums);
  const left = total.classes.flatMap((_, c) => (counts[c]! > 0 ? [c] : []));
  const rows = new Float64Array(left.length * f);
  for (const [at, c] of left.entries()) rows.set(sums.subarray(c * f, (c + 1) * f), at * f);
  return new ClassStatistics(
    f,
    left.map((c) => total.classes[c]!),
    less(total.gram, part.gram),
    rows,
    Float64Array.from(left, (c) => counts[c]!),
  );
}

/**
 * The T from CALIBRATION.lowest to CALIBRATION.highest with the least cross-entropy of `softmax(logits / T)`; logits `(n, columns)`.
 *
 * Its derivative by `1 / T` is the mean expected logit less the mean logit of the labels, and rises with `1 / T`.
 */
export function temperature(logits: Float64Array, columns: number, labels: ArrayLike<number>): number {
  const n = labels.length;
  const surplus = (at: number): number => {
    let total = 0;
    for (let i = 0; i < n; i++) {
      const row = logits.subarray(i * columns, (i + 1) * columns);
      const highest = Math.max(...row);
      let [sum, weighted] = [0, 0];
      for (const logit of row) {
        const share = Math.exp((logit - highest) / at);
        sum += share;
        weighted += share * (logit - highest);
      }
      total += weighted / sum - (row[labels[i]!]! - highest);
    }
    return total / n;
  };
  let [low, high]: [number, number] = [CALIBRATION.lowest, CALIBRATION.highest];
  if (surplus(low) <= 0) return low;
  if (surplus(high) >= 0) return high;
  for (let halving = 0; halving < CALIBRATION.halvings; halving++) {
    const middle = Math.sqrt(low * high);
    if (surplus(middle) > 0) low = middle;
    else high = middle;
  }
  return Math.sqrt(low * high);
}
