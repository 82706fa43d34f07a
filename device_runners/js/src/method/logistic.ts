/** A task's own head, fitted exactly: multinomial logistic regression on features (docs/decisions/0005-heads.md). */

import { HEAD } from '../contract/thresholds.js';
import { add, difference, dot, subtractRow, timesTransposed, transposed } from './matrix.js';

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
 * (docs/decisions/0005). `labels` `(n,)` into the head's classes. `white` are the features as they are under that metric, where
 * somebody has asked for them already.
 */
export function knownHead(
  head: HeadArrays,
  features: Float32Array,
  labels: ArrayLike<number>,
  { system }: { readonly system: Whitening },
  white?: Float64Array,
): HeadArrays {
  const classes = head.bias.length;
  const n = labels.length;
  const f = features.length / n;
  const rows = white ?? system.whitenRows(new Float64Array(features), n);
  const mean = meanOf(rows, n, f);
  const x = new Float64Array(n * (f + 1));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < f; j++) x[i * (f + 1) + j] = rows[i * f + j]! - mean[j]!;
    x[i * (f + 1) + f] = 1;
  }
  const fitted = multinomial(x, f, labels, classes, HEAD.knownDecay);
  const back = (weight: Float64Array): Float64Array => system.unwhitenRows(weight, classes);
  const known = onRawFeatures(fitted, classes, meanOf(features, n, f), back);
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
  const space: Space = n < f + 1 ? new OfImages(x, n, weightDecay) : new OfFeatures(x, n, weightDecay);
  const gradient = (point: Float64Array): Float64Array => {
    const logits = space.logits(point, classes);
    softmaxRows(logits, classes);
    for (let i = 0; i < n; i++) logits[i * classes + labels[i]!] = logits[i * classes + labels[i]!]! - 1;
    return space.gradient(point, transposed(logits, n, classes), classes);
  };
  const steepness = (slope: Float64Array): number => Math.sqrt(space.dot(slope, slope));
  let weight = space.origin(classes);
  let slope = gradient(weight);
  const along = space.logits(slope, classes);
  const bound = (0.5 * dot(along, along)) / n + space.decayed(slope, classes);
  const least = HEAD.tolerance * steepness(slope);
  const approximation = new InverseHessian(bound > 0 ? space.dot(slope, slope) / bound : 0, space);
  let left = HEAD.iterations - 1;
  while (left > 0 && steepness(slope) > least) {
    const direction = approximation.times(slope);
    const descent = space.dot(slope, direction);
    let moved: Float64Array;
    let following: Float64Array;
    for (let step = 1; ; step *= 0.5) {
      left--;
      moved = weight.slice();
      add(moved, direction, -step);
      following = gradient(moved);
      if (-space.dot(following, direction) <= HEAD.overshoot * descent || left <= 0) break;
    }
    approximation.learn(difference(moved, weight), difference(following, slope));
    weight = moved;
    slope = following;
  }
  return space.weights(weight, classes);
}

/** Weights `(classes, f + 1)` as points that can be added up, for a design `x` `(n, f + 1)` and a decay. */
interface Space {
  /** Weights of 0. */
  origin(classes: number): Float64Array;
  /** `x weights^T`, `(n, classes)`. */
  logits(point: Float64Array, classes: number): Float64Array;
  /** `residuals x / n`, of residuals `(classes, n)`, and the decay of a point's weights, which but for the last are decayed. */
  gradient(point: Float64Array, residuals: Float64Array, classes: number): Float64Array;
  /** The product of their weights. */
  dot(one: Float64Array, other: Float64Array): number;
  /** What decays of the product of a point with itself. */
  decayed(point: Float64Array, classes: number): number;
  /** `(classes, f + 1)`. */
  weights(point: Float64Array, classes: number): Float64Array;
}

/** Points are the weights themselves. */
class OfFeatures implements Space {
  private readonly p: number;
  private readonly columns: Float64Array;

  constructor(
    private readonly x: Float64Array,
    private readonly n: number,
    private readonly decay: number,
  ) {
    this.p = x.length / n;
    this.columns = transposed(x, n, this.p);
  }

  origin(classes: number): Float64Array {
    return new Float64Array(classes * this.p);
  }

  logits(point: Float64Array, classes: number): Float64Array {
    return timesTransposed(this.x, point, this.n, classes, this.p);
  }

  gradient(point: Float64Array, residuals: Float64Array, classes: number): Float64Array {
    const { n, p, decay } = this;
    const found = timesTransposed(residuals, this.columns, classes, p, n);
    for (let at = 0; at < found.length; at++) {
      found[at] = found[at]! / n + (at % p === p - 1 ? 0 : decay * point[at]!);
    }
    return found;
  }

  dot(one: Float64Array, other: Float64Array): number {
    return dot(one, other);
  }

  decayed(point: Float64Array): number {
    const { p } = this;
    return this.decay * point.reduce((sum, value, at) => sum + (at % p === p - 1 ? 0 : value ** 2), 0);
  }

  weights(point: Float64Array): Float64Array {
    return point;
  }
}

/**
 * Of fewer images than features, in which the gradient moves no weights but along the images.
 *
 * So a point is how much of each image there is in the weights, and behind that the last weight, which is the same in both parts
 * of it; the other part is these times the images' products with one another: `(2, classes, n + 1)`. A gradient is one product
 * with these `(n, n)` then, in the place of two with `x`.
 */
class OfImages implements Space {
  private readonly p: number;
  private readonly products: Float64Array;

  constructor(
    private readonly x: Float64Array,
    private readonly n: number,
    private readonly decay: number,
  ) {
    this.p = x.length / n;
    this.products = timesTransposed(x, x, n, n, this.p);
    // Without the ones at the rows' ends.
    for (let at = 0; at < this.products.length; at++) this.products[at] = this.products[at]! - 1;
  }

  origin(classes: number): Float64Array {
    return new Float64Array(2 * classes * (this.n + 1));
  }

  logits(point: Float64Array, classes: number): Float64Array {
    const { n } = this;
    const found = new Float64Array(n * classes);
    for (let c = 0; c < classes; c++) {
      const start = (classes + c) * (n + 1);
      for (let i = 0; i < n; i++) found[i * classes + c] = point[start + i]! + point[start + n]!;
    }
    return found;
  }

  gradient(point: Float64Array, residuals: Float64Array, classes: number): Float64Array {
    const { n, decay } = this;
    const found = new Float64Array(point.length);
    const parts = [residuals, timesTransposed(residuals, this.products, classes, n, n)] as const;
    for (let c = 0; c < classes; c++) {
      let last = 0;
      for (let i = 0; i < n; i++) last += residuals[c * n + i]!;
      for (const [half, part] of parts.entries()) {
        const start = (half * classes + c) * (n + 1);
        for (let i = 0; i < n; i++) found[start + i] = part[c * n + i]! / n + decay * point[start + i]!;
        found[start + n] = last / n;
      }
    }
    return found;
  }

  dot(one: Float64Array, other: Float64Array): number {
    const half = one.length / 2;
    let sum = 0;
    for (let at = 0; at < half; at++) sum += one[at]! * other[half + at]!;
    return sum;
  }

  decayed(point: Float64Array, classes: number): number {
    let sum = this.dot(point, point);
    for (let c = 0; c < classes; c++) sum -= point[c * (this.n + 1) + this.n]! ** 2;
    return this.decay * sum;
  }

  weights(point: Float64Array, classes: number): Float64Array {
    const { n, p, x } = this;
    const found = new Float64Array(classes * p);
    for (let c = 0; c < classes; c++) {
      const own = found.subarray(c * p, (c + 1) * p);
      for (let i = 0; i < n; i++) subtractRow(own, x, i * p, -point[c * (n + 1) + i]!);
      own[p - 1] = point[c * (n + 1) + n]!;
    }
    return found;
  }
}

/** The inverse of a Hessian, as the last steps and the changes of the gradient along them tell. */
class InverseHessian {
  readonly #pairs: { step: Float64Array; change: Float64Array; inverse: number }[] = [];
  #scale: number;

  constructor(
    scale: number,
    private readonly space: Space,
  ) {
    this.#scale = scale;
  }

  learn(step: Float64Array, change: Float64Array): void {
    const [curvature, size] = [this.space.dot(step, change), this.space.dot(change, change)];
    // Of images that are all the same either may be nothing but rounding.
    if (!(curvature > 0 && size > 0)) return;
    this.#pairs.push({ step, change, inverse: 1 / curvature });
    if (this.#pairs.length > HEAD.memory) this.#pairs.shift();
    this.#scale = curvature / size;
  }

  times(slope: Float64Array): Float64Array {
    const product = slope.slice();
    const shares: number[] = [];
    for (const { step, change, inverse } of [...this.#pairs].reverse()) {
      const share = inverse * this.space.dot(step, product);
      shares.unshift(share);
      add(product, change, -share);
    }
    for (let at = 0; at < product.length; at++) product[at] = product[at]! * this.#scale;
    this.#pairs.forEach(({ step, change, inverse }, at) => {
      add(product, step, shares[at]! - inverse * this.space.dot(change, product));
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
 * carries nothing, nor does one that differs between images by what float32 rounds: its deviation is infinite, so it becomes 0
 * and keeps weight 0.
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
    if (!(scale[j]! > HEAD.leastDeviation * Math.max(largest, Math.abs(mean[j]!))))
      scale[j] = Number.POSITIVE_INFINITY;
  const x = new Float64Array(n * (f + 1));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < f; j++) x[i * (f + 1) + j] = (features[i * f + j]! - mean[j]!) / scale[j]!;
    x[i * (f + 1) + f] = 1;
  }
  return { x, mean, scale };
}

/** `(f,)`. */
function meanOf(features: Float32Array | Float64Array, n: number, f: number): Float64Array {
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
