/**
 * What one class of one task contributes to what a device knows, small enough to keep beside all others.
 *
 * A device's knowledge of its classes is a sum over images. Kept apart, class by class, its parts can be taken out again:
 * one is dropped, and the sum is made anew of what is left. Full, a part is a matrix of features by features; here its
 * spread is a few rows. docs/decisions/0030-ledger.md.
 */

import { CONTRIBUTIONS } from '../contract/thresholds.js';
import { StateError } from '../errors.js';
import { float32, float64, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { ClassStatistics } from './heads.js';
import { timesCounted } from './knownClasses.js';
import type { LinearMap } from './linearMap.js';
import { columnSquares, eigenSymmetric, scaled, timesTransposed, transposed } from './matrix.js';
import { Random } from './random.js';

/** Of the spread of a class in one task: directions that are kept as they are, and mixtures of what these leave. */
export const DIRECTIONS = CONTRIBUTIONS.directions;
export const MIXTURES = CONTRIBUTIONS.mixtures;
const AT_ONCE = CONTRIBUTIONS.atOnce;

/**
 * `count` images of a class with the mean `(f,)`; their scatter around it is nearly `factor^T factor`, `factor` `(rows, f)`.
 * The spread of each single feature is exact.
 */
export class Contribution {
  constructor(
    readonly count: number,
    readonly mean: Float32Array,
    readonly factor: Float32Array,
  ) {}

  /** The images of both, as those of one class; exact, with as many rows as both have and one more. */
  with(other: Contribution): Contribution {
    const f = this.mean.length;
    const count = this.count + other.count;
    const factor = new Float32Array(this.factor.length + other.factor.length + f);
    factor.set(this.factor);
    factor.set(other.factor, this.factor.length);
    const mean = new Float32Array(f);
    const weight = Math.sqrt((this.count * other.count) / count);
    for (let j = 0; j < f; j++) {
      const [mine, theirs] = [this.mean[j]!, other.mean[j]!];
      mean[j] = (this.count * mine + other.count * theirs) / count;
      factor[factor.length - f + j] = weight * (mine - theirs);
    }
    return new Contribution(count, mean, factor);
  }

  /** For a safetensors file: `count` `(1,)` float64, `mean` and `factor` float32. */
  tensors(): Map<string, StoredTensor> {
    const f = this.mean.length;
    return new Map<string, StoredTensor>([
      ['count', float64([1], Float64Array.of(this.count))],
      ['mean', float32([f], this.mean)],
      ['factor', float32([this.factor.length / f, f], this.factor)],
    ]);
  }

  /** Read back what `tensors` gave. Throws StateError where that is none over so many features. */
  static from(tensors: Tensors, features: number): Contribution {
    const [count, mean, factor] = ['count', 'mean', 'factor'].map((name) => tensors.get(name));
    const finite = (one: StoredTensor): boolean => Array.from(one.data, Number).every(Number.isFinite);
    if (
      count?.dtype !== 'float64' ||
      mean?.dtype !== 'float32' ||
      factor?.dtype !== 'float32' ||
      count.data.length !== 1 ||
      mean.data.length !== features ||
      factor.shape.length !== 2 ||
      factor.shape[1] !== features ||
      ![count, mean, factor].every(finite)
    ) {
      throw new StateError(`a contribution is not one over ${features} features.`);
    }
    return new Contribution(count.data[0]!, mean.data, factor.data);
  }
}

/**
 * Makes a contribution of images that come in batches, in memory that does not grow with them.
 *
 * Of the images around their mean, `directions` rows are those of the largest spread. What these leave is mixed, with random
 * signs, into `mixtures` more: on average over signs, what these say of any two features is what was left of them, so that
 * the errors of many classes cancel out where those of rows that are cut off add up.
 */
export class ContributionSum {
  private readonly most: number;
  private readonly mixtures: number;
  /** Of contributions that are added, so many more rows are kept before they become directions: that takes long. */
  private readonly wait: number;
  private readonly mixed: Float64Array;
  private readonly energy: Float64Array;
  private readonly mean: Float64Array;
  private rows: Float64Array = new Float64Array(0);
  private mixes = false;
  private images = 0;
  private waiting: Float32Array[] = [];
  private waits = 0;
  /** Of each class the same signs: a contribution is to depend on its own images alone. */
  private readonly signs = new Random(0);

  constructor(
    private readonly features: number,
    {
      directions = DIRECTIONS,
      mixtures = MIXTURES,
      wait = 0,
    }: { directions?: number; mixtures?: number; wait?: number } = {},
  ) {
    this.wait = wait;
    this.most = directions;
    this.mixtures = mixtures;
    this.mixed = new Float64Array(mixtures * features);
    this.energy = new Float64Array(features);
    this.mean = new Float64Array(features);
  }

  /** More images: `(n, f)`, finite. */
  add(features: Float32Array): void {
    const f = this.features;
    const room = this.most + this.mixtures + AT_ONCE;
    for (let start = 0; start < features.length; start += AT_ONCE * f) {
      const part = features.slice(start, start + AT_ONCE * f);
      if (this.waits + part.length / f > room) this.takeIn();
      this.waiting.push(part);
      this.waits += part.length / f;
    }
  }

  /** The images of a contribution, of which it has the mean and the spread. */
  addContribution({ count, mean, factor }: Contribution): void {
    this.takeIn();
    this.join(count, Float64Array.from(mean), Float64Array.from(factor), this.wait);
  }

  /** Of everything added. */
  total(): Contribution {
    const f = this.features;
    this.takeIn();
    if (this.count > this.most + this.mixtures || this.mixes) this.shorten();
    else if (this.count > 1) {
      // Nothing is lost, but no row is an image's any more.
      this.rows = timesTransposed(
        this.directions(this.count),
        transposed(this.rows, this.count, f),
        this.count,
        f,
        this.count,
      );
    }
    const mixed = this.mixes ? this.mixed : new Float64Array(0);
    const [kept, found] = [columnSquares(this.rows, f), columnSquares(mixed, f)];
    // Each feature's own spread is known exactly.
    const scale = this.energy.map((energy, j) =>
      found[j]! > 0 ? Math.sqrt(Math.max(energy - kept[j]!, 0) / found[j]!) : 0,
    );
    const factor = new Float32Array(this.rows.length + mixed.length);
    factor.set(this.rows);
    mixed.forEach((value, at) => {
      factor[this.rows.length + at] = value * scale[at % f]!;
    });
    return new Contribution(this.images, Float32Array.from(this.mean), factor);
  }

  /** How many rows there are. */
  private get count(): number {
    return this.rows.length / this.features;
  }

  /** The waiting images into mean and rows. */
  private takeIn(): void {
    if (!this.waits) return;
    const f = this.features;
    const count = this.waits;
    const rows = joined(this.waiting);
    this.waiting = [];
    this.waits = 0;
    const means = new Float64Array(f);
    for (let j = 0; j < f; j++) {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += rows[i * f + j]!;
      means[j] = sum / count;
      for (let i = 0; i < count; i++) rows[i * f + j] = rows[i * f + j]! - means[j]!;
    }
    this.join(count, means, rows, 0);
  }

  /** `count` more images around `mean`, whose scatter is that of `rows`; `wait` rows more are kept as they are. */
  private join(count: number, mean: Float64Array, rows: Float64Array, wait: number): void {
    const f = this.features;
    const before = this.images;
    const both = before + count;
    // Behind the rows that are there: the new ones, and one between the mean of these and that of the others.
    const old = this.rows.length;
    const all = new Float64Array(old + rows.length + (before ? f : 0));
    all.set(this.rows);
    all.set(rows, old);
    const weight = Math.sqrt((before * count) / both);
    for (let j = 0; j < f; j++) {
      const apart = mean[j]! - this.mean[j]!;
      if (before) all[old + rows.length + j] = weight * apart;
      this.mean[j] = this.mean[j]! + apart * (count / both);
    }
    this.images = both;
    columnSquares(all.subarray(old), f).forEach((square, j) => {
      this.energy[j] = this.energy[j]! + square;
    });
    this.rows = all;
    if (this.count > this.most + this.mixtures + wait) this.shorten();
  }

  /** The `most` directions of the largest spread, as combinations of the rows: `(most, count)`. */
  private directions(most: number): Float64Array {
    const n = this.count;
    // Of the rows' products with one another, which are few, and not of the features'.
    const { vectors } = eigenSymmetric(timesTransposed(this.rows, this.rows, n, n, this.features), n);
    return vectors.slice(Math.max(n - most, 0) * n);
  }

  /** Rows to directions, and what these leave into the mixtures. */
  private shorten(): void {
    const { features: f, count: n, mixtures } = this;
    const chosen = this.directions(this.most);
    const k = chosen.length / n;
    const signs = Float64Array.from({ length: mixtures * n }, () => (this.signs.bits() >>> 31 ? 1 : -1));
    const combined = new Float64Array(chosen.length + signs.length);
    combined.set(chosen);
    combined.set(signs, chosen.length);
    const found = timesTransposed(combined, transposed(this.rows, n, f), k + mixtures, f, n);
    this.rows = found.slice(0, k * f);
    if (!mixtures) return;
    // Less what the directions say of the same rows.
    const along = timesTransposed(signs, chosen, mixtures, k, n);
    const explained = timesTransposed(along, transposed(this.rows, k, f), mixtures, f, k);
    for (let at = 0; at < explained.length; at++) {
      this.mixed[at] = this.mixed[at]! + (found[k * f + at]! - explained[at]!) / Math.sqrt(mixtures);
    }
    this.mixes ||= this.mixed.some(Boolean);
  }
}

/**
 * What a task contributed: of each of its `classes` that there were images of, a contribution. `temperature` is what was
 * measured on it, where the bundle brings none.
 */
export class Lesson {
  constructor(
    readonly classes: readonly string[],
    readonly contributions: ReadonlyMap<string, Contribution>,
    readonly temperature?: number,
  ) {}

  /** `known`, and this lesson; new images of known classes count as they are to (knownClasses.ts). */
  after(known: ClassStatistics): ClassStatistics {
    const f = known.features;
    const images = new Map([...this.contributions].map(([name, { count }]) => [name, count]));
    const times = timesCounted(images, known);
    const sums = new Float64Array(this.classes.length * f);
    const counts = new Float64Array(this.classes.length);
    const factors: Float64Array[] = [];
    for (const [row, name] of this.classes.entries()) {
      const one = this.contributions.get(name);
      if (!one) continue;
      const factor = times.get(name) ?? 1;
      counts[row] = factor * one.count;
      for (let j = 0; j < f; j++) sums[row * f + j] = counts[row]! * one.mean[j]!;
      factors.push(scaled(new Float64Array(one.factor), Math.sqrt(factor)));
    }
    const rows = joined(factors);
    const n = rows.length / f;
    const columns = transposed(rows, n, f);
    const scatter = timesTransposed(columns, columns, f, f, n);
    return known.merge(new ClassStatistics(f, this.classes, { scatter }, sums, counts, this.temperature));
  }

  /** As features gave it that led here through `maps`, the first of them first. */
  ledBack(maps: readonly LinearMap[]): Lesson {
    const f = [...this.contributions.values()][0]?.mean.length ?? 1;
    const parts = [...this.contributions.values()].flatMap((one) => [one.mean, one.factor]);
    let led = joined(parts);
    for (const map of [...maps].reverse()) led = map.ledBack(led, led.length / f);
    let at = 0;
    const next = (part: Float32Array): Float32Array =>
      new Float32Array(led.subarray(at, (at += part.length)));
    const found = [...this.contributions].map(
      ([name, one]) => [name, new Contribution(one.count, next(one.mean), next(one.factor))] as const,
    );
    return new Lesson(this.classes, new Map(found), this.temperature);
  }
}

function joined(parts: readonly (Float32Array | Float64Array)[]): Float64Array {
  const rows = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    rows.set(part, at);
    at += part.length;
  }
  return rows;
}

/** What a device knows that had only these lessons, in this order, after `base`: to the bit what it has stored. */
export function derived(base: ClassStatistics, lessons: Iterable<Lesson>): ClassStatistics {
  let known = base;
  for (const lesson of lessons) known = ClassStatistics.from(lesson.after(known).tensors(), known.features);
  return known;
}
