/** Whether training a task pays, measured while it is trained: docs/decisions/0035-train.md. */

import { followsDrift } from '../config.js';
import type { Tensors } from '../formats/tensors.js';
import { float32, require32, type StoredTensor } from '../formats/tensors.js';
import { DriftEstimate } from '../method/drift.js';
import { type Gain, gainOf, isClear, type Judged, judgedBy } from '../method/gain.js';
import { ClassStatistics } from '../method/heads.js';
import { type Batches, FeatureExtractor } from '../network/features.js';
import { requireConverged } from '../network/finite.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import { forgettingOf, headsIn, movedCenters } from './consolidation.js';
import type { TaskTraining } from './training.js';

/**
 * What the share `done` of training has gained on `heldOut` batches, which no step has seen, and what it has cost.
 *
 * Heads are made of the `fitted` ones. What old tasks have lost is looked at only where there is a clear gain. Nothing
 * changes: the next step is what it would have been.
 */
export async function gainSoFar(
  training: TaskTraining,
  fitted: Batches,
  heldOut: Batches,
  done: number,
): Promise<Gain> {
  await training.close();
  const before = await told(training, training.tensors, fitted, heldOut);
  const moved = new Map([...training.tensors, ...movedCenters(training)]);
  const after = await told(training, moved, fitted, heldOut);
  const gain = gainOf(before.judged, after.judged, done);
  return isClear(gain) ? { ...gain, lost: lostBetween(training, before.seen, after.seen) } : gain;
}

interface Told {
  readonly judged: Judged;
  /** The features of both, batch by batch. */
  readonly seen: readonly Float32Array[];
}

/** What a discriminant of `fitted` says of `heldOut` on the network in `tensors`. */
async function told(
  training: TaskTraining,
  tensors: Tensors,
  fitted: Batches,
  heldOut: Batches,
): Promise<Told> {
  const { bundle, opening, classes } = training;
  const { features: f } = bundle.manifest.head;
  const seen: Float32Array[] = [];
  const asked: Float32Array[] = [];
  const answers: number[] = [];
  let statistics = ClassStatistics.empty(f);
  const extractor = await FeatureExtractor.open(bundle, tensors, opening);
  try {
    for (const batches of [fitted, heldOut]) {
      for (const { images, labels } of batches()) {
        const features = await extractor.features(images);
        requireConverged('features', features);
        seen.push(features);
        if (batches === fitted) {
          statistics = statistics.add(features, labels, classes);
        } else {
          asked.push(features);
          answers.push(...labels);
        }
      }
    }
  } finally {
    await extractor.close();
  }
  const features = new Float32Array(answers.length * f);
  let at = 0;
  for (const part of asked) {
    features.set(part, at);
    at += part.length;
  }
  return { judged: judgedBy(statistics, features, answers, classes, PRIOR_IMAGES), seen };
}

/** Percentage points that the old task loses that loses most, with heads that have followed the drift; 0 or more. */
function lostBetween(
  training: TaskTraining,
  were: readonly Float32Array[],
  are: readonly Float32Array[],
): number {
  const estimate = new DriftEstimate(training.bundle.manifest.head.features);
  were.forEach((old, at) => {
    estimate.add(old, are[at]!);
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
