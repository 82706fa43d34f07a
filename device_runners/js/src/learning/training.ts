/** Learning one task, as pure as it gets with a runtime inside: warm up, step, consolidate. No file is written here. */

import type { Bundle } from '../bundle/bundle.js';
import { columnsOf, rowsOf, type Site, TRAINING_MODEL, tapsOf } from '../bundle/manifest.js';
import type { TrainingConfig } from '../config.js';
import { HEAD, IMPORTANCE, NOVELTY, WARM_UP } from '../contract/thresholds.js';
import { type Contradiction, DivergedError } from '../errors.js';
import { float32, int64, require32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { ClassStatistics } from '../method/heads.js';
import { carrying, gradientNorms } from '../method/importance.js';
import { contradicted, knownAmong } from '../method/knownClasses.js';
import { classEvidence, type LabelEvidence } from '../method/labelCheck.js';
import { type HeadArrays, logisticHead } from '../method/logistic.js';
import { novelty } from '../method/novelty.js';
import { type Optimizer, optimizerOf } from '../method/optimizers.js';
import { type Basis, basisOf, project, restrict, threshold } from '../method/projection.js';
import { Sensitivity, selectChannels } from '../method/selection.js';
import { type Batch, type Batches, eachFeatures, FeatureSample } from '../network/features.js';
import { imageFeed, type Opening } from '../network/feeds.js';
import { requireConverged } from '../network/finite.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import type { Feed, Graph } from '../runtime/sessions.js';

export const HEAD_WEIGHT = 'head.weight';
export const HEAD_BIAS = 'head.bias';

/** Batches of those images that are named by where they come in the batches that a task is warmed up on. */
export type SomeBatches = (rows: readonly number[]) => Iterable<Batch>;

/** Mean loss of a batch, and its gradients: per site by name `(rows, k)`, and of the head. */
interface StepResult {
  readonly loss: number;
  readonly centers: ReadonlyMap<string, Float32Array>;
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** What a task trains at one site: channels `(k,)`, their change of the centers `(rows, k)`, what it must keep clear of. */
export interface SiteTraining {
  readonly site: Site;
  readonly selected: readonly number[];
  readonly delta: Float32Array;
  readonly basis: Basis;
}

/** One task being learned, from a generation's tensors. Close it when it is no longer needed. */
export class TaskTraining {
  /** By site name, in the order of the manifest; empty before the warm-up. */
  readonly sites = new Map<string, SiteTraining>();
  /** The task's own head: weight `(classes, f)`, bias `(classes,)`. */
  head: HeadArrays;
  /** Those of its classes that were known before. */
  readonly known: readonly string[];
  /** Of known classes, those that the images say are others; empty before the warm-up. */
  contradicted: ReadonlyMap<string, Contradiction> = new Map();
  /** What the labels say about the images; undefined before the warm-up. */
  evidence: LabelEvidence | undefined;
  /** How far the images are from all that is known; undefined before the warm-up, or where too little is known. */
  novelty: number | undefined;
  /** Norms `(m,)` of the gradients that the first images send back from the head's outputs; none before the warm-up. */
  norms: Float64Array = new Float64Array(0);
  private readonly optimizer: Optimizer;
  private graph: Graph | undefined;
  /** Features of all images before a center moves, where they take little memory: the drift begins with them. */
  private before: { readonly batches: Batches; readonly sample: FeatureSample } | undefined;

  /**
   * `oldClasses` are those of each older task, "base" among them; without, nothing is said about what they lose. `refitted`
   * are those of older tasks whose heads are made anew, of what is known in the end. `recognised` is how often learned classes
   * were right (`method/decisions.ts`).
   */
  constructor(
    readonly bundle: Bundle,
    readonly tensors: Tensors,
    readonly classes: readonly string[],
    readonly config: TrainingConfig,
    readonly opening: Opening,
    readonly oldClasses: ReadonlyMap<string, readonly string[]> = new Map(),
    readonly refitted: ReadonlyMap<string, readonly string[]> = new Map(),
    readonly recognised: ReadonlyMap<string, number> = new Map(),
  ) {
    this.optimizer = optimizerOf(config);
    this.head = { weight: new Float32Array(0), bias: new Float32Array(0) };
    this.known = knownAmong(classes, this.oldStatistics());
  }

  /** The class statistics of everything learned before. */
  oldStatistics(): ClassStatistics {
    return ClassStatistics.from(this.tensors, this.bundle.manifest.head.features);
  }

  /** Whether the centers are to be changed. */
  get moved(): boolean {
    return [...this.sites.values()].some(({ delta }) => delta.some(Boolean));
  }

  /** By site, how many of the selected channels' directions are kept for older knowledge, as "r/k". */
  get protected(): Record<string, string> {
    const kept = [...this.sites].map(([name, { basis }]) => [name, `${basis.r}/${basis.k}`]);
    return Object.fromEntries(kept);
  }

  /** Drop all that was trained: the task is consolidated as one that no step was taken for. */
  async stayFrozen(): Promise<void> {
    await this.close();
    this.before = undefined;
    this.sites.clear();
  }

  /** Forget what was trained: the network stays as it was. */
  dropCenters(): void {
    for (const { delta } of this.sites.values()) delta.fill(0);
  }

  /**
   * Fit the head, rank the channels on the task's data, select them, and span what is protected.
   *
   * The head starts at its optimum for the features as they are, so that the gradients say what the features lack. Four
   * images for each feature are read for the head, or all, and more until every class was seen. For the channels up to
   * `sensitivityBatches` of those images that half of the gradient comes from, where `some` gives batches of them; else the
   * first of `batches`.
   */
  async warmUp(batches: Batches, some?: SomeBatches): Promise<void> {
    const { manifest } = this.bundle;
    await this.startHead(batches);
    const least = this.config.batchSize ?? manifest.batch_size;
    const ranked = some?.(carrying(this.norms, IMPORTANCE.selectionShare, least));
    const sensitivities = await this.sensitivities(ranked ?? batches());
    const ratio = this.config.channelRatio ?? manifest.channel_ratio;
    for (const site of manifest.sites) {
      const selected = selectChannels(sensitivities.get(site.name)!.values, ratio);
      this.select(site, selected, new Float32Array(rowsOf(site) * selected.length));
    }
  }

  /** The head at its optimum for a sample of the features as they are. */
  private async startHead(batches: Batches): Promise<void> {
    const f = this.bundle.manifest.head.features;
    const sample = new FeatureSample(f);
    const wanted = Math.min(WARM_UP.imagesPerFeature * f, sample.room);
    const all = new AllOf(batches);
    const taken = this.sample(() => all.taking(), wanted);
    await eachFeatures(this.bundle, this.tensors, this.opening, taken, (...seen) => void sample.add(...seen));
    if (all.taken && !sample.full && sample.byteLength <= HEAD.beforeBytes) this.before = { batches, sample };
    const { features, labels } = sample.arrays();
    this.check(features, labels);
    this.head = logisticHead(features, f, labels, this.classes.length);
    this.norms = gradientNorms(features, labels, this.head);
  }

  /** The same as `norms` of the images of these batches: with the head and the features that training starts from. */
  async normsOf(batches: Iterable<Batch>): Promise<Float64Array> {
    await this.close();
    const found: number[] = [];
    const add = (features: Float32Array, labels: Int32Array): undefined => {
      found.push(...gradientNorms(features, labels, this.head));
    };
    await eachFeatures(this.bundle, this.tensors, this.opening, batches, add);
    return Float64Array.from(found);
  }

  /** What features `(n, f)` of images and their labels say of the labels, and of what is known. */
  check(features: Float32Array, labels: Int32Array): void {
    const f = this.bundle.manifest.head.features;
    this.evidence = classEvidence(features, f, labels, this.classes.length);
    const old = this.oldStatistics();
    this.novelty = novelty(old, features.subarray(0, NOVELTY.mostImages * f));
    if (this.known.length) {
      this.contradicted = contradicted(old, PRIOR_IMAGES, features, labels, this.classes);
    }
  }

  /** Features of all images of `batches` as they were before a center moved; undefined where they were not kept. */
  keptOf(batches: Batches): FeatureSample | undefined {
    return this.before?.batches === batches ? this.before.sample : undefined;
  }

  private async sensitivities(batches: Iterable<Batch>): Promise<Map<string, Sensitivity>> {
    const { sites } = this.bundle.manifest;
    const found = new Map(sites.map((site) => [site.name, new Sensitivity(columnsOf(site))]));
    const every = sites.map((site) => ({
      site,
      selected: Array.from({ length: columnsOf(site) }, (_, i) => i),
      delta: new Float32Array(rowsOf(site) * columnsOf(site)),
    }));
    let count = 0;
    for (const batch of batches) {
      const { centers } = await this.run(batch, every);
      for (const [name, sensitivity] of found) sensitivity.add(centers.get(name)!);
      count += 1;
      if (count >= this.config.sensitivityBatches) break;
    }
    return found;
  }

  /**
   * One optimizer step; its loss. `schedule` scales both learning rates.
   * Throws DivergedError when the loss is no longer finite.
   */
  async step(batch: Batch, schedule: number): Promise<number> {
    const result = await this.run(batch, [...this.sites.values()]);
    if (!Number.isFinite(result.loss)) {
      throw new DivergedError(
        `The training loss became ${result.loss}: lower learningRate, and check this task's data. ` +
          'Nothing was committed.',
      );
    }
    const { learningRate, headLearningRate } = this.config;
    for (const [name, { delta, basis }] of this.sites) {
      const update = result.centers.get(name)!;
      this.optimizer.step(name, update, delta, learningRate * schedule);
      // After momentum or Adam, so that nothing leaks past the projection.
      project(update, basis);
      subtract(delta, update);
    }
    const rate = headLearningRate * schedule;
    this.optimizer.step(HEAD_WEIGHT, result.weight, this.head.weight, rate);
    subtract(this.head.weight, result.weight);
    this.optimizer.step(HEAD_BIAS, result.bias, this.head.bias, rate);
    subtract(this.head.bias, result.bias);
    return result.loss;
  }

  /** Loss and gradients at these centers, without an update. */
  private async run(batch: Batch, sites: readonly Omit<SiteTraining, 'basis'>[]): Promise<StepResult> {
    const { head } = this.bundle.manifest;
    const { runtime, settings } = this.opening;
    this.graph ??= await this.bundle.graph(TRAINING_MODEL, this.tensors, runtime, settings);
    const classes = this.classes.length;
    // label_smoothing and class_mask keep their defaults: not every runtime lets an initializer be fed.
    const feeds: Record<string, Feed> = {
      image: imageFeed(this.bundle, batch.images),
      label: int64(batch.labels),
      [head.weight]: float32([classes, head.features], this.head.weight),
      [head.bias]: float32([classes], this.head.bias),
    };
    for (const { site, selected, delta } of sites) {
      feeds[site.indices] = int64(selected);
      feeds[site.delta] = float32([rowsOf(site), selected.length], delta);
    }
    const names = sites.map(({ site }) => site.gradient);
    const outputs = await this.graph.run(feeds, ['loss', head.weight_gradient, head.bias_gradient, ...names]);
    return {
      loss: outputs.loss![0]!,
      centers: new Map(sites.map(({ site }) => [site.name, outputs[site.gradient]!])),
      weight: outputs[head.weight_gradient]!,
      bias: outputs[head.bias_gradient]!,
    };
  }

  /**
   * Everything that changes while training, for a progress checkpoint.
   * Throws TaskError where training has diverged: a run that went on from there could only end so.
   */
  progress(): Map<string, StoredTensor> {
    const { weight, bias } = this.head;
    const classes = this.classes.length;
    const saved = new Map<string, StoredTensor>([
      [HEAD_WEIGHT, float32([classes, weight.length / classes], weight)],
      [HEAD_BIAS, float32([classes], bias)],
    ]);
    for (const [name, { site, selected, delta }] of this.sites) {
      saved.set(`selected/${name}`, int64(selected));
      saved.set(`delta/${name}`, float32([rowsOf(site), selected.length], delta));
    }
    for (const [key, tensor] of this.optimizer.tensors()) saved.set(`optimizer/${key}`, tensor);
    for (const [name, { data }] of saved) if (data instanceof Float32Array) requireConverged(name, data);
    return saved;
  }

  /** Continue from `progress`, to the bit. */
  resume(saved: Tensors): void {
    this.head = {
      weight: require32(saved, HEAD_WEIGHT).data.slice(),
      bias: require32(saved, HEAD_BIAS).data.slice(),
    };
    for (const site of this.bundle.manifest.sites) {
      const selected = saved.get(`selected/${site.name}`)!;
      this.select(
        site,
        Array.from(selected.data, Number),
        require32(saved, `delta/${site.name}`).data.slice(),
      );
    }
    const prefix = 'optimizer/';
    const own = [...saved].filter(([key]) => key.startsWith(prefix));
    this.optimizer.load(new Map(own.map(([key, tensor]) => [key.slice(prefix.length), tensor])));
  }

  /** Close the training model. */
  async close(): Promise<void> {
    await this.graph?.close();
    this.graph = undefined;
  }

  private select(site: Site, selected: readonly number[], delta: Float32Array): void {
    const moment = restrict(require32(this.tensors, `moment/${site.name}`), selected);
    const basis = basisOf(moment, selected.length, threshold(this.config.energy, tapsOf(site)));
    this.sites.set(site.name, { site, selected, delta, basis });
  }

  /** The first `sensitivityBatches` batches, and more until they are `least` images, and each class was seen. */
  private *sample(batches: Batches, least: number): Generator<Batch> {
    const seen = new Set<number>();
    let count = 0;
    let pictures = 0;
    for (const batch of batches()) {
      const enough = count >= this.config.sensitivityBatches && pictures >= least;
      if (enough && seen.size === this.classes.length) return;
      pictures += batch.labels.length;
      for (const label of batch.labels) seen.add(label);
      count += 1;
      yield batch;
    }
  }
}

/** Batches, and whether all of them have been taken. */
class AllOf {
  taken = false;

  constructor(private readonly batches: Batches) {}

  *taking(): Generator<Batch> {
    yield* this.batches();
    this.taken = true;
  }
}

function subtract(from: Float32Array, what: Float32Array): void {
  for (let i = 0; i < from.length; i++) from[i] = from[i]! - what[i]!;
}
