/**
 * A head over all classes learned so far, in closed form, from statistics that can be added up class by class.
 *
 * A device cannot keep the images of past tasks, but it can keep sums over their features. From these sums a head over
 * all classes follows without training, and so without forgetting.
 */

import { StateError, TaskError } from '../errors.js';
import { textOf, utf8 } from '../formats/bytes.js';
import { allFinite } from '../formats/finite.js';
import { float32, float64, type StoredTensor, type Tensors, uint8 } from '../formats/tensors.js';
import { betweenClasses, covarianceWithin, freedomOf, roundingOf, variancesWithin } from './covariance.js';
import type { HeadArrays, Whitening } from './logistic.js';
import { add, difference, timesTransposed, trace, transposed } from './matrix.js';
import { SymmetricSystem } from './symmetric.js';
import { ThinSystem, thinCovariance } from './thin.js';

const TEMPERATURE = 'statistics.temperature';
/** What they are stored as, now and at first, behind "statistics.". */
export const STATISTICS = ['classes', 'scatter', 'means', 'gram', 'sums', 'counts', 'temperature'] as const;

/**
 * Sums over the features of everything learned so far. `gram` `(f, f)`: sum of `x x^T` over all samples; or of `scatter`, the
 * same around the classes' means: each is made of the other where it is asked for, and neither is ever changed. `sums`
 * `(classes, f)`, `counts` `(classes,)`: sum of `x`, and number of samples, per class. `temperature` is what the
 * discriminant's scores are divided by to be probabilities, undefined where it was never measured (calibration.ts).
 */
export class ClassStatistics {
  #gram: Float64Array | undefined;
  #scatter: Float64Array | undefined;

  constructor(
    readonly features: number,
    readonly classes: readonly string[],
    gram: Float64Array | { readonly scatter: Float64Array },
    readonly sums: Float64Array,
    readonly counts: Float64Array,
    readonly temperature?: number,
  ) {
    if (gram instanceof Float64Array) this.#gram = gram;
    else this.#scatter = gram.scatter;
  }

  get gram(): Float64Array {
    if (!this.#gram) {
      this.#gram = betweenClasses(this.sums, this.counts, this.features);
      add(this.#gram, this.#scatter!);
    }
    return this.#gram;
  }

  get scatter(): Float64Array {
    this.#scatter ??= difference(this.gram, betweenClasses(this.sums, this.counts, this.features));
    return this.#scatter;
  }

  static empty(features: number): ClassStatistics {
    return new ClassStatistics(
      features,
      [],
      new Float64Array(features * features),
      new Float64Array(0),
      new Float64Array(0),
    );
  }

  /**
   * These statistics and a batch: `features` `(n, f)`, `labels` `(n,)` into `classes`, all of which become known.
   * Throws TaskError for features that are not finite.
   */
  add(features: Float32Array, labels: ArrayLike<number>, classes: readonly string[]): ClassStatistics {
    const f = this.features;
    const n = labels.length;
    if (!allFinite(features)) {
      throw new TaskError(
        "the model's features are NaN or infinite for some images of this task: " +
          "check the images, and that the bundle's preprocessing fits the model.",
      );
    }
    const columns = transposed(features, n, f);
    const sums = new Float64Array(classes.length * f);
    const counts = new Float64Array(classes.length);
    for (let i = 0; i < n; i++) {
      const row = labels[i]! * f;
      counts[labels[i]!] = counts[labels[i]!]! + 1;
      for (let j = 0; j < f; j++) sums[row + j] = sums[row + j]! + features[i * f + j]!;
    }
    const gram = timesTransposed(columns, columns, f, f, n);
    return this.merge(new ClassStatistics(f, classes, gram, sums, counts));
  }

  /**
   * The statistics of both: classes of the same name are summed, those new in `other` come last. The temperature that was
   * measured first stays.
   */
  merge(other: ClassStatistics): ClassStatistics {
    const f = this.features;
    if (other.features !== f) {
      throw new StateError(
        `class statistics over ${f} and ${other.features} features do not belong to one model: ` +
          'use the state with the bundle that it was made with.',
      );
    }
    const classes = [...new Set([...this.classes, ...other.classes])];
    const row = new Map(classes.map((name, index) => [name, index]));
    const sums = new Float64Array(classes.length * f);
    const counts = new Float64Array(classes.length);
    for (const part of [this, other] as const) {
      part.classes.forEach((name, from) => {
        const to = row.get(name)!;
        counts[to] = counts[to]! + part.counts[from]!;
        for (let j = 0; j < f; j++) sums[to * f + j] = sums[to * f + j]! + part.sums[from * f + j]!;
      });
    }
    const temperature = this.temperature ?? other.temperature;
    if (!this.#scatter && !other.#scatter) {
      const gram = this.gram.slice();
      add(gram, other.gram);
      return new ClassStatistics(f, classes, gram, sums, counts, temperature);
    }
    const scatter = this.scatter.slice();
    add(scatter, other.scatter);
    const apart = this.between(other);
    if (apart.length) add(scatter, timesTransposed(apart, apart, f, f, apart.length / f));
    return new ClassStatistics(f, classes, { scatter }, sums, counts, temperature);
  }

  /** Of the classes of both, what lies between their two means: `(f, n)`, whose product with its transpose is that scatter. */
  private between(other: ClassStatistics): Float64Array {
    const f = this.features;
    const pairs = this.classes
      .map((name, row) => [row, other.classes.indexOf(name)] as const)
      .filter(([row, theirs]) => this.counts[row]! > 0 && other.counts[theirs]! > 0);
    const rows = new Float64Array(pairs.length * f);
    for (const [at, [row, theirs]] of pairs.entries()) {
      const [n, m] = [this.counts[row]!, other.counts[theirs]!];
      const weight = Math.sqrt((n * m) / (n + m));
      for (let j = 0; j < f; j++) {
        rows[at * f + j] = weight * (this.sums[row * f + j]! / n - other.sums[theirs * f + j]! / m);
      }
    }
    return transposed(rows, pairs.length, f);
  }

  /** Whether both know the same classes of the same samples, to the bit; what was measured of them may differ. */
  sameAs(other: ClassStatistics): boolean {
    const same = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => {
      let at = 0;
      while (at < a.length && a[at] === b[at]) at++;
      return at === a.length && a.length === b.length;
    };
    return (
      this.classes.length === other.classes.length &&
      this.classes.every((name, c) => name === other.classes[c]) &&
      same(this.counts, other.counts) &&
      same(this.sums, other.sums) &&
      same(this.scatter, other.scatter)
    );
  }

  /** The statistics with other names of some classes; those that have one name then are one class. */
  named(names: ReadonlyMap<string, string>): ClassStatistics {
    const f = this.features;
    const own = this.classes.map((name) => names.get(name) ?? name);
    const classes = [...new Set(own)];
    const sums = new Float64Array(classes.length * f);
    const counts = new Float64Array(classes.length);
    own.forEach((name, from) => {
      const to = classes.indexOf(name);
      counts[to] = counts[to]! + this.counts[from]!;
      for (let j = 0; j < f; j++) sums[to * f + j] = sums[to * f + j]! + this.sums[from * f + j]!;
    });
    return new ClassStatistics(f, classes, this.gram, sums, counts, this.temperature);
  }

  /**
   * The statistics of the other classes; of the spread around the means, the share of the images that go, goes. Whose
   * spread it was is not known any more: a spread that all classes share stays what it is.
   */
  without(names: Iterable<string>): ClassStatistics {
    const f = this.features;
    const dropped = new Set(names);
    const kept = this.classes.flatMap((name, c) => (dropped.has(name) ? [] : [c]));
    if (kept.length === this.classes.length) return this;
    const counts = Float64Array.from(kept, (c) => this.counts[c]!);
    const sums = new Float64Array(kept.length * f);
    for (const [at, c] of kept.entries()) sums.set(this.sums.subarray(c * f, (c + 1) * f), at * f);
    const share = counts.some(Boolean) ? freedomOf(counts) / freedomOf(this.counts) : 0;
    const scatter = this.scatter.map((value) => value * share);
    return new ClassStatistics(
      f,
      kept.map((c) => this.classes[c]!),
      { scatter },
      sums,
      counts,
      this.temperature,
    );
  }

  /** How many images of these classes, names of which may be unknown, were counted. */
  count(classes: readonly string[]): number {
    const wanted = new Set(classes);
    return this.counts.reduce((sum, count, c) => sum + (wanted.has(this.classes[c]!) ? count : 0), 0);
  }

  /**
   * As tensors of a state; the names as UTF-8 JSON. `means` `(classes, f)` float32, zero for a class without samples;
   * `scatter` `(f, f)` float64: sum of `(x - mu_c) (x - mu_c)^T` over all samples, around the means before rounding.
   * Before the first class, `scatter` is `(0, 0)`. `temperature` `(1,)` float64 is there where it was measured.
   */
  tensors(): Map<string, StoredTensor> {
    const f = this.features;
    const count = this.classes.length;
    const means = new Float32Array(this.sums.length);
    for (let at = 0; at < means.length; at++) {
      means[at] = this.sums[at]! / (this.counts[Math.floor(at / f)]! || 1);
    }
    const tensors = new Map<string, StoredTensor>([
      ['statistics.classes', uint8(utf8(jsonOfNames(this.classes)))],
      ['statistics.scatter', count ? float64([f, f], this.scatter) : float64([0, 0])],
      ['statistics.means', float32([count, f], means)],
      ['statistics.counts', float64([count], this.counts)],
    ]);
    if (this.temperature !== undefined) {
      tensors.set(TEMPERATURE, float64([1], Float64Array.of(this.temperature)));
    }
    return tensors;
  }

  /** Put these statistics in the place of those in `tensors`, in whichever form they were stored. */
  replaceIn(tensors: Map<string, StoredTensor>): void {
    for (const key of STATISTICS) tensors.delete(`statistics.${key}`);
    for (const [key, tensor] of this.tensors()) tensors.set(key, tensor);
  }

  /**
   * Read back what `tensors` gave; also `gram` and `sums` as they are, which were stored at first. Throws StateError
   * when tensors are missing or do not fit together.
   */
  static from(tensors: Tensors, features: number): ClassStatistics {
    const names = tensors.get('statistics.classes');
    const summed = tensors.has('statistics.sums');
    const [square, rows] = summed ? ['gram', 'sums'] : ['scatter', 'means'];
    const stored = tensors.get(`statistics.${square}`);
    const perClass = tensors.get(`statistics.${rows}`);
    const counted = tensors.get('statistics.counts');
    let classes: unknown;
    try {
      classes = names?.dtype === 'uint8' ? JSON.parse(textOf(names.data)) : undefined;
    } catch {
      classes = undefined;
    }
    if (
      !Array.isArray(classes) ||
      stored?.dtype !== 'float64' ||
      perClass?.dtype !== (summed ? 'float64' : 'float32') ||
      counted?.dtype !== 'float64'
    ) {
      throw new StateError('the class statistics cannot be read: a tensor is missing or damaged.');
    }
    const count = classes.length;
    const counts = counted.data;
    const sums = new Float64Array(perClass.data as Float32Array | Float64Array);
    if (!count && !stored.data.length) return ClassStatistics.empty(features);
    if (stored.data.length !== features ** 2 || sums.length !== count * features || counts.length !== count) {
      throw new StateError(
        `the class statistics do not fit together: ${count} classes, ${features} features, ` +
          `${square} ${stored.data.length}, ${rows} ${sums.length}, counts ${counts.length}.`,
      );
    }
    if (!summed) {
      for (let at = 0; at < sums.length; at++) sums[at] = sums[at]! * counts[Math.floor(at / features)]!;
    }
    const gram = summed ? stored.data : { scatter: stored.data };
    return new ClassStatistics(features, classes.map(String), gram, sums, counts, temperatureIn(tensors));
  }
}

/** Whether there is something to decide between, all of it seen. */
export function decides({ classes, counts }: ClassStatistics): boolean {
  return classes.length >= 2 && counts.every((count) => count > 0);
}

/** Names of classes as a state has them: JSON in plain UTF-8, as Python writes it. */
export function jsonOfNames(names: readonly string[]): string {
  return `[${names.map((name) => JSON.stringify(name)).join(', ')}]`;
}

/** Throws StateError for one that nothing can be divided by. */
function temperatureIn(tensors: Tensors): number | undefined {
  const stored = tensors.get(TEMPERATURE);
  if (!stored) return undefined;
  const [value] = stored.data;
  if (stored.dtype !== 'float64' || stored.data.length !== 1 || !(value! > 0 && value! < Infinity)) {
    throw new StateError(
      `the class statistics have the temperature [${stored.data}], which is not one number above 0.`,
    );
  }
  return Number(value);
}

/**
 * Linear discriminant analysis (Fisher, 1936; regularised as Friedman, 1989) over all classes, with equal priors.
 *
 * `Sw = (gram - sum n_c mu_c mu_c^T) / (n - C)`, shrunk to `(1 - a) Sw + a diag(Sw)`, with
 * `a = m / (n - C + m)` as if `m = priorPictures` more images had shown no correlation; with this `S`,
 * `w_c = S^-1 mu_c`, `b_c = -mu_c^T S^-1 mu_c / 2 + tr(S^-1 Sw) / (4 n_c)`: the last term makes up for half of what a mean
 * of few images is off by (docs/decisions/0021). All is divided by the statistics' temperature. Where the data show no
 * spread within classes, the nearest class mean wins. `classes` picks, and orders, the rows that are returned. Throws
 * TaskError for a class without samples.
 */
export function ldaHead(
  statistics: ClassStatistics,
  priorPictures: number,
  classes: readonly string[] = statistics.classes,
): HeadArrays {
  const { features: f, sums } = statistics;
  const count = classes.length;
  const rows = classes.map((name) => statistics.classes.indexOf(name));
  const counts = Float64Array.from(rows, (row) => statistics.counts[row] ?? 0);
  const empty = counts.indexOf(0);
  if (!count || empty >= 0) {
    const what = count ? `class '${classes[empty]}' has no samples` : 'there are no classes';
    throw new TaskError(`${what} to compute a head from: learn a task that contains some.`);
  }
  const means = new Float64Array(count * f);
  for (const [c, row] of rows.entries()) {
    for (let j = 0; j < f; j++) means[c * f + j] = sums[row * f + j]! / counts[c]!;
  }
  const shrunk = shrunkCovariance(statistics, priorPictures);
  let weight: Float64Array;
  if (!shrunk) {
    // Any multiple of the identity decides alike; this one keeps logits O(f).
    const total = statistics.counts.reduce((sum, value) => sum + value, 0);
    const energy = trace(statistics.gram, f) / total / f || 1;
    weight = means.map((value) => value / energy);
  } else {
    weight = shrunk.system.solveRows(means, count);
  }
  const noise = shrunk?.noise() ?? 0;
  const temperature = statistics.temperature ?? 1;
  const bias = new Float32Array(count);
  for (let c = 0; c < count; c++) {
    let sum = 0;
    for (let j = 0; j < f; j++) sum += weight[c * f + j]! * means[c * f + j]!;
    bias[c] = (-0.5 * sum + noise / (4 * counts[c]!)) / temperature;
  }
  return { weight: new Float32Array(weight.map((value) => value / temperature)), bias };
}

/** A covariance within classes, decomposed; `noise` is `tr(S^-1 Sw)`, and `shrinkage` the share `a`. */
export interface ShrunkCovariance {
  readonly system: Whitening & { solveRows(rows: Float64Array, m: number): Float64Array };
  readonly noise: () => number;
  readonly shrinkage: number;
}

/** The covariance within classes as `ldaHead` shrinks it; undefined where there is no spread beyond rounding. */
export function shrunkCovariance(
  statistics: ClassStatistics,
  priorPictures: number,
): ShrunkCovariance | undefined {
  const { features: f, counts } = statistics;
  const own = variancesWithin(statistics);
  const floor = roundingOf(statistics);
  if (own.reduce((sum, value) => sum + value, 0) / f <= floor) return undefined;
  const shrinkage = priorPictures / (freedomOf(counts) + priorPictures);
  const ridge = own.map((value) => shrinkage * value + floor);
  // Without a prior, nothing but rounding keeps a covariance of few images regular.
  const thin = priorPictures > 0 ? thinCovariance(statistics) : undefined;
  if (thin) {
    const system = new ThinSystem(thin, ridge, 1 - shrinkage);
    return { system, shrinkage, noise: onceOf(() => system.noise()) };
  }
  const loaded = covarianceWithin(statistics, 1 - shrinkage);
  for (let j = 0; j < f; j++) loaded[j * f + j] = loaded[j * f + j]! + ridge[j]!;
  const system = new SymmetricSystem(loaded, f);
  const noise = onceOf(() => {
    // Of Sw = (S - ridge) / (1 - a).
    const inverse = system.inverseDiagonal();
    return ridge.reduce((sum, value, j) => sum + 1 - value * inverse[j]!, 0) / (1 - shrinkage);
  });
  return { system, shrinkage, noise };
}

/** What computes a number when it is first asked for, and then knows it. */
function onceOf(compute: () => number): () => number {
  let found: number | undefined;
  return () => {
    found ??= compute();
    return found;
  };
}
