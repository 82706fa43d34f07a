/** After the last step: what was learned becomes part of the network, and the data part of what is protected. */

import { augmentationOf, followsDrift } from './config.js';
import { mirrored } from './data/augment.js';
import { TaskError } from './errors.js';
import {
  type Batches,
  FeatureExtractor,
  FeatureSample,
  HEAD_SAMPLE_BYTES,
  measureKnowledge,
} from './features.js';
import { DriftEstimate } from './method/drift.js';
import { ClassStatistics } from './method/heads.js';
import { logisticHead } from './method/logistic.js';
import { addToCenters, leak, project } from './method/projection.js';
import { type Float32Tensor, float32, require32, type StoredTensor } from './tensors.js';
import { HEAD_BIAS, HEAD_WEIGHT, type TaskTraining } from './training.js';

/** What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`. */
export interface Consolidated {
  readonly tensors: Map<string, StoredTensor>;
  readonly leaks: ReadonlyMap<string, number>;
}

/**
 * Fold the deltas into the centers and add the task to what is protected; `batches` are the task's data.
 * Throws TaskError where training ended in numbers that are not finite: committed, they could not be unlearned.
 */
export async function consolidate(
  training: TaskTraining,
  name: string,
  batches: Batches,
): Promise<Consolidated> {
  const { bundle, classes, config, opening, tensors: old } = training;
  const { features: f } = bundle.manifest.head;
  requireFinite(HEAD_WEIGHT, training.head.weight);
  requireFinite(HEAD_BIAS, training.head.bias);
  for (const [site, { delta }] of training.sites) requireFinite(`delta/${site}`, delta);
  await training.close();
  const drifted =
    followsDrift(config) && [...training.sites.values()].some(({ delta }) => delta.some(Boolean));
  const before = drifted ? (await featuresBefore(training, batches)).values() : [].values();
  const tensors = new Map(old);
  const leaks = foldDeltas(training, tensors);
  const sample = new FeatureSample(f);
  const drift = new DriftEstimate(f);
  const { moments, statistics } = await measureKnowledge(
    bundle,
    tensors,
    batches(),
    classes,
    opening,
    (features, labels) => {
      requireFinite('features', features);
      sample.add(features, labels);
      const earlier = before.next().value as Float32Array | undefined;
      if (earlier) drift.add(earlier, features);
    },
  );
  if (augmentationOf(config, bundle.manifest).flip) await addMirrored(training, tensors, batches, sample);
  const { features, labels } = sample.arrays();
  training.head = logisticHead(features, f, labels, classes.length);
  for (const [key, moment] of moments) {
    const known = require32(old, key);
    tensors.set(
      key,
      float32(
        known.shape,
        known.data.map((value, at) => value + moment[at]!),
      ),
    );
  }
  let known = ClassStatistics.from(old, f);
  if (drifted) {
    const map = drift.fit();
    known = map.statistics(known);
    for (const [key, tensor] of tensors) {
      if (!/^head\/.*\/weight$/s.test(key)) continue;
      tensors.set(key, float32(tensor.shape, map.head((tensor as Float32Tensor).data)));
    }
  }
  const learned = config.classStatistics ? statistics : ClassStatistics.empty(f);
  known.merge(learned).replaceIn(tensors);
  tensors.set(`head/${name}/weight`, float32([classes.length, f], training.head.weight));
  tensors.set(`head/${name}/bias`, float32([classes.length], training.head.bias));
  for (const [key, { data }] of tensors) {
    if (data instanceof Float32Array || data instanceof Float64Array) requireFinite(key, data);
  }
  return { tensors, leaks };
}

/** Put the projected sum of all steps into the centers; per site, what share of it lies along what is protected. */
function foldDeltas(training: TaskTraining, tensors: Map<string, StoredTensor>): Map<string, number> {
  const leaks = new Map<string, number>();
  for (const [name, { site, selected, delta, basis }] of training.sites) {
    // Once more, on the sum of all steps: what rounding left along the basis goes too.
    project(delta, basis);
    leaks.set(name, leak(delta, basis));
    const key = `center/${name}`;
    const center = require32(tensors, key);
    const changed = float32(center.shape, center.data.slice());
    addToCenters(changed, delta, selected, site.groups);
    tensors.set(key, changed);
  }
  return leaks;
}

/** The task's features as the network was before, batch by batch, as many as fit. */
async function featuresBefore(training: TaskTraining, batches: Batches): Promise<Float32Array[]> {
  const extractor = await FeatureExtractor.open(training.bundle, training.tensors, training.opening);
  const kept: Float32Array[] = [];
  let room = HEAD_SAMPLE_BYTES;
  try {
    for (const { images } of batches()) {
      const features = await extractor.features(images);
      kept.push(features);
      room -= features.byteLength;
      if (room <= 0) break;
    }
  } finally {
    await extractor.close();
  }
  return kept;
}

async function addMirrored(
  training: TaskTraining,
  tensors: Map<string, StoredTensor>,
  batches: Batches,
  sample: FeatureSample,
): Promise<void> {
  const width = training.bundle.manifest.input.size.at(-1)!;
  const extractor = await FeatureExtractor.open(training.bundle, tensors, training.opening);
  try {
    for (const { images, labels } of batches()) {
      if (sample.full) break;
      sample.add(await extractor.features(mirrored(images, width)), labels);
    }
  } finally {
    await extractor.close();
  }
}

function requireFinite(name: string, values: Float32Array | Float64Array): void {
  if (!values.every(Number.isFinite)) {
    throw new TaskError(
      `Training diverged ('${name}' is no longer finite): lower learningRate, and check this task's data. ` +
        'Nothing was committed.',
    );
  }
}
