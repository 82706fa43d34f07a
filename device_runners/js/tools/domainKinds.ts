/** The kinds of conformance cases of domains (docs/conformance.md), asked of this runner. */

import type { Picture } from '../src/data/pictures.js';
import { Learner } from '../src/learner.js';
import { affine, ChannelSum, telling } from '../src/method/domains.js';
import { ClassStatistics } from '../src/method/heads.js';
import { Domains, PREFIX } from '../src/network/domains.js';
import { FeatureExtractor } from '../src/network/features.js';
import { PRIOR_IMAGES } from '../src/network/predicting.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';

const NAME = 'other';

async function told(given: Given): Promise<Results> {
  const f = tensor(given, 'gram').shape[0]!;
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  const names = Array.from(counts!, (_, i) => String(i));
  const known = new ClassStatistics(f, names, gram!, sums!, counts!);
  const found = telling(known, floats(given, 'features'), PRIOR_IMAGES);
  const { direction, offset, apart } = found ?? { direction: new Float32Array(f), offset: 0, apart: 0 };
  const tested = floats(given, 'tested');
  const scores = Array.from({ length: tested.length / f }, (_, row) =>
    direction.reduce((sum, one, j) => sum + one * tested[row * f + j]!, -offset),
  );
  return new Map([
    ['told', result([1], [found ? 1 : 0])],
    ['direction', result([f], direction)],
    ['offset', result([1], [offset])],
    ['deviations', result([1], [apart])],
    ['scores', result([scores.length], scores)],
  ]);
}

async function channelAffine(given: Given): Promise<Results> {
  const [mean, deviation] = [floats(given, 'mean'), floats(given, 'deviation')];
  const [means, variances] = [floats(given, 'means'), floats(given, 'variances')];
  const channels = mean.length;
  const total = new ChannelSum(channels);
  for (const [i, images] of numbers(given, 'images').entries()) {
    const part = (all: Float32Array): Float32Array => all.subarray(i * channels, (i + 1) * channels);
    total.add(part(means), part(variances), images);
  }
  const { scale, shift } = affine(total, mean, deviation);
  return new Map([
    ['scale', result([channels], scale)],
    ['shift', result([channels], shift)],
  ]);
}

/** A domain learned by a device that knows nothing else, and what it then sees. */
async function domain(given: Given): Promise<Results> {
  const { runtime, source: bundle } = given;
  const opening = { runtime, settings: { threads: 1 } };
  const learner = await Learner.open({
    ...{ runtime, bundle, storage: new MemoryStorage(), config: { threads: 1 } },
  });
  const { preprocessing } = learner;
  const tested = picturesOf(given, 'tested');
  const extractor = await FeatureExtractor.open(learner.bundle, learner.generation.tensors, opening);
  const plain = await extractor.features(preprocessing.normalize(preprocessing.stack(tested)));
  await extractor.close();
  const { apart } = await learner.adapt(NAME, picturesOf(given, 'pictures'));
  const { tensors } = learner.generation;
  const domains = new Domains(learner.bundle, tensors, opening);
  const is = domains.told(plain).map((number) => (number === 0 ? 1 : 0));
  const features = await learner.features(tested);
  await learner.close();
  const parts = ['scale', 'shift', 'direction', 'offset'].map((part) => {
    const { shape, data } = tensors.get(`${PREFIX}${NAME}/${part}`)!;
    return [part, result(shape, data as Float32Array)] as const;
  });
  return new Map([
    ...parts,
    ['deviations', result([1], [apart])],
    ['told', result([is.length], is)],
    ['features', result([tested.length, features.length / tested.length], features)],
  ]);
}

/** Images `(n, h, w, c)` uint8, one by one. */
function picturesOf(given: Given, name: string): Picture[] {
  const { shape, data } = tensor(given, name);
  const [count, height, width, channels] = shape as [number, number, number, number];
  const size = height * width * channels;
  return Array.from({ length: count }, (_, i) => ({
    ...{ height, width, channels },
    data: (data as Uint8Array).subarray(i * size, (i + 1) * size),
  }));
}

export const DOMAINS: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  telling: told,
  channel_affine: channelAffine,
  domain,
};
