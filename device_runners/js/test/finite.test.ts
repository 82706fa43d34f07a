/** NaN and infinity never become a prediction, or part of a state: on a network that computes NaN for white images. */

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { checkCheckpoint } from '../src/bundle/checks.js';
import { trainingConfig } from '../src/config.js';
import { BundleError, StateError, TaskError } from '../src/errors.js';
import { float32, require32, type StoredTensor } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { TaskTraining } from '../src/learning/training.js';
import { Predictor } from '../src/network/predicting.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { FIXTURES, QUICKLY, runtime } from './fixtures.js';

const FRAGILE = new FolderBundle(join(FIXTURES, 'fragile', 'bundle'));
const SETTINGS = { ...QUICKLY, maxForgetting: 100 };
const NOTHING =
  'For image 3 the network computes numbers that are not finite (NaN or infinity), so nothing can be said of it: ' +
  'check the image. If others fail, too, try another release of ONNX Runtime, or build the bundle again.';
const learning = (image: number) =>
  `For image ${image} of task '02' the network computes numbers that are not finite (NaN or infinity), so nothing can be ` +
  'learned from it: check the image. If others fail, too, try another release of ONNX Runtime, or build the bundle again. ' +
  'Nothing was committed.';

const white = { width: 8, height: 8, data: new Uint8Array(64).fill(255) };

function pictures(count: number) {
  return Array.from({ length: count }, (_, i) => ({
    width: 8,
    height: 8,
    data: Uint8Array.from({ length: 64 }, (_, at) => ((i * 7919 + at * 104729) % 120) + 60 * (i % 2)),
  }));
}

function taskOf(name: string, shown: ReturnType<typeof pictures>) {
  return { name, classes: [`${name}-c`, `${name}-d`], pictures: shown, labels: shown.map((_, i) => i % 2) };
}

async function learned(): Promise<{ learner: Learner; storage: MemoryStorage }> {
  const storage = new MemoryStorage();
  const learner = await Learner.open({ runtime, bundle: FRAGILE, storage, config: SETTINGS });
  await learner.learn(taskOf('01', pictures(40)));
  return { learner, storage };
}

describe('numbers that are not finite', () => {
  it.each([undefined, 'base', '01'])('are no prediction (task %s)', async (task) => {
    const { learner } = await learned();
    const options = task === undefined ? {} : { task };
    expect((await learner.predict(pictures(3), options)).labels).toHaveLength(3);
    const failing = learner.predict([...pictures(3), white], options);
    await expect(failing).rejects.toThrow(TaskError);
    await expect(failing).rejects.toThrow(NOTHING);
    await expect(learner.features([...pictures(3), white])).rejects.toThrow(NOTHING);
    await expect(learner.predict([...pictures(130), white], options)).rejects.toThrow('For image 130 ');
    // And it goes on.
    expect((await learner.predict(pictures(3), options)).labels).toHaveLength(3);
    await learner.close();
  });

  it.each([0, 1000])('are not learned from (fewShot %i)', async (fewShot) => {
    const { learner, storage } = await learned();
    const task = taskOf('02', [...pictures(39), white]);
    await expect(learner.learn(task, { fewShot })).rejects.toThrow(learning(39));
    expect(learner.tasks.map(({ name }) => name)).toEqual(['01']);
    expect(await storage.list('')).not.toContain('progress.safetensors');
    await learner.close();
  });

  it('are not learned from where no step sees them', async () => {
    const { learner } = await learned();
    const task = taskOf('02', [...pictures(5), white, ...pictures(194)]);
    const settings = { sensitivityBatches: 1, batchSize: 2, seconds: 1e-9 };
    await expect(learner.learn(task, settings)).rejects.toThrow(learning(5));
    expect(learner.generation.number).toBe(1);
    await learner.close();
  });

  it('are told from a rate that is too high, where a step sees them first', async () => {
    const { learner } = await learned();
    for (const at of [5, 197]) {
      const shown = pictures(200).map((picture, i) => (i === at ? white : picture));
      const settings = { sensitivityBatches: 1, batchSize: 2, epochs: 2 };
      await expect(learner.learn(taskOf('02', shown), settings)).rejects.toThrow(learning(at));
    }
    const settings = { learningRate: 1e30, headLearningRate: 1e30, epochs: 5 };
    const diverging = learner.learn(taskOf('02', pictures(40)), settings);
    await expect(diverging).rejects.toThrow(/(became|diverged).*lower learningRate/);
    await learner.close();
  });

  it('are in no progress checkpoint', async () => {
    const bundle = await Bundle.open(FRAGILE);
    const opening = { runtime, settings: { threads: 1 } };
    const config = trainingConfig(SETTINGS);
    const training = new TaskTraining(bundle, bundle.checkpoint, ['c', 'd'], config, opening);
    const weight = new Float32Array(2 * bundle.manifest.head.features);
    training.head = { weight, bias: Float32Array.of(0, Number.POSITIVE_INFINITY) };
    expect(() => training.progress()).toThrow(TaskError);
    expect(() => training.progress()).toThrow(
      "Training diverged ('head.bias' is no longer finite): lower learningRate",
    );
  });

  it('are no head', async () => {
    const { learner } = await learned();
    const { bundle, generation, preprocessing } = learner;
    const opening = { runtime, settings: { threads: 1 } };
    const broken = (name: string, change: (found: StoredTensor) => StoredTensor): Predictor => {
      const tensors = new Map(generation.tensors);
      tensors.set(name, change(tensors.get(name)!));
      return new Predictor(bundle, preprocessing, { ...generation, tensors }, opening);
    };
    const sick = broken('head/01/bias', ({ shape }) => float32(shape, Float32Array.of(Number.NaN, 0)));
    for (const task of ['01', undefined]) {
      expect(() => sick.head(task)).toThrow(StateError);
      expect(() => sick.head(task)).toThrow(
        "The head of task '01' holds numbers that are not finite (NaN or infinity): roll back to an earlier task.",
      );
    }
    const lost = broken('statistics.means', (found) => {
      return { ...found, data: found.data.map(() => Number.NaN as never) } as StoredTensor;
    });
    expect(() => lost.head()).toThrow('The head of all classes holds numbers that are not finite');
    const huge = broken('head/01/weight', ({ shape, data }) =>
      float32(shape, new Float32Array(data.length).fill(3e38)),
    );
    await expect(huge.predict(pictures(2), '01')).rejects.toThrow('For image 0 the network computes');
    await learner.close();
  });

  it('are refused in a bundle', async () => {
    const { manifest, checkpoint } = await Bundle.open(FRAGILE);
    const tensors = new Map(checkpoint);
    const { shape, data } = require32(checkpoint, 'head/base/weight');
    tensors.set(
      'head/base/weight',
      float32(
        shape,
        data.map(() => Number.NaN),
      ),
    );
    expect(() => checkCheckpoint(manifest, tensors, 'bundle/checkpoint.safetensors')).toThrow(BundleError);
    expect(() => checkCheckpoint(manifest, tensors, 'bundle/checkpoint.safetensors')).toThrow(
      "bundle/checkpoint.safetensors: tensor 'head/base/weight' holds numbers that are not finite. Copy the bundle again.",
    );
  });
});
