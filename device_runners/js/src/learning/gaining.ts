/** Whether training a task pays, measured while it is trained: docs/decisions/0035-train.md. */

import { followsDrift } from '../config.js';
import type { Tensors } from '../formats/tensors.js';
import { float32, require32, type StoredTensor } from '../formats/tensors.js';
import { DriftEstimate } from '../method/drift.js';
import { type Gain, gainOf, isClear, type Judged, judgedBy } from '../method/gain.js';
import { ClassStatistics } from '../method/heads.js';
import { rowsAt } from '../method/matrix.js';
import { type Batches, FeatureExtractor } from '../network/features.js';
import { requireConverged } from '../network/finite.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import { forgettingOf, headsIn, movedCenters } from './consolidation.js';
import type { TaskTraining } from './training.js';

/** Features of a batch, and its labels. */
interface Part {
  readonly features: Float32Array;
  readonly labels: ArrayLike<number>;
}

/**
 * What the share `done` of training has gained on the images of `batches` that no step has seen, and what it has cost.
 *
 * `heldOut` says by image which these are; heads are made of the others. What old tasks have lost is looked at only where
 * there is a clear gain. Nothing changes: the next step is what it would have been.
 */
export async function gainSoFar(
  training: TaskTraining,
  batches: Batches,
  heldOut: readonly boolean[],
  done: number,
): Promise<Gain> {
  await training.close();
  const were = training.keptOf(batches)?.pairs() ?? (await seenBy(training, training.tensors, batches));
  const moved = new Map([...training.tensors, ...movedCenters(training)]);
  const are = await seenBy(training, moved, batches);
  const gain = gainOf(judged(training, were, heldOut), judged(training, are, heldOut), done);
  return isClear(gain) ? { ...gain, lost: lostBetween(training, were, are) } : gain;
}

/** Features of all images, as the network in `tensors` sees them. */
async function seenBy(training: TaskTraining, tensors: Tensors, batches: Batches): Promise<Part[]> {
  const { bundle, opening } = training;
  const seen: Part[] = [];
  const extractor = await FeatureExtractor.open(bundle, tensors, opening);
  try {
    for (const { images, labels } of batches()) {
      const features = await extractor.features(images);
      requireConverged('features', features);
      seen.push({ features, labels });
    }
  } finally {
    await extractor.close();
  }
  return seen;
}

/** What a discriminant of the others says of those held out. */
function judged(training: TaskTraining, seen: readonly Part[], heldOut: readonly boolean[]): Judged {
  const f = training.bundle.manifest.head.features;
  const labels = seen.flatMap((part) => Array.from(part.labels));
  const features = new Float32Array(labels.length * f);
  let at = 0;
  for (const part of seen) {
    features.set(part.features, at);
    at += part.features.length;
  }
  const rows = (held: boolean): number[] => labels.flatMap((_, i) => (heldOut[i] === held ? [i] : []));
  const of = (chosen: readonly number[]) =>
    [rowsAt(features, chosen, f), chosen.map((i) => labels[i]!)] as const;
  const known = ClassStatistics.empty(f).add(...of(rows(false)), training.classes);
  return judgedBy(known, ...of(rows(true)), training.classes, PRIOR_IMAGES);
}

/** Percentage points that the old task loses that loses most, with heads that have followed the drift; 0 or more. */
function lostBetween(training: TaskTraining, were: readonly Part[], are: readonly Part[]): number {
  const estimate = new DriftEstimate(training.bundle.manifest.head.features);
  were.forEach((old, at) => {
    estimate.add(old.features, are[at]!.features);
  });
  const drift = estimate.fit();
  const heads = new Map<string, StoredTensor>(training.tensors);
  if (followsDrift(training.config)) {
    for (const name of headsIn(heads)) {
      const key = `head/${name}/weight`;
      const { shape, data } = require32(heads, key);
      heads.set(key, float32(shape, drift.head(data)));
    }
  }
  return Math.max(0, ...forgettingOf(training, heads, drift).values());
}
