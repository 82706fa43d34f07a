/**
 * Do a task's labels say anything about its images? Cross-validated accuracy of a linear head, exactly.
 *
 * On the features as they are before training, a head fitted to nine tenths of the images is asked for the others. By
 * the shortcut of ridge regression (Allen, 1974; for folds, residuals times `(I - H)^-1` of the fold's block) this takes
 * one fit, not ten (docs/decisions/0015-label-check.md).
 */

import { LABEL_CHECK } from '../contract/thresholds.js';
import { standardized } from './logistic.js';
import { argmax, identity, rowsAt, timesTransposed, transposed } from './matrix.js';
import { roundHalfToEven } from './rounding.js';
import { solveSymmetric } from './symmetric.js';

/**
 * What a head says of images it was not fitted on: `accuracy`, the mean of the classes' own, and `chance`, in 0..1.
 * `pictures` is how many images of equally frequent classes would tell as much; 0 where nothing can be told.
 */
export interface LabelEvidence {
  readonly accuracy: number;
  readonly chance: number;
  readonly pictures: number;
}

/**
 * Whether labels that are a fifth of the way from chance to perfect would hardly ever have done this badly. Few images
 * cannot refute anything.
 */
export function isRefuted({ accuracy, chance, pictures }: LabelEvidence): boolean {
  const count = roundHalfToEven(pictures);
  return (
    atMost(Math.floor(accuracy * count + 0.5), count, chance + LABEL_CHECK.useful * (1 - chance)) <
    LABEL_CHECK.level
  );
}

/**
 * Of features `(n, f)` and labels `(n,)` into `classes`. Classes with fewer than two images cannot be left out and
 * found again; they are left aside. Of images that all look the same, no labels tell anything, however few there are.
 */
export function classEvidence(
  features: Float32Array,
  f: number,
  labels: ArrayLike<number>,
  classes: number,
): LabelEvidence {
  const paired = (rows: readonly number[]): number[] => {
    const counts = new Int32Array(classes);
    for (const row of rows) counts[labels[row]!] = counts[labels[row]!]! + 1;
    return rows.filter((row) => counts[labels[row]!]! >= 2);
  };
  const kept = paired(paired(Array.from(labels, (_, row) => row)).slice(0, LABEL_CHECK.mostImages));
  const present = [...new Set(kept.map((row) => labels[row]!))].sort((a, b) => a - b);
  const count = present.length;
  if (count < 2) return { accuracy: 1, chance: 1, pictures: 0 };
  const { x, scale } = standardized(rowsAt(features, kept, f), kept.length, f);
  if (scale.every((deviation) => deviation === Number.POSITIVE_INFINITY)) {
    // One image to the network, under several names.
    return { accuracy: 1 / count, chance: 1 / count, pictures: LABEL_CHECK.certain };
  }
  const own = kept.map((row) => present.indexOf(labels[row]!));
  const sizes = present.map((_, c) => own.filter((label) => label === c).length);
  const targets = new Float64Array(kept.length * count);
  for (const [i, label] of own.entries()) targets[i * count + label] = 1;
  const weights = own.map((label) => 1 / sizes[label]!);
  const scores = heldOut(x, targets, weights, foldsOf(own));
  const right = new Int32Array(count);
  own.forEach((label, i) => {
    if (argmax(scores, i * count, count) === label) right[label] = right[label]! + 1;
  });
  const recalls = sizes.map((size, label) => right[label]! / size);
  // The variance of a mean of recalls is that of so many images.
  const pictures = count ** 2 / sizes.reduce((sum, size) => sum + 1 / size, 0);
  return { accuracy: recalls.reduce((sum, recall) => sum + recall, 0) / count, chance: 1 / count, pictures };
}

/**
 * For each image, what ridge regression fitted to the other folds says of it: `(n, columns)`.
 *
 * features `(n, f)`, targets `(n, columns)`, `weights` of the images in the fit, and numbers of `folds`, `(n,)`. The
 * scaling of the features is that of all images; it knows no label.
 */
export function heldOutScores(
  features: Float32Array,
  f: number,
  targets: Float64Array,
  weights: readonly number[],
  folds: readonly number[],
): Float64Array {
  return heldOut(standardized(features, weights.length, f).x, targets, weights, folds);
}

/** `heldOutScores` of features as `standardized` gives them, `(n, f + 1)`. */
function heldOut(
  x: Float64Array,
  targets: Float64Array,
  weights: readonly number[],
  folds: readonly number[],
): Float64Array {
  const n = weights.length;
  const p = x.length / n;
  const columns = targets.length / n;
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / n;
  const root = weights.map((weight) => Math.sqrt(weight / mean));
  const design = x.map((value, at) => root[Math.floor(at / p)]! * value);
  const rest = residualMaker(design, n, p);
  const weighted = targets.map((value, at) => root[Math.floor(at / columns)]! * value);
  const residual = timesTransposed(rest, transposed(weighted, n, columns), n, columns, n);
  for (let fold = 0; fold <= Math.max(...folds); fold++) {
    const rows = folds.flatMap((one, row) => (one === fold ? [row] : []));
    const block = Float64Array.from(rows.flatMap((row) => rows.map((column) => rest[row * n + column]!)));
    const right = Float64Array.from(rows.flatMap((row) => columnsOf(residual, row, columns)));
    const solved = solveSymmetric(block, right, rows.length, columns);
    rows.forEach((row, i) => {
      residual.set(solved.subarray(i * columns, (i + 1) * columns), row * columns);
    });
  }
  return targets.map((value, at) => value - residual[at]! / root[Math.floor(at / columns)]!);
}

/** `I - H` `(n, n)` of ridge regression on a design `(n, p)`: what it leaves of the targets. */
function residualMaker(design: Float64Array, n: number, p: number): Float64Array {
  const ridge = (LABEL_CHECK.ridge * design.reduce((sum, value) => sum + value ** 2, 0)) / n;
  const loaded = (gram: Float64Array, size: number): Float64Array => {
    for (let i = 0; i < size; i++) gram[i * size + i] = gram[i * size + i]! + ridge;
    return gram;
  };
  if (n <= p) {
    // I - K (K + r I)^-1 = r (K + r I)^-1.
    const kernel = loaded(timesTransposed(design, design, n, n, p), n);
    return solveSymmetric(kernel, identity(n), n, n).map((value) => ridge * value);
  }
  const across = transposed(design, n, p);
  const fit = solveSymmetric(loaded(timesTransposed(across, across, p, p, n), p), across, p, n);
  const smoother = timesTransposed(design, transposed(fit, p, n), n, n, p);
  return smoother.map((value, at) => (at % (n + 1) === 0 ? 1 : 0) - value);
}

/** The images of each class in turn to folds 0, 1, ... */
function foldsOf(labels: readonly number[]): number[] {
  const seen = new Map<number, number>();
  return labels.map((label) => {
    const count = seen.get(label) ?? 0;
    seen.set(label, count + 1);
    return count % LABEL_CHECK.folds;
  });
}

function columnsOf(matrix: Float64Array, row: number, columns: number): number[] {
  return Array.from(matrix.subarray(row * columns, (row + 1) * columns));
}

/** P(X <= successes) of a binomial X. */
function atMost(successes: number, trials: number, probability: number): number {
  if (successes >= trials) return 1;
  let logTerm = trials * Math.log1p(-probability);
  let sum = Math.exp(logTerm);
  for (let k = 1; k <= successes; k++) {
    logTerm += Math.log((trials - k + 1) / k) + Math.log(probability) - Math.log1p(-probability);
    sum += Math.exp(logTerm);
  }
  return sum;
}
