/** A task's own head, fitted exactly: multinomial logistic regression on features (docs/decisions/0005-heads.md). */

import { HEAD } from '../contract/thresholds.js';
import { norm, timesTransposed, trace, transposed } from './matrix.js';
import { SymmetricSystem } from './symmetric.js';

/** `logits = features @ weight.T + bias`: weight `(classes, f)`, bias `(classes,)`. */
export interface HeadArrays {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/**
 * Minimise mean cross-entropy + `0.01 / 2 * |W|^2` over standardised features `(n, f)`, `labels` `(n,)` into `classes`.
 * The bias is not decayed.
 *
 * Newton steps with one fixed Hessian, the lower bound of Bohning ("Multinomial logistic regression algorithm", 1992),
 * accelerated as by Nesterov, restarted where the loss would rise (O'Donoghue & Candes, arXiv 1204.3982).
 */
export function logisticHead(
  features: Float32Array,
  f: number,
  labels: ArrayLike<number>,
  classes: number,
): HeadArrays {
  const n = labels.length;
  const p = f + 1;
  const { x, mean, scale } = standardized(features, n, f);
  const columns = transposed(x, n, p);
  const bound = n < p ? new FewImages(x, columns, n, p) : boundOf(columns, n, p);
  const decay = (at: number): number => (at % p === f ? 0 : HEAD.weightDecay);
  const gradient = (point: Float64Array): Float64Array => {
    const logits = timesTransposed(x, point, n, classes, p);
    softmaxRows(logits, classes);
    for (let i = 0; i < n; i++) logits[i * classes + labels[i]!] = logits[i * classes + labels[i]!]! - 1;
    const slope = timesTransposed(transposed(logits, n, classes), columns, classes, p, n);
    return slope.map((value, at) => value / n + decay(at) * point[at]!);
  };
  let weight: Float64Array = new Float64Array(classes * p);
  let ahead = weight;
  let momentum = 1;
  let first = 0;
  for (let iteration = 0; iteration < HEAD.iterations; iteration++) {
    const slope = gradient(ahead);
    const size = norm(slope);
    first ||= size;
    if (size <= HEAD.tolerance * first) break;
    const newton = bound.solveRows(slope, classes);
    const moved = ahead.map((value, at) => value - newton[at]!);
    let rising = 0;
    for (let at = 0; at < moved.length; at++) rising += slope[at]! * (moved[at]! - weight[at]!);
    if (rising > 0) momentum = 1;
    const following = 0.5 * (1 + Math.sqrt(1 + 4 * momentum ** 2));
    const factor = (momentum - 1) / following;
    const before = weight;
    ahead = moved.map((value, at) => value + factor * (value - before[at]!));
    weight = moved;
    momentum = following;
  }
  return onRawFeatures(weight, classes, mean, scale);
}

/** Mean cross-entropy in nats of a head on features `(n, f)` and `labels` `(n,)`. */
export function crossEntropy(
  features: Float32Array,
  labels: ArrayLike<number>,
  { weight, bias }: HeadArrays,
): number {
  const n = labels.length;
  const classes = bias.length;
  const f = weight.length / classes;
  const logits = timesTransposed(Float64Array.from(features), Float64Array.from(weight), n, classes, f);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const row = logits.subarray(i * classes, (i + 1) * classes).map((value, c) => value + bias[c]!);
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
  const mean = new Float64Array(f);
  const scale = new Float64Array(f);
  for (let i = 0; i < n; i++) for (let j = 0; j < f; j++) mean[j] = mean[j]! + features[i * f + j]! / n;
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

function boundOf(columns: Float64Array, n: number, p: number): SymmetricSystem {
  const bound = timesTransposed(columns, columns, p, p, n);
  for (let at = 0; at < bound.length; at++) bound[at] = (0.5 * bound[at]!) / n;
  for (let i = 0; i < p - 1; i++) bound[i * p + i] = bound[i * p + i]! + HEAD.weightDecay;
  const jitter = HEAD.jitter * trace(bound, p);
  for (let i = 0; i < p; i++) bound[i * p + i] = bound[i * p + i]! + jitter;
  return new SymmetricSystem(bound, p);
}

/**
 * The same bound `X^T X / 2n + D` for fewer images than features, by a system of `n` in the place of `p`: first with the
 * decay on the bias as well, by the matrix inversion lemma, then without, by the formula of Sherman and Morrison.
 */
class FewImages {
  private readonly system: SymmetricSystem;
  private readonly diagonal: number;
  private readonly bias: Float64Array;

  constructor(
    private readonly x: Float64Array,
    private readonly columns: Float64Array,
    private readonly n: number,
    private readonly p: number,
  ) {
    const kernel = timesTransposed(x, x, n, n, p);
    const jitter = HEAD.jitter * ((0.5 * trace(kernel, n)) / n + HEAD.weightDecay * (p - 1));
    this.diagonal = HEAD.weightDecay + jitter;
    for (let i = 0; i < n; i++) kernel[i * n + i] = kernel[i * n + i]! + 2 * n * this.diagonal;
    this.system = new SymmetricSystem(kernel, n);
    const unit = new Float64Array(p);
    unit[p - 1] = 1;
    this.bias = this.decayed(unit, 1);
  }

  /** For each row `b` of `rows` `(m, p)` the `x` with `bound x = b`: `(m, p)`. */
  solveRows(rows: Float64Array, m: number): Float64Array {
    const { bias, p } = this;
    const found = this.decayed(rows, m);
    for (let start = 0; start < m * p; start += p) {
      const factor = (HEAD.weightDecay * found[start + p - 1]!) / (1 - HEAD.weightDecay * bias[p - 1]!);
      for (let at = 0; at < p; at++) found[start + at] = found[start + at]! + factor * bias[at]!;
    }
    return found;
  }

  private decayed(rows: Float64Array, m: number): Float64Array {
    const { x, columns, n, p, diagonal } = this;
    const solved = this.system.solveRows(timesTransposed(rows, x, m, n, p), m);
    const seen = timesTransposed(solved, columns, m, p, n);
    return rows.map((value, at) => (value - seen[at]!) / diagonal);
  }
}

function onRawFeatures(
  fitted: Float64Array,
  classes: number,
  mean: Float64Array,
  scale: Float64Array,
): HeadArrays {
  const f = mean.length;
  const weight = new Float32Array(classes * f);
  const bias = new Float32Array(classes);
  for (let c = 0; c < classes; c++) {
    let offset = fitted[c * (f + 1) + f]!;
    for (let j = 0; j < f; j++) {
      const raw = fitted[c * (f + 1) + j]! / scale[j]!;
      weight[c * f + j] = raw;
      offset -= raw * mean[j]!;
    }
    bias[c] = offset;
  }
  return { weight, bias };
}
