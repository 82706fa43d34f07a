/**
 * More images of classes that are known already: how much they count beside those that came before.
 *
 * Classes are one by name. New images of a known class are mostly of another kind than the old ones, or nobody would
 * have collected them; but ten of them vanish in a mean over five hundred. So all that a task brings of known classes
 * count as much together as those that were there (docs/decisions/0017-known-classes.md).
 */

import { KNOWN_CLASSES } from '../contract/thresholds.js';
import { ClassStatistics } from './heads.js';

/** Which of a task's classes are known by `old` statistics, and the statistics of its images of these. */
export class KnownClasses {
  readonly names: readonly string[];
  /** By class of the task, its place in `names`, or -1. */
  private readonly places: readonly number[];
  private again: ClassStatistics;

  constructor(
    classes: readonly string[],
    private readonly old: ClassStatistics,
  ) {
    const seen = new Set(old.classes.filter((_, c) => old.counts[c]! > 0));
    this.names = classes.filter((name) => seen.has(name));
    this.places = classes.map((name) => this.names.indexOf(name));
    this.again = ClassStatistics.empty(old.features);
  }

  /** One batch of the task: features `(n, f)`, labels `(n,)` into its classes. */
  add(features: Float32Array, labels: ArrayLike<number>): void {
    if (!this.names.length) return;
    const f = this.old.features;
    const rows = Array.from(labels).flatMap((label, row) => (this.places[label]! >= 0 ? [row] : []));
    const known = new Float32Array(rows.length * f);
    rows.forEach((row, at) => {
      known.set(features.subarray(row * f, (row + 1) * f), at * f);
    });
    const places = rows.map((row) => this.places[labels[row]!]!);
    this.again = this.again.add(known, places, this.names);
  }

  /** `learned`, the task's statistics, with the images of known classes counted more often. */
  balance(learned: ClassStatistics): ClassStatistics {
    const count = total(this.again, this.names);
    if (!count) return learned;
    const factor = Math.min(KNOWN_CLASSES.most, Math.max(1, total(this.old, this.names) / count));
    return learned.merge(scaled(this.again, factor - 1));
  }
}

function total({ classes, counts }: ClassStatistics, names: readonly string[]): number {
  return classes.reduce((sum, name, c) => sum + (names.includes(name) ? counts[c]! : 0), 0);
}

/** The statistics of each image counted `factor` times. */
function scaled(
  { features, classes, gram, sums, counts, temperature }: ClassStatistics,
  factor: number,
): ClassStatistics {
  const times = (values: Float64Array): Float64Array => values.map((value) => value * factor);
  return new ClassStatistics(features, classes, times(gram), times(sums), times(counts), temperature);
}
