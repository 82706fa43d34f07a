/**
 * How unlike everything known an image is, from class statistics and the head over all classes: no image is kept.
 *
 * An image is unknown that is undecided (the largest logit stands little above the mean of all classes) or odd (its
 * features lie outside of where all known ones do). `distance = exp(a max(0, oddness / usual - 1)) / (margin / margin at the
 * classes' means)`. What share of known images lies beyond a distance is told by a sketch: by class, quantiles of margins
 * and oddness, each image left out of the statistics that judge it, over what the statistics give for the class itself.
 * csk_sdk/method/unknown.py has the sources; docs/decisions/0029-unknown.md.
 */

import { UNKNOWN } from '../contract/thresholds.js';
import { StateError } from '../errors.js';
import { textOf, utf8 } from '../formats/bytes.js';
import { float32, type StoredTensor, type Tensors, uint8 } from '../formats/tensors.js';
import { freedomOf, meansOf, roundingOf } from './covariance.js';
import { type ClassStatistics, decides, jsonOfNames } from './heads.js';
import { AT_ONCE, type JudgedImages } from './leftOut.js';
import { type HeadArrays, logitsOf } from './logistic.js';
import { argmax, rowProducts, rowsAt, timesTransposed } from './matrix.js';

/** Share of known images that may be called unknown, unless told otherwise. */
export const REJECT = UNKNOWN.reject;
/** Numbers of each class in the sketch of known images. */
export const QUANTILES = UNKNOWN.quantiles;
/** What the distance is made with: an exported model has it in its own ops. */
export const UNKNOWN_NUMBERS = {
  mostSquared: UNKNOWN.mostSquared,
  steepness: UNKNOWN.steepness,
  leastMargin: UNKNOWN.leastMargin,
};
/** As tensors of a state, each behind `familiarity.`. */
export const FAMILIARITY = ['classes', 'margins', 'oddness'] as const;

/** The sketch: what is usual for images of known classes. Both tables are `(classes, QUANTILES)`, above 0. */
export class Familiarity {
  constructor(
    readonly classes: readonly string[],
    readonly margins: Float32Array,
    readonly oddness: Float32Array,
  ) {}

  tensors(): Map<string, StoredTensor> {
    const shape = [this.classes.length, QUANTILES];
    return new Map<string, StoredTensor>([
      ['familiarity.classes', uint8(utf8(jsonOfNames(this.classes)))],
      ['familiarity.margins', float32(shape, this.margins)],
      ['familiarity.oddness', float32(shape, this.oddness)],
    ]);
  }

  /** Read back what `tensors` gave; undefined where nothing was measured. Throws StateError for what does not fit. */
  static from(tensors: Tensors): Familiarity | undefined {
    const [names, margins, oddness] = FAMILIARITY.map((name) => tensors.get(`familiarity.${name}`));
    if (!names && !margins && !oddness) return undefined;
    let classes: unknown;
    try {
      classes = names?.dtype === 'uint8' ? JSON.parse(textOf(names.data)) : undefined;
    } catch {
      classes = undefined;
    }
    const fits = (table: StoredTensor | undefined): table is StoredTensor & { data: Float32Array } =>
      table?.dtype === 'float32' &&
      Array.isArray(classes) &&
      classes.length > 0 &&
      table.data.length === classes.length * QUANTILES &&
      table.data.every((value) => value > 0 && value < Infinity);
    if (!Array.isArray(classes) || !fits(margins) || !fits(oddness)) {
      throw new StateError(
        'the sketch of known images cannot be read (a tensor is missing, damaged or of another shape).',
      );
    }
    return new Familiarity(classes.map(String), margins.data, oddness.data);
  }

  /** Both; of a class in both, the mean, as new images of a known class count like those that were there. */
  merge(other: Familiarity): Familiarity {
    const classes = [...new Set([...this.classes, ...other.classes])];
    const [own, others] = [placesOf(this.classes), placesOf(other.classes)];
    const both = (mine: Float32Array, theirs: Float32Array): Float32Array => {
      const out = new Float32Array(classes.length * QUANTILES);
      classes.forEach((name, row) => {
        const [a, b] = [own.get(name) ?? -1, others.get(name) ?? -1];
        for (let j = 0; j < QUANTILES; j++) {
          const one = mine[(a < 0 ? 0 : a) * QUANTILES + j]!;
          const two = theirs[(b < 0 ? 0 : b) * QUANTILES + j]!;
          out[row * QUANTILES + j] = a < 0 ? two : b < 0 ? one : Math.fround(one + two) / 2;
        }
      });
      return out;
    };
    return new Familiarity(classes, both(this.margins, other.margins), both(this.oddness, other.oddness));
  }

  /** Of all classes but these; undefined where none is left. */
  without(names: Iterable<string>): Familiarity | undefined {
    const dropped = new Set(names);
    const kept = this.classes.flatMap((name, row) => (dropped.has(name) ? [] : [row]));
    return kept.length ? this.rows(kept) : undefined;
  }

  /** With other names for some classes; of two that have one name then, the mean. */
  named(names: ReadonlyMap<string, string>): Familiarity {
    const each = this.classes.map((name, row) => {
      const { margins, oddness } = this.rows([row]);
      return new Familiarity([names.get(name) ?? name], margins, oddness);
    });
    return each.reduce((found, one) => found.merge(one));
  }

  private rows(rows: readonly number[]): Familiarity {
    const of = (table: Float32Array): Float32Array =>
      Float32Array.from(rows.flatMap((row) => [...table.subarray(row * QUANTILES, (row + 1) * QUANTILES)]));
    return new Familiarity(
      rows.map((row) => this.classes[row]!),
      of(this.margins),
      of(this.oddness),
    );
  }

  /** A table for these classes; for one that was not measured, what the others have on average. */
  of(table: Float32Array, classes: readonly string[]): Float64Array {
    const mean = Float64Array.from({ length: QUANTILES }, (_, j) => {
      let sum = 0;
      for (let row = 0; row < this.classes.length; row++) sum += table[row * QUANTILES + j]!;
      return sum / this.classes.length;
    });
    const out = new Float64Array(classes.length * QUANTILES);
    const places = placesOf(this.classes);
    classes.forEach((name, c) => {
      const row = places.get(name) ?? -1;
      out.set(row < 0 ? mean : table.subarray(row * QUANTILES, (row + 1) * QUANTILES), c * QUANTILES);
    });
    return out;
  }
}

function placesOf(names: readonly string[]): Map<string, number> {
  return new Map(names.map((name, place) => [name, place]));
}

/** Put the sketch into a state's `tensors`, in place of the one that is there; undefined removes it. */
export function replaceSketch(tensors: Map<string, StoredTensor>, sketch: Familiarity | undefined): void {
  for (const name of FAMILIARITY) tensors.delete(`familiarity.${name}`);
  for (const [key, tensor] of sketch?.tensors() ?? []) tensors.set(key, tensor);
}

/**
 * How far images are from all that is known. `weight` `(C, f)` and `bias` `(C,)` give the logits less their mean, `mean`
 * and `scale` `(f,)` the features' deviations. `closeness` are the inverse distances of known images, ascending.
 */
export interface Distance {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly mean: Float32Array;
  readonly scale: Float32Array;
  readonly usual: number;
  readonly margin: number;
  readonly closeness: Float64Array;
}

/** The distances `(n,)` of features `(n, f)`, above 0. */
export function distancesOf(distance: Distance, features: Float32Array): Float32Array {
  const { mean, scale, usual, margin } = distance;
  const f = mean.length;
  const count = distance.bias.length;
  const logits = logitsOf(features, distance);
  return Float32Array.from({ length: features.length / f }, (_, i) => {
    const highest = logits[i * count + argmax(logits, i * count, count)]!;
    let oddness = 0;
    for (let j = 0; j < f; j++) {
      const deviation = (features[i * f + j]! - mean[j]!) * scale[j]!;
      oddness += Math.min(deviation * deviation, UNKNOWN.mostSquared);
    }
    return penalty(oddness / f, usual) / Math.max(highest / margin, UNKNOWN.leastMargin);
  });
}

/** The distance that this share of known images exceeds, by the sketch; infinity for none. */
export function limitOf({ closeness }: Distance, share: number): number {
  return share > 0 ? 1 / quantile(closeness, share) : Number.POSITIVE_INFINITY;
}

/**
 * The distance from all that `statistics` know, whose discriminant is `head`; undefined where nothing was measured, or
 * there is nothing to decide between.
 */
export function distanceFrom(
  statistics: ClassStatistics,
  sketch: Familiarity | undefined,
  head: HeadArrays,
): Distance | undefined {
  const { classes, features: f } = statistics;
  const count = classes.length;
  if (!sketch || !decides(statistics)) return undefined;
  const margins = marginsAtMeans(statistics, head);
  const margin = average(margins);
  if (!(margin > 0)) return undefined;
  const { mean, variance, typical } = spreadOf(statistics);
  const odd = sketch
    .of(sketch.oddness, classes)
    .map((value, at) => value * typical[Math.floor(at / QUANTILES)]!);
  const usual = quantile(odd.slice().sort(), UNKNOWN.usualShare);
  const ratios = sketch.of(sketch.margins, classes);
  // How odd an image is tells next to nothing of its margin, so every pair is as likely.
  const closeness = Float64Array.from({ length: count * QUANTILES * QUANTILES }, (_, at) => {
    const c = Math.floor(at / QUANTILES / QUANTILES);
    const i = Math.floor(at / QUANTILES) % QUANTILES;
    const near = (ratios[c * QUANTILES + i]! * margins[c]!) / margin;
    return near / penalty(odd[c * QUANTILES + (at % QUANTILES)]!, usual);
  });
  const centre = meanOfRows(head.weight, f);
  const middle = average(Float64Array.from(head.bias));
  return {
    weight: head.weight.map((value, at) => value - centre[at % f]!),
    bias: head.bias.map((value) => value - middle),
    mean: Float32Array.from(mean),
    scale: Float32Array.from(variance, (value) => 1 / Math.sqrt(value)),
    usual,
    margin,
    closeness: closeness.sort(),
  };
}

/**
 * By class, how far the largest logit of `head`, their discriminant, at its mean stands above the mean of all.
 *
 * The largest is its own, or that of a class of fewer images: at a mean, `-(mu_i - mu_c)^T S^-1 (mu_i - mu_c) / 2` is
 * largest for the class itself, and what is given back for the noise of a mean, `t / (4 n_c)`, is more only for these. So
 * no product of all classes with all is needed where they have about as many images.
 */
function marginsAtMeans(statistics: ClassStatistics, head: HeadArrays): Float64Array {
  const { counts, features: f } = statistics;
  const order = [...counts.keys()].sort((a, b) => counts[a]! - counts[b]!);
  const means = rowsAt(meansOf(statistics), order, f);
  const weight = Float64Array.from(rowsAt(head.weight, order, f));
  const bias = Float64Array.from(order, (c) => head.bias[c]!);
  const largest = rowProducts(means, weight, f).map((one, at) => one + bias[at]!);
  // As many squared are never in memory together.
  for (let start = 0; start < order.length; start += AT_ONCE) {
    const end = Math.min(start + AT_ONCE, order.length);
    const fewer = order.findIndex((c) => counts[c]! >= counts[order[end - 1]!]!);
    const rows = means.subarray(start * f, end * f);
    const logits = timesTransposed(rows, weight.subarray(0, fewer * f), end - start, fewer, f);
    for (let at = 0; at < logits.length; at++) {
      const row = start + Math.floor(at / fewer);
      largest[row] = Math.max(largest[row]!, logits[at]! + bias[at % fewer]!);
    }
  }
  const centre = meanOfRows(weight, f);
  const middle = average(bias);
  const margins = new Float64Array(order.length);
  order.forEach((c, at) => {
    let ofAll = middle;
    for (let j = 0; j < f; j++) ofAll += means[at * f + j]! * centre[j]!;
    margins[c] = Math.max(largest[at]! - ofAll, 0);
  });
  return margins;
}

/** The mean `(f,)` of all rows. */
function meanOfRows(values: ArrayLike<number>, f: number): Float64Array {
  const sums = new Float64Array(f);
  for (let at = 0; at < values.length; at++) sums[at % f] = sums[at % f]! + values[at]!;
  return sums.map((sum) => (sum * f) / values.length);
}

/**
 * `known` and the sketch of a task's images, which are part of `statistics` and were judged by its discriminant; `known` as
 * it is where no class has two images.
 */
export function measured(
  known: Familiarity | undefined,
  statistics: ClassStatistics,
  { discriminant, features, rows, logits }: JudgedImages,
): Familiarity | undefined {
  if (!rows.length) return known;
  const { features: f, classes } = statistics;
  const odd = new OddnessLeftOut(statistics);
  const each = marginsOf(logits, classes.length);
  const margins = new Map<number, number[]>();
  const oddness = new Map<number, number[]>();
  for (const [i, c] of rows.entries()) {
    if (!margins.has(c)) for (const one of [margins, oddness]) one.set(c, []);
    margins.get(c)!.push(each[i]!);
    oddness.get(c)!.push(odd.of(features.subarray(i * f, (i + 1) * f), c));
  }
  const there = [...margins.keys()].sort((a, b) => a - b);
  const ofMeans = marginsOf(discriminant.atMeans(there, [...classes.keys()]), classes.length);
  const atMeans = new Map(there.map((c, at) => [c, ofMeans[at]!]));
  const seen = there.filter((c) => atMeans.get(c)! > 0);
  if (!seen.length) return known;
  const found = new Familiarity(
    seen.map((c) => classes[c]!),
    tableOf(seen.map((c) => margins.get(c)!.map((value) => value / atMeans.get(c)!))),
    tableOf(seen.map((c) => oddness.get(c)!.map((value) => value / odd.typical[c]!))),
  );
  return known ? known.merge(found) : found;
}

function tableOf(rows: readonly number[][]): Float32Array {
  return Float32Array.from(
    rows.flatMap((row) => {
      const sorted = Float64Array.from(row).sort();
      return Array.from({ length: QUANTILES }, (_, j) =>
        Math.max(quantile(sorted, (j + 0.5) / QUANTILES), UNKNOWN.leastMargin),
      );
    }),
  );
}

/** Of ascending values, between two of them as far along as `share` is. */
function quantile(sorted: Float64Array, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const next = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return sorted[below]! + (place - below) * (next - sorted[below]!);
}

function penalty(oddness: number, usual: number): number {
  return Math.exp(UNKNOWN.steepness * Math.max(oddness / usual - 1, 0));
}

function average(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Of logits `(n, count)`, how far each row's largest stands above its mean. */
function marginsOf(logits: Float64Array, count: number): Float64Array {
  return Float64Array.from({ length: logits.length / count }, (_, i) => {
    const row = logits.subarray(i * count, (i + 1) * count);
    return row.reduce((most, value) => Math.max(most, value)) - average(row);
  });
}

/** By feature, with every class counting the same. */
interface Spread {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
  readonly within: Float64Array;
  /** How odd each class is, `(C,)`. */
  readonly typical: Float64Array;
}

function spreadOf(statistics: ClassStatistics): Spread {
  const { features: f, counts, scatter } = statistics;
  const means = meansOf(statistics);
  const count = counts.length;
  const freedom = freedomOf(counts);
  const mean = new Float64Array(f);
  const within = new Float64Array(f);
  const variance = new Float64Array(f);
  for (let j = 0; j < f; j++) {
    for (let c = 0; c < count; c++) mean[j] = mean[j]! + means[c * f + j]! / count;
    within[j] = Math.max(scatter[j * f + j]!, 0) / freedom;
    let between = 0;
    for (let c = 0; c < count; c++) between += (means[c * f + j]! - mean[j]!) ** 2 / count;
    variance[j] = within[j]! + between;
  }
  const more = UNKNOWN.leastVariance * average(variance) + roundingOf(statistics);
  for (let j = 0; j < f; j++) variance[j] = variance[j]! + more;
  const typical = Float64Array.from({ length: count }, (_, c) => {
    let sum = 0;
    for (let j = 0; j < f; j++) {
      const square = within[j]! + (means[c * f + j]! - mean[j]!) ** 2;
      sum += Math.min(square / variance[j]!, UNKNOWN.mostSquared);
    }
    return sum / f;
  });
  return { mean, variance, within, typical };
}

/** How odd images are that are in the statistics, each left out of its class's mean and its scatter. */
class OddnessLeftOut {
  readonly typical: Float64Array;
  private readonly means: Float64Array;
  private readonly squares: Float64Array;
  private readonly spread: Spread;

  constructor(private readonly statistics: ClassStatistics) {
    const { features: f, counts } = statistics;
    this.means = meansOf(statistics);
    this.spread = spreadOf(statistics);
    this.typical = this.spread.typical;
    this.squares = new Float64Array(f);
    for (let at = 0; at < this.means.length; at++) {
      this.squares[at % f] = this.squares[at % f]! + this.means[at]! ** 2 / counts.length;
    }
  }

  of(x: Float32Array, own: number): number {
    const { features: f, counts } = this.statistics;
    const { mean, variance, within } = this.spread;
    const classes = counts.length;
    const n = counts[own]!;
    const freedom = freedomOf(counts);
    let sum = 0;
    for (let j = 0; j < f; j++) {
      const at = this.means[own * f + j]!;
      const r = x[j]! - at;
      const moved = at - r / (n - 1);
      const others = mean[j]! + (moved - at) / classes;
      const between = this.squares[j]! + (moved ** 2 - at ** 2) / classes - others ** 2;
      const left = within[j]! - ((n / (n - 1)) * r ** 2) / freedom + Math.max(between, 0);
      const square = (x[j]! - others) ** 2 / Math.max(left, UNKNOWN.leastVariance * variance[j]!);
      sum += Math.min(square, UNKNOWN.mostSquared);
    }
    return sum / f;
  }
}
