/** A task's own head, fitted exactly: multinomial logistic regression on features (docs/decisions/0005-heads.md). */

import { HEAD } from '../contract/thresholds.js';
import { add, difference, dot, norm, timesTransposed, transposed } from './matrix.js';

/** `logits = features @ weight.T + bias`: weight `(classes, f)`, bias `(classes,)`. */
export interface HeadArrays {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/**
 * Minimise mean cross-entropy + `0.01 / 2 * |W|^2` over standardised features `(n, f)`, `labels` `(n,)` into `classes`.
 * The bias is not decayed.
 *
 * Limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", algorithm 7.4). Its first step is the best one along
 * the gradient under the bound of Bohning ("Multinomial logistic regression algorithm", 1992); others are halved until they
 * fulfil the approximate Wolfe condition of Hager & Zhang (SIAM J. Optim. 16, 2005), which needs gradients only.
 */
export function logisticHead(
  features: Float32Array,
  f: number,
  labels: ArrayLike<number>,
  classes: number,
): HeadArrays {
  const { x, mean, scale } = standardized(features, labels.length, f);
  const fitted = multinomial(x, f, labels, classes, HEAD.weightDecay);
  return onRawFeatures(fitted, classes, mean, (weight) => weight.map((value, at) => value / scale[at % f]!));
}

/** A covariance, decomposed; all is `(m, f)`. See `SymmetricSystem`. */
export interface Whitening {
  whitenRows(rows: Float64Array, m: number): Float64Array;
  unwhitenRows(rows: Float64Array, m: number): Float64Array;
}

/**
 * A mean of two heads over the same classes: `head`, of `logisticHead`, and one in the metric of what is known: logistic
 * regression on features `(n, f)` under which the covariance within known classes, `shrunk`, is the identity.
 *
 * A decay of single features knows nothing of how they go together, which the images of one task are too few to tell; the
 * discriminant knows, and hardly looks at where the task's classes meet. The logits' mean errs less than either
 * (docs/decisions/0005). `labels` `(n,)` into the head's classes.
 */
export function knownHead(
  head: HeadArrays,
  features: Float32Array,
  labels: ArrayLike<number>,
  { system }: { readonly system: Whitening },
): HeadArrays {
  const classes = head.bias.length;
  const n = labels.length;
  const f = features.length / n;
  const mean = meanOf(features, n, f);
  const rows = new Float64Array(features);
  for (let i = 0; i < n; i++) for (let j = 0; j < f; j++) rows[i * f + j] = rows[i * f + j]! - mean[j]!;
  const white = system.whitenRows(rows, n);
  const x = new Float64Array(n * (f + 1));
  for (let i = 0; i < n; i++) {
    x.set(white.subarray(i * f, (i + 1) * f), i * (f + 1));
    x[i * (f + 1) + f] = 1;
  }
  const fitted = multinomial(x, f, labels, classes, HEAD.knownDecay);
  const known = onRawFeatures(fitted, classes, mean, (weight) => system.unwhitenRows(weight, classes));
  const mixed = (own: Float32Array, other: Float32Array): Float32Array =>
    own.map((value, at) => value + HEAD.knownShare * (other[at]! - value));
  return { weight: mixed(head.weight, known.weight), bias: mixed(head.bias, known.bias) };
}

/** The weights `(classes, f + 1)` of features `x` `(n, f + 1)` that end with ones, whose weights are not decayed. */
function multinomial(
  x: Float64Array,
  f: number,
  labels: ArrayLike<number>,
  classes: number,
  weightDecay: number,
): Float64Array {
  const n = labels.length;
  const p = f + 1;
  const columns = transposed(x, n, p);
  const decay = (at: number): number => (at % p === f ? 0 : weightDecay);
  const gradient = (point: Float64Array): Float64Array => {
    const logits = timesTransposed(x, point, n, classes, p);
    softmaxRows(logits, classes);
    for (let i = 0; i < n; i++) logits[i * classes + labels[i]!] = logits[i * classes + labels[i]!]! - 1;
    const slope = timesTransposed(transposed(logits, n, classes), columns, classes, p, n);
    return slope.map((value, at) => value / n + decay(at) * point[at]!);
  };
  let weight: Float64Array = new Float64Array(classes * p);
  let slope = gradient(weight);
  const along = timesTransposed(x, slope, n, classes, p);
  const bound =
    (0.5 * dot(along, along)) / n +
    dot(
      slope,
      slope.map((value, at) => value * decay(at)),
    );
  const least = HEAD.tolerance * norm(slope);
  const approximation = new InverseHessian(bound > 0 ? dot(slope, slope) / bound : 0);
  let left = HEAD.iterations - 1;
  while (left > 0 && norm(slope) > least) {
    const direction = approximation.times(slope);
    const descent = dot(slope, direction);
    let moved: Float64Array;
    let following: Float64Array;
    for (let step = 1; ; step *= 0.5) {
      left--;
      moved = weight.map((value, at) => value - step * direction[at]!);
      following = gradient(moved);
      if (-dot(following, direction) <= HEAD.overshoot * descent || left <= 0) break;
    }
    approximation.learn(difference(moved, weight), difference(following, slope));
    weight = moved;
    slope = following;
  }
  return weight;
}

/** The inverse of a Hessian, as the last steps and the changes of the gradient along them tell. */
class InverseHessian {
  readonly #pairs: { step: Float64Array; change: Float64Array; inverse: number }[] = [];
  #scale: number;

  constructor(scale: number) {
    this.#scale = scale;
  }

  learn(step: Float64Array, change: Float64Array): void {
    const curvature = dot(step, change);
    if (!(curvature > 0)) return;
    this.#pairs.push({ step, change, inverse: 1 / curvature });
    if (this.#pairs.length > HEAD.memory) this.#pairs.shift();
    this.#scale = curvature / dot(change, change);
  }

  times(slope: Float64Array): Float64Array {
    const product = slope.slice();
    const shares: number[] = [];
    for (const { step, change, inverse } of [...this.#pairs].reverse()) {
      const share = inverse * dot(step, product);
      shares.unshift(share);
      add(product, change, -share);
    }
    for (let at = 0; at < product.length; at++) product[at] = product[at]! * this.#scale;
    this.#pairs.forEach(({ step, change, inverse }, at) => {
      add(product, step, shares[at]! - inverse * dot(change, product));
    });
    return product;
  }
}

/** What a head says of features `(n, f)`: `(n, classes)`. */
export function logitsOf(features: Float32Array, { weight, bias }: HeadArrays): Float64Array {
  const classes = bias.length;
  const f = weight.length / classes;
  const n = features.length / f;
  const logits = timesTransposed(Float64Array.from(features), Float64Array.from(weight), n, classes, f);
  for (let at = 0; at < logits.length; at++) logits[at] = logits[at]! + bias[at % classes]!;
  return logits;
}

/** Mean cross-entropy in nats of a head on features `(n, f)` and `labels` `(n,)`. */
export function crossEntropy(features: Float32Array, labels: ArrayLike<number>, head: HeadArrays): number {
  const n = labels.length;
  const classes = head.bias.length;
  const logits = logitsOf(features, head);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    const largest = Math.max(...row);
    const total = row.reduce((all, value) => all + Math.exp(value - largest), 0);
    sum += Math.log(total) + largest - row[labels[i]!]!;
  }
  return sum / n;
}

/** Softmax of each row of `classes` numbers, in place. */
export function softmaxRows(logits: Float64Array | Float32Array, classes: number): void {
  for (let start = 0; start < logits.length; start += classes) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < classes; c++) largest = Math.max(largest, logits[start + c]!);
    let sum = 0;
    for (let c = 0; c < classes; c++) {
      const value = Math.exp(logits[start + c]! - largest);
      logits[start + c] = value;
      sum += value;
    }
    for (let c = 0; c < classes; c++) logits[start + c] = logits[start + c]! / sum;
  }
}

/**
 * Features with mean 0 and deviation 1 and a last column of ones, `(n, f + 1)`. A feature that never fires on this task
 * carries nothing: its deviation is infinite, so it becomes 0 and keeps weight 0.
 */
export function standardized(
  features: Float32Array,
  n: number,
  f: number,
): { x: Float64Array; mean: Float64Array; scale: Float64Array } {
  const mean = meanOf(features, n, f);
  const scale = new Float64Array(f);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < f; j++) scale[j] = scale[j]! + (features[i * f + j]! - mean[j]!) ** 2 / n;
  }
  let largest = 1e-30;
  for (let j = 0; j < f; j++) {
    scale[j] = Math.sqrt(scale[j]!);
    largest = Math.max(largest, scale[j]!);
  }
  for (let j = 0; j < f; j++)
    if (!(scale[j]! > HEAD.leastDeviation * largest)) scale[j] = Number.POSITIVE_INFINITY;
  const x = new Float64Array(n * (f + 1));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < f; j++) x[i * (f + 1) + j] = (features[i * f + j]! - mean[j]!) / scale[j]!;
    x[i * (f + 1) + f] = 1;
  }
  return { x, mean, scale };
}

/** `(f,)`. */
function meanOf(features: Float32Array, n: number, f: number): Float64Array {
  const mean = new Float64Array(f);
  for (let i = 0; i < n; i++) for (let j = 0; j < f; j++) mean[j] = mean[j]! + features[i * f + j]! / n;
  return mean;
}

/** On the features themselves, what was `fitted` `(classes, f + 1)` on others, less their `mean`; `back` leads there. */
function onRawFeatures(
  fitted: Float64Array,
  classes: number,
  mean: Float64Array,
  back: (weight: Float64Array) => Float64Array,
): HeadArrays {
  const f = mean.length;
  const own = new Float64Array(classes * f);
  for (let c = 0; c < classes; c++) own.set(fitted.subarray(c * (f + 1), c * (f + 1) + f), c * f);
  const weight = back(own);
  const bias = new Float32Array(classes);
  for (let c = 0; c < classes; c++) {
    let offset = fitted[c * (f + 1) + f]!;
    for (let j = 0; j < f; j++) offset -= weight[c * f + j]! * mean[j]!;
    bias[c] = offset;
  }
  return { weight: new Float32Array(weight), bias };
}
