/** After the last step: what was learned becomes part of the network, and the data part of what is protected. */

import type { Bundle } from '../bundle/bundle.js';
import { augmentationOf, followsDrift } from '../config.js';
import { mirrored } from '../data/augment.js';
import { float32, require32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { type Contribution, type ContributionSum, Lesson } from '../method/contributions.js';
import { type Judgement, judge, judgedApart } from '../method/decisions.js';
import { type Drift, DriftEstimate } from '../method/drift.js';
import { estimatedForgetting } from '../method/forgetting.js';
import { ClassStatistics, type ShrunkCovariance, shrunkCovariance } from '../method/heads.js';
import { JudgedImages } from '../method/leftOut.js';
import { WholeMap } from '../method/linearMap.js';
import { crossEntropy, type HeadArrays, knownHead, logisticHead } from '../method/logistic.js';
import { identity, rowsAt } from '../method/matrix.js';
import { mirroredBeside, spreadOver } from '../method/mirroring.js';
import { addToCenters, leak, project } from '../method/projection.js';
import { Random } from '../method/random.js';
import { mostRows } from '../method/thin.js';
import { Familiarity, measured } from '../method/unknown.js';
import { domainTensors } from '../network/domains.js';
import {
  type Batches,
  eachFeatures,
  FeatureExtractor,
  FeatureSample,
  isKnown,
  measureKnowledge,
  SAMPLE_BYTES,
} from '../network/features.js';
import { requireConverged, requireLearnableFeatures } from '../network/finite.js';
import { isUntouched, mapOf, mapTensors, UnledgeredError } from '../network/ledger.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import { forgetsTooMuch, twinsToPart } from './acceptance.js';
import { count, countedOf, lessonOf, sumsOf, type Taught, temperatureOf, totalsOf } from './contributed.js';
import { refit } from './revision.js';
import { HEAD_BIAS, HEAD_WEIGHT, type TaskTraining } from './training.js';

/** What a learned task leaves: the next generation's tensors, and per site `||dC B|| / ||dC||`. */
export interface Consolidated {
  readonly tensors: Map<string, StoredTensor>;
  readonly leaks: ReadonlyMap<string, number>;
  /** By old task, the percentage points of accuracy that the trained centers were estimated to cost it. */
  readonly forgetting: ReadonlyMap<string, number>;
  /** Whether they were dropped for that. */
  readonly headsOnly: boolean;
  /** What the decision over all classes makes of the task; undefined where it has no statistics. */
  readonly judgement: Judgement | undefined;
  /** Classes that it leaves out. */
  readonly apart: readonly string[];
  /** What the task contributes under the bundle's untouched network; undefined where nothing is kept of its classes. */
  readonly lesson: Lesson | undefined;
  /** The same as it is counted where centers have moved. */
  readonly carried: Lesson | undefined;
  /** Mean cross-entropy of the task's own head on its images. */
  readonly loss: () => number;
}

/**
 * Fold the deltas into the centers and add the task to what is protected; `batches` are the task's data.
 *
 * Where the centers cost an old task more than `maxForgetting` allows, they stay as they were, and the task gets its heads
 * only; or, as `onForgetting` has it, it is refused. A class that would take more than that from an old one, since the two
 * cannot be told apart, has a place in the task's own decision only; or the task is refused. Throws TaskError where it is, or
 * where training ended in numbers that are not finite: committed, they could not be unlearned. `looked` is what
 * `headsOnly` made of the same batches.
 */
export async function consolidate(
  training: TaskTraining,
  name: string,
  batches: Batches,
  looked?: Look,
): Promise<Consolidated> {
  requireConverged(HEAD_WEIGHT, training.head.weight);
  requireConverged(HEAD_BIAS, training.head.bias);
  for (const [site, { delta }] of training.sites) requireConverged(`delta/${site}`, delta);
  await training.close();
  let seen = await see(training, batches, looked);
  let done = settle(training, name, seen);
  if (forgetsTooMuch(done.forgetting, training.config, name)) {
    training.dropCenters();
    seen = await see(training, batches);
    done = { ...settle(training, name, seen), forgetting: done.forgetting, headsOnly: true };
  }
  const { forgetting, headsOnly, judgement } = done;
  const apart = twinsToPart(judgement, training.config, name, training.classes);
  if (judgement && apart.length) {
    const without = settle(training, name, seen, apart);
    done = { ...without, forgetting, headsOnly, judgement: judgedApart(judgement, apart, without.judgement) };
  }
  if (!done.carried || !done.lesson) return done;
  return { ...done, lesson: lessonOf(training, seen.below!, done.lesson.temperature, apart) };
}

/**
 * Instead of warming up and stepping, where no center will move: what the images say of their labels, and of what is known.
 *
 * The network sees them as it will when the task is consolidated on the same `batches`: that is returned.
 */
export async function headsOnly(training: TaskTraining, batches: Batches): Promise<Look> {
  const looked = await look(training, training.tensors, batches);
  const { features, labels } = looked.sample.arrays();
  training.check(features, labels);
  return looked;
}

/** All that is seen in the task's images once the deltas are in the centers, and the task's own head. */
async function see(training: TaskTraining, batches: Batches, looked?: Look): Promise<Seen> {
  const { bundle, classes, config, tensors: old } = training;
  const { features: f } = bundle.manifest.head;
  const tensors = new Map(old);
  const leaks = foldDeltas(training, tensors);
  const { moments, sums, below, sample, drift } = looked ?? (await look(training, tensors, batches));
  const own = sample.count;
  if (augmentationOf(config, bundle.manifest).flip) await addMirrored(training, tensors, batches, sample);
  const { features, labels } = sample.arrays();
  const head = logisticHead(features, f, labels, classes.length);
  for (const [key, moment] of moments) {
    const known = require32(old, key);
    const sum = known.data.map((value, at) => value + moment[at]!);
    tensors.set(key, float32(known.shape, sum));
  }
  const taught = { features: features.subarray(0, own * f), labels: labels.subarray(0, own) };
  return {
    ...{ tensors, leaks, sample, drift, taught, head },
    contributions: totalsOf(training, sums),
    below: below && totalsOf(training, below),
  };
}

/**
 * What is known from then on, of what was seen: images are not looked at again.
 *
 * Classes that are `apart` have a place in the task's own head, and none in what is known.
 */
function settle(
  training: TaskTraining,
  name: string,
  seen: Seen,
  apart: readonly string[] = [],
): Consolidated {
  const { bundle, classes, refitted } = training;
  const { features: f } = bundle.manifest.head;
  const { leaks, contributions, sample, drift, taught } = seen;
  const tensors = new Map(seen.tensors);
  const lesson = contributions.size
    ? lessonOf(training, contributions, temperatureOf(training, sample, apart), apart)
    : undefined;
  const { known, carried } = follow(training, tensors, lesson, drift);
  const shrunk = lesson && shrunkCovariance(known, PRIOR_IMAGES);
  const all = Boolean(carried) || isFirst(training, apart);
  const metric = { shrunk, white: all && !apart.length ? whiteOf(sample, shrunk) : undefined };
  const judgement = lesson && judged(training, tensors, known, metric, countedOf(training, taught, apart));
  if (lesson) training.head = ownHead(training, seen, all ? metric : besideBase(bundle, contributions));
  // Whoever asks for classes that are apart knows what older tasks lose.
  const forgetting =
    drift && !apart.length ? forgettingOf(training, tensors, drift) : new Map<string, number>();
  refit(tensors, refitted, f);
  tensors.set(`head/${name}/weight`, float32([classes.length, f], training.head.weight));
  tensors.set(`head/${name}/bias`, float32([classes.length], training.head.bias));
  for (const [key, { data }] of tensors) {
    if (!isKnown(key, bundle.manifest.sites)) continue;
    if (data instanceof Float32Array || data instanceof Float64Array) requireConverged(key, data);
  }
  const loss = (): number => crossEntropy(taught.features, taught.labels, training.head);
  return { tensors, leaks, forgetting, headsOnly: false, judgement, apart, lesson, carried, loss };
}

/** A covariance within classes, decomposed, where there is a spread; and a sample's features under it, where they are wanted twice. */
interface Metric {
  readonly shrunk: ShrunkCovariance | undefined;
  readonly white?: Float64Array | undefined;
}

function whiteOf(sample: FeatureSample, shrunk: ShrunkCovariance | undefined): Float64Array | undefined {
  const { features, labels } = sample.arrays();
  return shrunk?.system.whitenRows(new Float64Array(features), labels.length);
}

/** Whether all that is known from now on is the base, as the bundle has it, and the task. */
function isFirst(training: TaskTraining, apart: readonly string[]): boolean {
  const { bundle, known } = training;
  if (apart.length || known.length) return false;
  const base = ClassStatistics.from(bundle.checkpoint, bundle.manifest.head.features);
  return training.oldStatistics().sameAs(base);
}

/**
 * The task's own head beside what is known: of the base and of the task itself. So it is the same whatever was learned before it,
 * and forgotten after. Where a center has moved, the network holds something of each task anyway, and it is all that is known.
 */
function ownHead({ classes }: TaskTraining, { head, sample }: Seen, { shrunk, white }: Metric): HeadArrays {
  if (classes.length < 2 || !shrunk) return head;
  const { features, labels } = sample.arrays();
  return knownHead(head, features, labels, shrunk, white);
}

function besideBase(bundle: Bundle, contributions: ReadonlyMap<string, Contribution>): Metric {
  // Known classes in a new look are no more images of the base's.
  const own = new Map([...contributions].map(([name, one]) => [`\0${name}`, one]));
  const base = ClassStatistics.from(bundle.checkpoint, bundle.manifest.head.features);
  return { shrunk: shrunkCovariance(new Lesson([...own.keys()], own).after(base), PRIOR_IMAGES) };
}

/** What is to be expected of decisions, and into `tensors` a sketch of how close the images are to what is `known` now. */
function judged(
  training: TaskTraining,
  tensors: Map<string, StoredTensor>,
  known: ClassStatistics,
  { shrunk, white }: Metric,
  { features, labels, classes }: Taught,
): Judgement | undefined {
  const images = JudgedImages.of(known, features, labels, classes, shrunk, white);
  if (!images) return undefined;
  const sketch = measured(Familiarity.from(training.tensors), known, images);
  for (const [key, tensor] of sketch?.tensors() ?? []) tensors.set(key, tensor);
  const random = new Random(training.config.seed);
  const base = training.bundle.manifest.classes;
  return judge(known, images, classes, training.known, base, random, training.recognised);
}

/** What the network, as trained, sees in the task's images: for one decision after the other, and one look. */
interface Seen extends Pick<Look, 'sample' | 'drift'> {
  /** Those of the next generation, so far. */
  readonly tensors: Tensors;
  readonly leaks: ReadonlyMap<string, number>;
  readonly contributions: ReadonlyMap<string, Contribution>;
  /** The same under the bundle's own network, where that is another than the one before the task, or a center moved. */
  readonly below: ReadonlyMap<string, Contribution> | undefined;
  /** Features of the images themselves, and not mirrored. */
  readonly taught: Omit<Taught, 'classes'>;
  /** Of the task's images alone. */
  readonly head: HeadArrays;
}

/** What one pass over the task tells. */
export interface Look {
  readonly moments: ReadonlyMap<string, Float64Array>;
  /** Of each class what its images contribute; none where nothing is to be kept of classes. */
  readonly sums: readonly ContributionSum[];
  /** The same under the bundle's own network, where that is another than the one before the task, or a center moved. */
  readonly below: readonly ContributionSum[] | undefined;
  readonly sample: FeatureSample;
  /** How the features moved; undefined where no center did. */
  readonly drift: Drift | undefined;
}

async function look(training: TaskTraining, tensors: Tensors, batches: Batches): Promise<Look> {
  const { bundle, opening, moved } = training;
  const { features: f } = bundle.manifest.head;
  const { were, below } = moved ? await featuresBefore(training, batches) : { were: [], below: undefined };
  const before = were.values();
  const sample = new FeatureSample(f);
  const sums = sumsOf(training);
  const drift = new DriftEstimate(f);
  // Images of a domain as that shows them, which is near: it was measured on the network as it is now.
  const own = isUntouched(training.tensors, bundle.checkpoint)
    ? undefined
    : {
        tensors: new Map([...bundle.checkpoint, ...domainTensors(training.tensors)]),
        sums: sumsOf(training),
      };
  const keep = (features: Float32Array, labels: Int32Array, untouched?: Float32Array): void => {
    // The same images had finite ones before a center moved.
    if (moved) requireConverged('features', features);
    requireLearnableFeatures(features);
    count(sums, features, labels, f);
    sample.add(features, labels);
    const earlier = before.next().value as Float32Array | undefined;
    if (earlier) drift.add(earlier, features);
    if (!own || !untouched) return;
    requireLearnableFeatures(untouched);
    count(own.sums, untouched, labels, f);
  };
  const beside = sums.length ? own?.tensors : undefined;
  const moments = await measureKnowledge(bundle, tensors, batches(), opening, keep, beside);
  return { moments, sums, below: own?.sums ?? below, sample, drift: moved ? drift.fit() : undefined };
}

/**
 * Carry old heads and statistics over to the features as they are now, and add what was learned: what is known now.
 *
 * `carried` is what was added as it is counted when centers have moved: led back to the untouched network's features.
 * Undefined where none has.
 */
function follow(
  training: TaskTraining,
  tensors: Map<string, StoredTensor>,
  seen: Lesson | undefined,
  drift: Drift | undefined,
): { known: ClassStatistics; carried: Lesson | undefined } {
  const { bundle, config } = training;
  const followed = followsDrift(config) ? drift : undefined;
  let known = training.oldStatistics();
  if (followed) {
    known = followed.statistics(known);
    for (const name of headsIn(tensors)) {
      const key = `head/${name}/weight`;
      const { shape, data } = require32(tensors, key);
      tensors.set(key, float32(shape, followed.head(data)));
    }
  }
  known = seen?.after(known) ?? known;
  known.replaceIn(tensors);
  let map: Float64Array | undefined;
  try {
    map = mapOf(training.tensors, bundle.checkpoint);
  } catch (error) {
    if (!(error instanceof UnledgeredError)) throw error;
    // Its map ends where someone went on who knows of none.
    return { known, carried: seen && new Lesson(training.classes, new Map()) };
  }
  if (!map && !training.moved) return { known, carried: undefined };
  const f = bundle.manifest.head.features;
  const both = led(map, followed, f);
  for (const [key, tensor] of mapTensors(both, tensors)) tensors.set(key, tensor);
  // One system for both maps is less work than two, unless the last one is of few images.
  const apart = !map || (followed?.forward.rank ?? f) <= mostRows(f);
  const maps = apart
    ? [...(map ? [new WholeMap(map, f)] : []), ...(followed ? [followed.forward] : [])]
    : [new WholeMap(both, f)];
  return { known, carried: seen?.ledBack(maps) };
}

/** The map that was, and behind it how the features moved in this lesson. */
function led(map: Float64Array | undefined, drift: Drift | undefined, f: number): Float64Array {
  if (!drift) return map ?? identity(f);
  return map ? drift.forward.times(map) : drift.forward.matrix;
}

/** What the heads in `tensors` lose on the features as they are now, by old task. */
export function forgettingOf(training: TaskTraining, tensors: Tensors, drift: Drift): Map<string, number> {
  const names = headsIn(training.tensors);
  const heads = (of: Tensors): Map<string, HeadArrays> => {
    const head = (name: string): HeadArrays => ({
      weight: require32(of, `head/${name}/weight`).data,
      bias: require32(of, `head/${name}/bias`).data,
    });
    return new Map(names.map((name) => [name, head(name)]));
  };
  return estimatedForgetting(
    training.oldStatistics(),
    new Map(names.map((name) => [name, training.oldClasses.get(name) ?? []])),
    heads(training.tensors),
    heads(tensors),
    drift,
    new Random(training.config.seed),
  );
}

/** The tasks that have a head. */
export function headsIn(tensors: Tensors): string[] {
  return [...tensors.keys()].flatMap((key) => /^head\/(.*)\/weight$/s.exec(key)?.[1] ?? []);
}

/** Put the projected sum of all steps into the centers; per site, what share of it lies along what is protected. */
function foldDeltas(training: TaskTraining, tensors: Map<string, StoredTensor>): Map<string, number> {
  const leaks = new Map<string, number>();
  for (const [name, { delta, basis }] of training.sites) {
    // Once more, on the sum of all steps: what rounding left along the basis goes too.
    project(delta, basis);
    leaks.set(name, leak(delta, basis));
  }
  for (const [key, center] of movedCenters(training)) tensors.set(key, center);
  return leaks;
}

/** The trained centers as the steps have left them, new arrays. */
export function movedCenters(training: TaskTraining): Map<string, StoredTensor> {
  const centers = new Map<string, StoredTensor>();
  for (const [name, { site, selected, delta }] of training.sites) {
    const key = `center/${name}`;
    const center = require32(training.tensors, key);
    const changed = float32(center.shape, center.data.slice());
    addToCenters(changed, delta, selected, site.groups);
    centers.set(key, changed);
  }
  return centers;
}

/**
 * The task's features as the network was before, batch by batch, as many as fit. And what all of them contribute, where that was
 * the bundle's own network.
 */
async function featuresBefore(
  training: TaskTraining,
  batches: Batches,
): Promise<{ were: Float32Array[]; below: readonly ContributionSum[] }> {
  const { bundle, tensors, opening } = training;
  const f = bundle.manifest.head.features;
  const sums = isUntouched(tensors, bundle.checkpoint) ? sumsOf(training) : [];
  const kept = training.keptOf(batches)?.pairs();
  if (kept) {
    for (const { features, labels } of kept) count(sums, features, labels, f);
    return { were: kept.map(({ features }) => features), below: sums };
  }
  const were: Float32Array[] = [];
  let room = SAMPLE_BYTES;
  await eachFeatures(bundle, tensors, opening, batches(), (features, labels) => {
    count(sums, features, labels, f);
    if (room <= 0) return sums.length ? undefined : 'enough';
    were.push(features);
    room -= features.byteLength;
    return undefined;
  });
  return { were, below: sums };
}

/** To a sample of few images as they are, some of the same mirrored. */
async function addMirrored(
  training: TaskTraining,
  tensors: Map<string, StoredTensor>,
  batches: Batches,
  sample: FeatureSample,
): Promise<void> {
  const { input, head } = training.bundle.manifest;
  const [f, width] = [head.features, input.size.at(-1)!];
  const { labels } = sample.arrays();
  const images = labels.length;
  const chosen = spreadOver(images, Math.min(mirroredBeside(images), sample.room));
  if (chosen.length === 0) return;
  const changed = new Float32Array(chosen.length * f);
  const extractor = await FeatureExtractor.open(training.bundle, tensors, training.opening);
  let [start, seen] = [0, 0];
  try {
    for (const batch of batches()) {
      const count = batch.labels.length;
      const rows = chosen.filter((at) => start <= at && at < start + count).map((at) => at - start);
      if (rows.length) {
        const some = rowsAt(batch.images, rows, batch.images.length / count);
        changed.set(await extractor.features(mirrored(some, width)), seen * f);
      }
      start += count;
      seen += rows.length;
      if (seen === chosen.length) break;
    }
  } finally {
    await extractor.close();
  }
  sample.add(
    changed,
    Int32Array.from(chosen, (at) => labels[at]!),
  );
}
