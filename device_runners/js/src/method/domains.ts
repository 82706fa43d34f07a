/**
 * Domains: images that another camera, light or weather has made, seen as the base's are.
 *
 * A domain's images give convolutions other means and deviations than the base images did. Bringing these to what they
 * were, channel by channel, is adaptive batch normalisation (Li et al., "Revisiting batch normalization for practical
 * domain adaptation", 2016, arXiv 1603.04779). It takes no labels. Which domain an image is of is told by a linear
 * discriminant between all that is known and the domain's images. Measured in docs/decisions/0038-domains.md.
 */

import { DOMAINS } from '../contract/thresholds.js';
import { freedomOf, roundingOf, variancesWithin } from './covariance.js';
import { ClassStatistics, shrunkCovariance } from './heads.js';
import { dot } from './matrix.js';

/** Mean and deviation of channels over all images, from those of batches. */
export class ChannelSum {
  private images = 0;
  private readonly means: Float64Array;
  private readonly squares: Float64Array;

  constructor(channels: number) {
    this.means = new Float64Array(channels);
    this.squares = new Float64Array(channels);
  }

  /** Those of a batch of so many images, `(channels,)`. */
  add(mean: Float32Array, variance: Float32Array, images: number): void {
    this.images += images;
    for (const [c, one] of mean.entries()) {
      this.means[c] = this.means[c]! + images * one;
      this.squares[c] = this.squares[c]! + images * (variance[c]! + one * one);
    }
  }

  /** `(channels,)`. */
  get mean(): Float64Array {
    return this.means.map((sum) => sum / this.images);
  }

  /** `(channels,)`, of all images together. */
  get deviation(): Float64Array {
    const mean = this.mean;
    return this.squares.map((sum, c) => Math.sqrt(Math.max(sum / this.images - mean[c]! ** 2, 0)));
  }
}

/** `y * scale + shift` of each channel. */
export interface ChannelAffine {
  readonly scale: Float32Array;
  readonly shift: Float32Array;
}

/** What brings a domain's channels to `mean` and `deviation`, all `(channels,)`. */
export function affine(domain: ChannelSum, mean: Float32Array, deviation: Float32Array): ChannelAffine {
  const own = { mean: domain.mean, deviation: domain.deviation };
  const scale = own.deviation.map((one, c) =>
    Math.min(deviation[c]! / (one + DOMAINS.leastDeviation), DOMAINS.mostScale),
  );
  const shift = scale.map((factor, c) => mean[c]! - own.mean[c]! * factor);
  return { scale: Float32Array.from(scale), shift: Float32Array.from(shift) };
}

/**
 * Whether an image is of a domain: `features @ direction - offset` is the logarithm of how much likelier it is.
 *
 * `direction` `(f,)` and `offset` are of features without the domain's affine. `apart` is how many deviations along the
 * direction lie between what is known and the domain.
 */
export interface Telling {
  readonly direction: Float32Array;
  readonly offset: number;
  readonly apart: number;
}

/**
 * What tells images with `features` `(n, f)` from all that is known; undefined where their spread is not known.
 *
 * Both have the covariance of all images together that are known (Fisher's discriminant), shrunk as the one within classes
 * is, and of each feature half its variance among the images at least. The mean of few images lies off by chance in each of
 * many directions, which looks like a distance; what is to be expected of that is taken off.
 */
export function telling(
  known: ClassStatistics,
  features: Float32Array,
  priorImages: number,
): Telling | undefined {
  const f = known.features;
  const count = known.counts.reduce((sum, one) => sum + one, 0);
  if (!(count > 0)) return undefined;
  const sums = rowsTogether(known.sums, f);
  const together = new ClassStatistics(f, [''], known.gram, sums, Float64Array.of(count));
  const shrunk = shrunkCovariance(asWide(together, features), priorImages);
  if (!shrunk) return undefined;
  const images = features.length / f;
  const mean = sums.map((sum) => sum / count);
  const step = rowsTogether(features, f).map((sum, j) => sum / images - mean[j]!);
  const along = shrunk.system.solveRows(step, 1);
  const squared = dot(along, step);
  const gap = squared - shrunk.noise() / images;
  if (!(gap > 0)) return { direction: new Float32Array(f), offset: 0, apart: 0 };
  const direction = along.map((one) => (one * gap) / squared);
  const offset = dot(direction, mean) + (0.5 * gap * gap) / squared;
  return { direction: Float32Array.from(direction), offset, apart: gap / Math.sqrt(squared) };
}

/**
 * With no variance far below that of `features` `(n, f)`. A feature that no known image shows, or hardly any, would else tell
 * alone: images of the domain without it would be taken for known ones.
 */
function asWide(together: ClassStatistics, features: Float32Array): ClassStatistics {
  const f = together.features;
  const own = variancesWithin(together);
  if (own.reduce((sum, one) => sum + one, 0) / f <= roundingOf(together)) return together;
  const gram = together.gram.slice();
  const freedom = freedomOf(together.counts);
  for (const [j, one] of variancesOf(features, f).entries()) {
    const more = Math.max(DOMAINS.leastVariance * one - own[j]!, 0);
    gram[j * f + j] = gram[j * f + j]! + freedom * more;
  }
  return new ClassStatistics(f, together.classes, gram, together.sums, together.counts);
}

/** Of one image's scores by domain, by `Telling`, the number of its domain; -1 for none. */
export function domainOf(scores: readonly number[]): number {
  const best = Math.max(...scores);
  return best > 0 ? scores.indexOf(best) : -1;
}

/** The variance of each column of rows `(n, f)`. */
function variancesOf(rows: Float32Array, f: number): Float64Array {
  const n = rows.length / f;
  const mean = rowsTogether(rows, f).map((sum) => sum / n);
  const squares = new Float64Array(f);
  for (const [at, value] of rows.entries()) squares[at % f] = squares[at % f]! + (value - mean[at % f]!) ** 2;
  return squares.map((sum) => sum / n);
}

/** The sum of rows `(n, f)`. */
function rowsTogether(rows: Float32Array | Float64Array, f: number): Float64Array {
  const sum = new Float64Array(f);
  for (const [at, value] of rows.entries()) sum[at % f] = sum[at % f]! + value;
  return sum;
}

/**
 * Whether a domain is to be refused, by the median distances of its images from all that is known: as they are seen now, and as
 * it shows them. `unknown` is the share that is unlike all that is known then. Where most of them are told to be of a domain that is
 * known already, `another` are both distances of these alone: of the others, none is seen through it. Images that a poor look
 * makes alike lie near to something, so that their distance tells little alone.
 */
export function bringsNothing(
  before: number,
  after: number,
  unknown: number,
  another?: { readonly before: number; readonly after: number },
): boolean {
  const strange = !(after < before) && unknown > DOMAINS.strange;
  return strange || Boolean(another && !(another.after < DOMAINS.nearer * another.before));
}
