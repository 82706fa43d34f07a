/** What a task contributes to what is known, class by class. */

import { calibrated } from '../method/calibration.js';
import { type Contribution, ContributionSum, Lesson } from '../method/contributions.js';
import { ClassStatistics } from '../method/heads.js';
import { rowsAt } from '../method/matrix.js';
import type { FeatureSample } from '../network/features.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import type { TaskTraining } from './training.js';

/** Features `(n, f)` of a task, and their labels `(n,)` into `classes`. */
export interface Taught {
  readonly features: Float32Array;
  readonly labels: Int32Array;
  readonly classes: readonly string[];
}

/** Of a task's features, labels and classes those that count in what is known. */
export function countedOf(
  { bundle, classes }: TaskTraining,
  { features, labels }: Omit<Taught, 'classes'>,
  apart: readonly string[],
): Taught {
  if (!apart.length) return { features, labels, classes };
  const f = bundle.manifest.head.features;
  const counted = classes.filter((name) => !apart.includes(name));
  const place = classes.map((name) => counted.indexOf(name));
  const rows = [...labels.keys()].filter((i) => place[labels[i]!]! >= 0);
  const own = Int32Array.from(rows, (i) => place[labels[i]!]!);
  return { features: rowsAt(features, rows, f), labels: own, classes: counted };
}

/** One for each class; none where nothing is to be kept of classes. */
export function sumsOf({ bundle, classes, config }: TaskTraining): ContributionSum[] {
  if (!config.classStatistics) return [];
  return classes.map(() => new ContributionSum(bundle.manifest.head.features));
}

/** Add a batch, features `(n, f)` and labels `(n,)`. */
export function count(
  sums: readonly ContributionSum[],
  features: Float32Array,
  labels: Int32Array,
  f: number,
): void {
  for (const [label, sum] of sums.entries()) {
    const rows = Array.from(labels, (_, i) => i).filter((i) => labels[i] === label);
    sum.add(rowsAt(features, rows, f));
  }
}

/** What the task's classes contribute; empty where nothing is kept of them. */
export function totalsOf(
  { classes }: TaskTraining,
  sums: readonly ContributionSum[],
): ReadonlyMap<string, Contribution> {
  const totals = sums.map((sum, label) => [classes[label]!, sum.total()] as const);
  return new Map(totals.filter(([, { count: images }]) => images));
}

/** What of it counts in what is known: not classes that are `apart`. */
export function lessonOf(
  { classes }: TaskTraining,
  contributions: ReadonlyMap<string, Contribution>,
  temperature: number | undefined,
  apart: readonly string[],
): Lesson {
  const counted = classes.filter((name) => !apart.includes(name));
  const found = new Map([...contributions].filter(([name]) => !apart.includes(name)));
  return new Lesson(counted, found, temperature);
}

/** What is measured on the task, but for classes that are `apart`; undefined where the bundle brings one. */
export function temperatureOf(
  training: TaskTraining,
  sample: FeatureSample,
  apart: readonly string[],
): number | undefined {
  const { bundle } = training;
  if (bundle.checkpoint.has('statistics.temperature')) return undefined;
  const { features, labels, classes } = countedOf(training, sample.arrays(), apart);
  const empty = ClassStatistics.empty(bundle.manifest.head.features);
  return calibrated(empty, features, labels, classes, PRIOR_IMAGES).temperature;
}
