/**
 * Which images of a task are worth a step: those that the gradient of its loss comes from (docs/decisions/0039).
 *
 * What an image sends back begins with the gradient of its loss by the logits, whose norm bounds it in every layer up to the
 * same factor (Katharopoulos and Fleuret, arXiv 1803.00942). Images that a head already tells with certainty send next to
 * none, and cost as much as any other.
 */

import { type HeadArrays, logitsOf, softmaxRows } from './logistic.js';

/** Norm of the gradient of each image's cross-entropy by its logits, of features `(n, f)` and `labels` `(n,)`: `(n,)`. */
export function gradientNorms(features: Float32Array, labels: Int32Array, head: HeadArrays): Float64Array {
  const classes = head.bias.length;
  const residuals = logitsOf(features, head);
  softmaxRows(residuals, classes);
  return Float64Array.from(labels, (label, image) => {
    let sum = 0;
    for (let c = 0; c < classes; c++) {
      sum += (residuals[image * classes + c]! - Number(c === label)) ** 2;
    }
    return Math.sqrt(sum);
  });
}

/**
 * The fewest images whose `norms` `(n,)`, 0 or more, come to `share` of all together, ascending. They are at least `least`,
 * or all. `share` is above 0 and at most 1, which is all images. Of equal ones the lower index wins.
 */
export function carrying(norms: Float64Array, share: number, least = 1): number[] {
  const order = Array.from(norms.keys());
  if (share >= 1 || !order.length) return order;
  order.sort((a, b) => norms[b]! - norms[a]! || a - b);
  const sums = new Float64Array(order.length);
  let sum = 0;
  for (const [place, image] of order.entries()) {
    sum += norms[image]!;
    sums[place] = sum;
  }
  const count = 1 + sums.findIndex((one) => one >= share * sum);
  return order.slice(0, Math.max(count, least)).sort((a, b) => a - b);
}
