/**
 * The discriminant over all classes, without each image that it judges in turn: an honest judge of what it learned.
 *
 * Without `x`, its class's mean is `mu - r / (n_c - 1)`, `r = x - mu`, and the scatter less by `n_c / (n_c - 1) r r^T`: of
 * rank one, so that the inverse follows (Sherman and Morrison, 1950). How much is shrunk, the diagonal towards which, and
 * the noise that is given back stay.
 */

import { UNKNOWN } from '../contract/thresholds.js';
import { freedomOf, meansOf } from './covariance.js';
import { type ClassStatistics, decides, type ShrunkCovariance } from './heads.js';
import { rowProducts, rowsAt, subtractRow, timesTransposed } from './matrix.js';

/** So many images are judged at once: their rows are float64, and as long as the features. */
export const AT_ONCE = UNKNOWN.imagesAtOnce;

/** The discriminant of `ldaHead`, of classes that all have images, as it judges them. */
export class LeftOut {
  /** `(C, f)`. */
  readonly means: Float64Array;
  /** `(C, f)`: each mean by the inverse. */
  readonly ahead: Float64Array;
  private readonly squares: Float64Array;
  /** The whitened means `(C, f)`, and the products of these `(C, C)`. */
  private readonly white: Float64Array;
  private between: Float64Array | undefined;

  constructor(
    private readonly statistics: ClassStatistics,
    private readonly shrunk: ShrunkCovariance,
  ) {
    this.means = meansOf(statistics);
    const { length } = statistics.classes;
    this.white = shrunk.system.whitenRows(this.means, length);
    this.ahead = shrunk.system.unwhitenRows(this.white, length);
    this.squares = rowProducts(this.ahead, this.means, statistics.features);
  }

  /** The logits `(rows.length, among.length)` at the means of classes, for the classes `among`. */
  atMeans(rows: readonly number[], among: readonly number[]): Float64Array {
    const { features: f } = this.statistics;
    const [means, ahead] = [rowsAt(this.means, rows, f), rowsAt(this.ahead, among, f)];
    const logits = timesTransposed(means, ahead, rows.length, among.length, f);
    for (let at = 0; at < logits.length; at++) {
      const c = among[at % among.length]!;
      logits[at] = logits[at]! + this.given(c) - 0.5 * this.squares[c]!;
    }
    return logits;
  }

  /** A class's own logit at its mean. */
  atOwnMean(c: number): number {
    return this.given(c) + 0.5 * this.squares[c]!;
  }

  /**
   * The logits `(n, C)` of images of classes `own`, of more than one image each, without itself. All are products by the inverse,
   * and so of whitened rows: of `r` and of the means, since `x` is the sum of its own mean and `r`. `white` `(n, f)` are the images,
   * whitened, and become `r`.
   */
  logits(white: Float64Array, own: readonly number[]): Float64Array {
    const { features: f, counts, classes } = this.statistics;
    const { squares } = this;
    const count = classes.length;
    const n = own.length;
    for (const [i, c] of own.entries()) subtractRow(white.subarray(i * f, (i + 1) * f), this.white, c * f, 1);
    const withR = rowProducts(white, white, f);
    // Of r, and of the means with each other.
    const withMeans = timesTransposed(white, this.white, n, count, f);
    this.between ??= timesTransposed(this.white, this.white, count, count, f);
    const logits = new Float64Array(n * count);
    const part = (1 - this.shrunk.shrinkage) / freedomOf(counts);
    for (let i = 0; i < n; i++) {
      const c = own[i]!;
      const others = counts[c]! - 1;
      const share = (part * counts[c]!) / others;
      const square = withR[i]!;
      // 1 less the image's own share of what is known around it.
      const gain = share / Math.max(1 - share * square, UNKNOWN.leastLeft);
      const withOwn = withMeans[i * count + c]!;
      const withX = square + withOwn;
      for (let k = 0; k < count; k++) {
        const at = i * count + k;
        const withMean = withMeans[at]!;
        const near = withMean + this.between[c * count + k]! + gain * withX * withMean;
        logits[at] = near - 0.5 * (squares[k]! + gain * withMean ** 2) + this.given(k);
      }
      // Its own class's mean is without it, too.
      const withMean = withOwn - square / others;
      const near = withOwn + this.between[c * count + c]! - withX / others + gain * withX * withMean;
      const norm = this.between[c * count + c]! - (2 * withOwn) / others + square / others ** 2;
      logits[i * count + c] = near - 0.5 * (norm + gain * withMean ** 2) + this.given(c);
    }
    return logits;
  }

  /** What of the noise of its mean a class is given back: a quarter of `tr(S^-1 Sw) / n_c`. */
  given(c: number): number {
    return this.shrunk.noise() / (4 * this.statistics.counts[c]!);
  }
}

/** A task's images, each judged without itself; of those alone in their class, nothing could be said. */
export class JudgedImages {
  private constructor(
    readonly discriminant: LeftOut,
    /** `(n, f)`. */
    readonly features: Float32Array,
    /** `(n,)`, into the task's classes. */
    readonly labels: readonly number[],
    /** `(n,)`, into all classes. */
    readonly rows: readonly number[],
    /** `(n, C)`, of all classes. */
    readonly logits: Float64Array,
  ) {}

  /**
   * Of features `(n, f)` and labels `(n,)` into `classes`, which are part of `statistics`, all counted there; `shrunk` is of
   * these, and `white` the features under its metric, where somebody has asked for them already. Undefined where nothing can be
   * decided between.
   */
  static of(
    statistics: ClassStatistics,
    features: Float32Array,
    labels: ArrayLike<number>,
    classes: readonly string[],
    shrunk: ShrunkCovariance | undefined,
    white?: Float64Array,
  ): JudgedImages | undefined {
    if (!classes.length || !decides(statistics) || !shrunk) return undefined;
    const discriminant = new LeftOut(statistics, shrunk);
    const { features: f, counts } = statistics;
    const place = classes.map((name) => statistics.classes.indexOf(name));
    const told = Array.from(labels, (_, i) => i).filter((i) => counts[place[labels[i]!]!]! > 1);
    const kept = rowsAt(features, told, f);
    const own = told.map((i) => labels[i]!);
    const rows = own.map((label) => place[label]!);
    const logits = new Float64Array(told.length * counts.length);
    for (let start = 0; start < told.length; start += AT_ONCE) {
      const some = rows.slice(start, start + AT_ONCE);
      const part = told.slice(start, start + AT_ONCE);
      const x = white
        ? rowsAt(white, part, f)
        : shrunk.system.whitenRows(new Float64Array(rowsAt(features, part, f)), part.length);
      logits.set(discriminant.logits(x, some), start * counts.length);
    }
    return new JudgedImages(discriminant, kept, own, rows, logits);
  }
}
