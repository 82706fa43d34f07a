/** A domain learned from images without labels: `Learner.adapt`. All under the state's lock. */

import type { Bundle } from '../bundle/bundle.js';
import {
  CHANNEL_MEAN,
  CHANNEL_VARIANCE,
  DOMAIN_DEVIATION,
  DOMAIN_MEAN,
  DOMAIN_STATISTICS,
} from '../bundle/manifest.js';
import { SENTENCES } from '../contract/sentences.js';
import { DOMAINS } from '../contract/thresholds.js';
import type { Picture, Preprocessing } from '../data/pictures.js';
import { BundleError, TaskError } from '../errors.js';
import { concatenate } from '../formats/bytes.js';
import { isFolderName } from '../formats/names.js';
import { filled, listed, percent, plural } from '../formats/sentences.js';
import { float32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { median } from '../method/consensus.js';
import { affine, bringsNothing, ChannelSum, type Telling, telling } from '../method/domains.js';
import { ClassStatistics } from '../method/heads.js';
import { distancesOf, limitOf, REJECT } from '../method/unknown.js';
import { Domains, domainNames, domainTensors, PREFIX } from '../network/domains.js';
import { FeatureExtractor } from '../network/features.js';
import { imageFeed, type Opening } from '../network/feeds.js';
import { requireAnswers } from '../network/finite.js';
import { classDistance, classHead, PRIOR_IMAGES } from '../network/predicting.js';
import type { Generation } from '../state/record.js';
import type { State } from '../state/state.js';
import { BASE } from '../state/store.js';

/**
 * What `Learner.adapt` did. `domain` is its name, and `generation` the number of the one that was committed; `images` is how
 * many its statistics are of. `apart` is how many deviations lie between its images and what is known, along the direction
 * that tells them best, and `told` the share of its images, 0 to 1, that are told to be of it. `unknown` is the share of them
 * that is still unlike all that is known, `distance` and `distanceBefore` the median distance of its images from all that is
 * known (`Prediction.distance`), seen as the domain shows them, and as they were seen before; undefined where nothing was measured of how far
 * known ones reach. `warnings` are sentences for its user.
 */
export interface Adapted {
  readonly domain: string;
  readonly generation: number;
  readonly images: number;
  readonly apart: number;
  readonly told: number;
  readonly unknown: number | undefined;
  readonly distance: number | undefined;
  readonly distanceBefore: number | undefined;
  readonly warnings: readonly string[];
}

const NOTHING_MEASURED = { unknown: undefined, distance: undefined, distanceBefore: undefined };

/** Images of a domain in batches `(n, c, h, w)`, to be gone through again. */
type Seen = () => Iterable<Float32Array>;

/**
 * Learn the domain `name` from images without labels, and commit a generation.
 *
 * Throws TaskError for a name that cannot be used, images that are too few, look like what is known or come no nearer to it,
 * BundleError where the bundle has no graphs for domains.
 */
export async function adapt(
  bundle: Bundle,
  preprocessing: Preprocessing,
  state: State,
  name: string,
  pictures: readonly Picture[],
  opening: Opening,
  replace: boolean,
): Promise<Adapted> {
  const generation = await state.load();
  requirePossible(bundle, generation, name, replace);
  const { images, batches } = batchesOf(bundle, preprocessing, pictures, name);
  const all = domainTensors(generation.tensors);
  const own = domainTensors(generation.tensors, name);
  const others = new Map([...generation.tensors].filter(([key]) => !all.has(key)));
  const kept = [...all].filter(([key]) => !own.has(key));
  const before = new Map([...others, ...kept]);
  const features = await featuresOf(bundle, others, batches, opening);
  const { now, ofAnother } = await seenThrough(bundle, before, batches, features, opening);
  const told = toldBy(bundle, others, features, name, images);
  const tensors = await measured(bundle, others, name, batches, told, opening);
  const domain = new Domains(bundle, new Map([...others, ...tensors]), opening);
  const seen: Float32Array[] = [];
  try {
    for (const batch of batches()) seen.push(await domain.through(0, batch));
  } finally {
    await domain.close();
  }
  const nearer = nearerBy(bundle, generation, now, together(seen), ofAnother);
  if (nearer && bringsNothing(nearer.distanceBefore, nearer.distance, nearer.unknown, nearer.another)) {
    throw new TaskError(filled(SENTENCES.domainNoNearer, { name, images: plural(images, 'image') }));
  }
  const share = domain.told(features).filter((number) => number === 0).length / images;
  const next = new Map([...before, ...tensors]);
  const { number } = await state.commit(generation.number, generation.tasks, next);
  await state.clearProgress();
  const { unknown, distance, distanceBefore } = nearer ?? NOTHING_MEASURED;
  return {
    ...{ domain: name, generation: number, images, apart: told.apart, told: share },
    ...{ unknown, distance, distanceBefore, warnings: warningsOf(unknown) },
  };
}

/** Take back a domain. Commits a generation; throws TaskError for one that is not known. */
export async function forgetDomain(state: State, name: string): Promise<Generation> {
  const generation = await state.load();
  const gone = domainTensors(generation.tensors, name);
  if (!gone.size) {
    throw notKnown(name, domainNames(generation.tensors));
  }
  const left = new Map([...generation.tensors].filter(([key]) => !gone.has(key)));
  const committed = await state.commit(generation.number, generation.tasks, left);
  await state.clearProgress();
  return committed;
}

function requirePossible(bundle: Bundle, generation: Generation, name: string, replace: boolean): void {
  if (!bundle.manifest.domain_channels) {
    throw new BundleError(filled(SENTENCES.domainNoGraphs, { bundle: bundle.name }));
  }
  if (!isFolderName(name) || name === BASE) {
    // A control character is shown, and not written.
    const shown = JSON.stringify(name.slice(0, 40)).slice(1, -1);
    throw new TaskError(filled(SENTENCES.domainName, { name: `'${shown}'` }));
  }
  const known = domainNames(generation.tensors);
  if (known.includes(name)) {
    if (!replace) throw new TaskError(filled(SENTENCES.domainKnown, { name }));
  } else if (replace) {
    throw notKnown(name, known);
  } else if (known.length >= DOMAINS.most) {
    throw new TaskError(filled(SENTENCES.domainMany, { name, known: known.length }));
  }
}

function notKnown(name: string, known: readonly string[]): TaskError {
  return new TaskError(filled(SENTENCES.domainUnknown, { name, known: listed(known, DOMAINS.most) }));
}

/** The images that count, spread over all that are given: how many, and in batches as the bundle has them. */
function batchesOf(
  { manifest }: Bundle,
  preprocessing: Preprocessing,
  pictures: readonly Picture[],
  name: string,
): { images: number; batches: Seen } {
  const { data, count } = preprocessing.stack(pictures);
  if (count < DOMAINS.leastImages) {
    const values = { name, images: plural(count, 'image'), least: DOMAINS.leastImages };
    throw new TaskError(filled(SENTENCES.domainFew, values));
  }
  const images = Math.min(count, DOMAINS.mostImages);
  const step = (count - 1) / (images - 1);
  const chosen = Array.from({ length: images }, (_, i) =>
    i === images - 1 ? count - 1 : Math.floor(i * step),
  );
  const { size } = preprocessing;
  function* batches(): Generator<Float32Array> {
    for (let start = 0; start < images; start += manifest.batch_size) {
      const numbers = chosen.slice(start, start + manifest.batch_size);
      const pixels = concatenate(numbers.map((i) => data.subarray(i * size, (i + 1) * size)));
      yield preprocessing.normalize({ count: numbers.length, data: pixels });
    }
  }
  return { images, batches };
}

/**
 * Of features without any domain those that the domains in `tensors` show; and the images that are told to be of one of these,
 * where most are.
 */
async function seenThrough(
  bundle: Bundle,
  tensors: Tensors,
  batches: Seen,
  features: Float32Array,
  opening: Opening,
): Promise<{ now: Float32Array; ofAnother: readonly number[] }> {
  const known = Domains.of(bundle, tensors, opening);
  if (!known) return { now: features, ofAnother: [] };
  const found: Float32Array[] = [];
  let start = 0;
  try {
    for (const batch of batches()) {
      const end = start + bundle.manifest.batch_size * bundle.manifest.head.features;
      found.push(await known.seen(batch, features.subarray(start, end)));
      start = end;
    }
  } finally {
    await known.close();
  }
  const told = known.told(features);
  const ofAnother = [...told.keys()].filter((image) => told[image]! >= 0);
  return { now: together(found), ofAnother: ofAnother.length > told.length / 2 ? ofAnother : [] };
}

/** Features `(n, f)` without any domain. Throws TaskError for the first image of which they are not finite. */
async function featuresOf(
  bundle: Bundle,
  tensors: Tensors,
  batches: Seen,
  opening: Opening,
): Promise<Float32Array> {
  const f = bundle.manifest.head.features;
  const extractor = await FeatureExtractor.open(bundle, tensors, opening);
  const found: Float32Array[] = [];
  let images = 0;
  try {
    for (const batch of batches()) {
      const features = await extractor.features(batch);
      requireAnswers(features, f, images);
      images += features.length / f;
      found.push(features);
    }
  } finally {
    await extractor.close();
  }
  return together(found);
}

/** What tells the images from all that is known. */
function toldBy(
  bundle: Bundle,
  tensors: Tensors,
  features: Float32Array,
  name: string,
  images: number,
): Telling {
  const known = ClassStatistics.from(tensors, bundle.manifest.head.features);
  const told = telling(known, features, PRIOR_IMAGES);
  if (!told) throw new TaskError(filled(SENTENCES.domainNothingKnown, { name }));
  if (told.apart < DOMAINS.told) {
    throw new TaskError(filled(SENTENCES.domainAlike, { name, images: plural(images, 'image') }));
  }
  return told;
}

/** The domain's tensors. */
async function measured(
  bundle: Bundle,
  tensors: Tensors,
  name: string,
  batches: Seen,
  told: Telling,
  { runtime, settings }: Opening,
): Promise<Map<string, StoredTensor>> {
  const { mean, deviation } = bundle.domainChannels();
  const total = new ChannelSum(mean.length);
  const graph = await bundle.graph(DOMAIN_STATISTICS, tensors, runtime, settings);
  try {
    for (const batch of batches()) {
      const image = imageFeed(bundle, batch);
      const wanted = {
        [DOMAIN_MEAN]: float32([mean.length], mean),
        [DOMAIN_DEVIATION]: float32([mean.length], deviation),
      };
      const found = await graph.run({ image, ...wanted }, [CHANNEL_MEAN, CHANNEL_VARIANCE]);
      total.add(found[CHANNEL_MEAN], found[CHANNEL_VARIANCE], image.shape[0]!);
    }
  } finally {
    await graph.close();
  }
  const { scale, shift } = affine(total, mean, deviation);
  const parts = { scale, shift, direction: told.direction, offset: Float32Array.of(told.offset) };
  return new Map(
    Object.entries(parts).map(([part, data]) => [`${PREFIX}${name}/${part}`, float32([data.length], data)]),
  );
}

/**
 * Median distances of features before and after, also of those images that are `ofAnother` domain, if there are any; and the share
 * that is still unknown. Undefined where it was never measured how far what is known reaches.
 */
function nearerBy(
  bundle: Bundle,
  generation: Generation,
  before: Float32Array,
  after: Float32Array,
  ofAnother: readonly number[],
):
  | {
      distanceBefore: number;
      distance: number;
      unknown: number;
      another: { before: number; after: number } | undefined;
    }
  | undefined {
  const found = classDistance(generation, classHead(generation, bundle));
  if (!found) return undefined;
  const [then, now] = [distancesOf(found, before), distancesOf(found, after)];
  const limit = limitOf(found, REJECT);
  const middle = (all: Float32Array): number => median(ofAnother.map((image) => all[image]!));
  return {
    distanceBefore: median([...then]),
    distance: median([...now]),
    another: ofAnother.length ? { before: middle(then), after: middle(now) } : undefined,
    unknown: now.filter((one) => one > limit).length / now.length,
  };
}

function warningsOf(unknown: number | undefined): string[] {
  if (unknown === undefined || unknown <= DOMAINS.unlike) return [];
  return [filled(SENTENCES.domainUnlike, { unknown: percent(unknown), noun: 'image' })];
}

function together(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
