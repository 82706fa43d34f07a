/** Predictions in both scenarios, from features and the heads that a generation holds. */

import { type Bundle, headOf } from '../bundle/bundle.js';
import { DISCRIMINANT } from '../contract/thresholds.js';
import type { Picture, Preprocessing } from '../data/pictures.js';
import { taskNames } from '../data/task.js';
import { ConfigError, StateError, TaskError } from '../errors.js';
import { ClassStatistics, ldaHead } from '../method/heads.js';
import { logitsOf, softmaxRows } from '../method/logistic.js';
import { argmax } from '../method/matrix.js';
import { type Distance, distanceFrom, distancesOf, Familiarity, limitOf, REJECT } from '../method/unknown.js';
import type { Generation } from '../state/record.js';
import { BASE } from '../state/store.js';
import { FeatureExtractor, type Told } from './features.js';
import type { Opening } from './feeds.js';
import { requireAnswers, requireUsableHead } from './finite.js';

export const PRIOR_IMAGES = DISCRIMINANT.priorImages;

// Images that go through the network at once: an application may hand over a thousand.
const CHUNK = 64;

/** `logits = features @ weight.T + bias` over `classes`: weight `(classes, f)`, bias `(classes,)`. */
export interface LinearHead {
  readonly classes: readonly string[];
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/**
 * What is said of `n` images: the most probable class of each, and the probabilities of all classes, row by row
 * `(n, classes.length)`; rows sum to 1.
 */
export interface Prediction {
  readonly labels: readonly string[];
  readonly probabilities: Float32Array;
  readonly classes: readonly string[];
  /** How unlike all that is known, `(n,)`: about 1 in the middle of a class. Undefined where nothing was measured. */
  readonly distance?: Float32Array;
  /** Whether it is no further than all but the share `reject` of known images; `labels` holds the best guess anyway. */
  readonly known?: readonly boolean[];
  /** The name of the domain that each image is told to be of, null for none. Undefined where no domain is known. */
  readonly domains?: readonly (string | null)[];
}

/** How far images are from all that is known, and which share of known ones is rejected. */
export interface Doubt {
  readonly distance: Distance;
  readonly reject: number;
}

/**
 * One generation, opened for predictions. Close it when it is no longer needed.
 *
 * Calls may overlap: they share one opened graph, and one that is running when it is closed still ends.
 */
export class Predictor {
  private opened: Shared | undefined;
  private retired = false;
  private measured: { readonly distance: Distance | undefined } | undefined;
  private readonly heads = new Map<string | undefined, LinearHead>();

  constructor(
    private readonly bundle: Bundle,
    private readonly preprocessing: Preprocessing,
    readonly generation: Generation,
    private readonly opening: Opening,
  ) {}

  /**
   * The linear head of one task ("base" for the source model's own), or of all classes when undefined.
   * Throws TaskError for a task that is not learned, StateError for a head that is not finite.
   */
  head(task?: string): LinearHead {
    let found = this.heads.get(task);
    if (!found) {
      found =
        task === undefined
          ? classHead(this.generation, this.bundle)
          : taskHead(this.generation, this.bundle, task);
      this.heads.set(task, found);
    }
    return found;
  }

  /** Features of images, `(n, f)`. Throws TaskError for the first image of which they are not finite. */
  async features(pictures: readonly Picture[]): Promise<Float32Array> {
    return (await this.told(pictures)).features;
  }

  private async told(pictures: readonly Picture[]): Promise<Told> {
    this.opened ??= new Shared(FeatureExtractor.open(this.bundle, this.generation.tensors, this.opening));
    const shared = this.opened;
    try {
      return await shared.use((extractor) => this.extract(pictures, extractor));
    } catch (error) {
      // One that did not open is not kept.
      if (!shared.isOpen && this.opened === shared) this.opened = undefined;
      throw error;
    } finally {
      if (this.retired) await this.close();
    }
  }

  private async extract(pictures: readonly Picture[], extractor: FeatureExtractor): Promise<Told> {
    const f = this.bundle.manifest.head.features;
    const all = new Float32Array(pictures.length * f);
    const names: (string | null)[] = [];
    for (let start = 0; start < pictures.length; start += CHUNK) {
      const batch = this.preprocessing.stack(pictures.slice(start, start + CHUNK));
      const { features, domains } = await extractor.told(this.preprocessing.normalize(batch));
      requireAnswers(features, f, start);
      all.set(features, start * f);
      names.push(...(domains ?? []));
    }
    return names.length ? { features: all, domains: names } : { features: all };
  }

  async predict(pictures: readonly Picture[], task?: string, reject?: number): Promise<Prediction> {
    const head = this.head(task);
    const doubt = this.doubt(reject);
    const { features, domains } = await this.told(pictures);
    const found = predictFrom(features, head, pictures.length);
    const said = domains ? { ...found, domains } : found;
    if (!doubt) return said;
    const distance = distancesOf(doubt.distance, features);
    const limit = limitOf(doubt.distance, doubt.reject);
    return { ...said, distance, known: Array.from(distance, (value) => value <= limit) };
  }

  /**
   * What rejects the share `reject` of known images, by default 0.05; undefined where nothing was measured. Throws
   * ConfigError for no such share, and where one is asked for and nothing was measured.
   */
  doubt(reject?: number): Doubt | undefined {
    const share = reject ?? REJECT;
    if (!(share >= 0 && share < 1)) {
      throw new ConfigError(
        `reject is ${share}, and must be a share of the known images from 0 to below 1, such as ${REJECT}.`,
      );
    }
    this.measured ??= { distance: classDistance(this.generation, this.head()) };
    const { distance } = this.measured;
    if (!distance && reject !== undefined) {
      throw new ConfigError(
        'How far known classes reach was never measured here, so nothing can be called unknown: learn a task with ' +
          'class statistics and two images of a class, or build the bundle with --base-data.',
      );
    }
    return distance && { distance, reject: share };
  }

  /** Close the graph as soon as no call is running; the next call opens it again. */
  async close(): Promise<void> {
    const shared = this.opened;
    this.opened = undefined;
    await shared?.close();
  }

  /** Close it for good: a call that comes later, from somebody who held on to it, closes what it opens. */
  async retire(): Promise<void> {
    this.retired = true;
    await this.close();
  }
}

/** A graph that several calls use at once, closed behind the last of them. */
class Shared {
  isOpen = false;
  private readonly running = new Set<Promise<unknown>>();

  constructor(private readonly opening: Promise<FeatureExtractor>) {
    this.opening.then(
      () => {
        this.isOpen = true;
      },
      // Whoever uses it is told.
      () => undefined,
    );
  }

  async use<T>(work: (extractor: FeatureExtractor) => Promise<T>): Promise<T> {
    const run = this.opening.then(work);
    this.running.add(run);
    try {
      return await run;
    } finally {
      this.running.delete(run);
    }
  }

  /** Behind all that is running, whether it ends well or not. */
  async close(): Promise<void> {
    await Promise.allSettled(this.running);
    if (
      await this.opening.then(
        () => true,
        () => false,
      )
    )
      await (await this.opening).close();
  }
}

/** What a head says of features `(n, f)`. Throws TaskError for the first image of which it is not finite. */
export function predictFrom(features: Float32Array, head: LinearHead, n: number): Prediction {
  const { classes } = head;
  const count = classes.length;
  const logits = logitsOf(features, head);
  requireAnswers(Float32Array.from(logits), count);
  softmaxRows(logits, count);
  const labels = Array.from({ length: n }, (_, i) => classes[argmax(logits, i * count, count)]!);
  return { labels, probabilities: Float32Array.from(logits), classes };
}

function taskHead(generation: Generation, bundle: Bundle, task: string): LinearHead {
  const { classes: base } = bundle.manifest;
  const classes = task === BASE ? base : generation.tasks.find((one) => one.name === task)?.classes;
  if (!classes?.length) {
    const names = taskNames(generation, bundle).join(', ');
    throw new TaskError(`Task '${task}' is not learned. Learned: ${names || 'none'}.`);
  }
  const head = headOf(generation.tensors, task);
  const { features } = bundle.manifest.head;
  if (head?.weight.data.length !== classes.length * features || head.bias.data.length !== classes.length) {
    throw new StateError(
      `The head of task '${task}' does not fit its classes: roll back to an earlier task.`,
    );
  }
  requireUsableHead(head.weight.data, head.bias.data, `task '${task}'`);
  return { classes, weight: head.weight.data, bias: head.bias.data };
}

/**
 * The head over everything learned: linear discriminant analysis over all classes with statistics.
 *
 * Without statistics of the base classes and before the first task, it is the source model's own head; afterwards those
 * classes cannot be weighed against the new ones, and are left out. Where a task was learned without class statistics,
 * all heads decide together.
 */
export function classHead(generation: Generation, bundle: Bundle): LinearHead {
  const { features } = bundle.manifest.head;
  const heads = taskNames(generation, bundle).map((name) =>
    counted(taskHead(generation, bundle, name), generation, name),
  );
  const statistics = ClassStatistics.from(generation.tensors, features);
  const known = new Set(statistics.classes);
  const tasks = heads.slice(bundle.manifest.classes.length ? 1 : 0);
  if (tasks.some(({ classes }) => classes.some((name) => !known.has(name))))
    return sideBySide(heads, features);
  if (statistics.classes.length) {
    const { weight, bias } = ldaHead(statistics, PRIOR_IMAGES);
    requireUsableHead(weight, bias, 'all classes');
    return { classes: statistics.classes, weight, bias };
  }
  if (!heads[0]) throw new TaskError('There is no class to predict yet: learn a task first.');
  return heads[0];
}

/**
 * A task's head for those of its classes that decisions over all classes know by it: not for one that cannot be told from
 * an older one, or that a later lesson replaced.
 */
function counted(head: LinearHead, { tasks }: Generation, task: string): LinearHead {
  const files = tasks.find(({ name }) => name === task)?.contributions;
  const rows = head.classes.flatMap((name, row) => (files?.get(name) === '' ? [] : [row]));
  if (rows.length === head.classes.length) return head;
  const f = head.weight.length / head.classes.length;
  return {
    classes: rows.map((row) => head.classes[row]!),
    weight: Float32Array.from(rows.flatMap((row) => [...head.weight.subarray(row * f, (row + 1) * f)])),
    bias: Float32Array.from(rows, (row) => head.bias[row]!),
  };
}

/**
 * The distance from everything known, of which `head` is the head; undefined where nothing was measured, or a task was
 * learned without class statistics: nothing is known of how far its classes reach.
 */
export function classDistance(generation: Generation, head: LinearHead): Distance | undefined {
  const sketch = Familiarity.from(generation.tensors);
  if (!sketch) return undefined;
  const { classes } = head;
  const statistics = ClassStatistics.from(generation.tensors, head.weight.length / classes.length);
  const same = statistics.classes.length === classes.length;
  if (!same || classes.some((name, c) => statistics.classes[c] !== name)) return undefined;
  return distanceFrom(statistics, sketch, head);
}

/** All outputs of several heads; where two have one of the same name, the later head's. */
function sideBySide(heads: readonly LinearHead[], features: number): LinearHead {
  const rows = new Map<string, { weight: Float32Array; bias: number }>();
  for (const { classes, weight, bias } of heads) {
    classes.forEach((name, c) => {
      rows.set(name, { weight: weight.subarray(c * features, (c + 1) * features), bias: bias[c]! });
    });
  }
  const weight = new Float32Array(rows.size * features);
  [...rows.values()].forEach((row, c) => {
    weight.set(row.weight, c * features);
  });
  return { classes: [...rows.keys()], weight, bias: Float32Array.from(rows.values(), (row) => row.bias) };
}
