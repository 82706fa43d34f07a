/**
 * Does training pay? Images that the steps have not seen, judged on the network as it was and on the one in training.
 *
 * A discriminant made of the images that were trained on is asked for those that were not: once on the features as they
 * were, once on those that training has made of both. Of each held-out image the two log-likelihoods are compared, so
 * that what is hard about it cancels. docs/decisions/0035-train.md.
 */

import { GAIN } from '../contract/thresholds.js';
import { temperature } from './calibration.js';
import { type ClassStatistics, ldaHead } from './heads.js';
import { argmax } from './matrix.js';

/**
 * What `images` held out say of training.
 *
 * `heads` and `centers` are the shares of them, 0 to 1, that are named right on the network as it was and on the one in
 * training. `likelihood` is the mean gain in log-likelihood, in nats, and `sure` how many standard errors it is above 0.
 * `lost` is how many percentage points of accuracy the old task that loses most has lost by then. All of it is of the share
 * `done` of training: of the learning rates, summed over all steps.
 */
export interface Gain {
  readonly images: number;
  readonly heads: number;
  readonly centers: number;
  readonly likelihood: number;
  readonly sure: number;
  readonly lost: number;
  readonly done: number;
}

/** Of a task of which nothing could be held out. */
export function untold(): Gain {
  return { images: 0, heads: 0, centers: 0, likelihood: 0, sure: 0, lost: 0, done: 1 };
}

/** Whether there is a gain that is no chance, and is worth something by the end; whatever it costs. */
export function isClear({ sure, likelihood, done }: Gain): boolean {
  return sure >= GAIN.sure && likelihood / done >= GAIN.worth;
}

/** Whether it is clear, and no old task is about to lose more percentage points than that. */
export function pays(gain: Gain, maxForgetting: number): boolean {
  return isClear(gain) && gain.lost / gain.done <= maxForgetting;
}

/** Of held-out images, the log-likelihoods of their classes, and how many are named right. */
export interface Judged {
  readonly logLikelihoods: Float64Array;
  readonly right: number;
}

/**
 * By the discriminant of `statistics`, features `(n, f)` and labels `(n,)` into `classes`.
 *
 * Images of classes that the statistics have none of are left out. The discriminant is calibrated on what it judges: one
 * number, as well for one network as for the other.
 */
export function judgedBy(
  statistics: ClassStatistics,
  features: Float32Array,
  labels: ArrayLike<number>,
  classes: readonly string[],
  priorImages: number,
): Judged {
  const { features: f, counts } = statistics;
  const has = (name: string): boolean => (counts[statistics.classes.indexOf(name)] ?? 0) > 0;
  const names = classes.filter(has);
  const kept = Array.from(labels, (_, i) => i).filter((i) => has(classes[labels[i]!]!));
  if (names.length < 2 || !kept.length) return { logLikelihoods: new Float64Array(0), right: 0 };
  const own = kept.map((i) => names.indexOf(classes[labels[i]!]!));
  const { weight, bias } = ldaHead(statistics, priorImages, names);
  const columns = names.length;
  const logits = new Float64Array(kept.length * columns);
  kept.forEach((i, row) => {
    for (let c = 0; c < columns; c++) {
      let sum = bias[c]!;
      for (let j = 0; j < f; j++) sum += features[i * f + j]! * weight[c * f + j]!;
      logits[row * columns + c] = sum;
    }
  });
  const at = temperature(logits, columns, own);
  let right = 0;
  const logLikelihoods = Float64Array.from(own, (label, row) => {
    const scores = logits.subarray(row * columns, (row + 1) * columns);
    if (argmax(scores) === label) right += 1;
    const highest = Math.max(...scores);
    const sum = scores.reduce((total, logit) => total + Math.exp((logit - highest) / at), 0);
    return (scores[label]! - highest) / at - Math.log(sum);
  });
  return { logLikelihoods, right };
}

/** The gain from `before` to `after`, of the same images, by the share `done` of training. */
export function gainOf(before: Judged, after: Judged, done = 1): Gain {
  const images = before.logLikelihoods.length;
  if (!images) return untold();
  const more = after.logLikelihoods.map((value, i) => value - before.logLikelihoods[i]!);
  const likelihood = more.reduce((sum, value) => sum + value, 0) / images;
  const squares = more.reduce((sum, value) => sum + (value - likelihood) ** 2, 0);
  const error = images > 1 ? Math.sqrt(squares / (images - 1) / images) : 0;
  const sure = error > 0 ? likelihood / error : 0;
  return {
    images,
    heads: before.right / images,
    centers: after.right / images,
    likelihood,
    sure,
    lost: 0,
    done,
  };
}
