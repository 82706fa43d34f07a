/** `Learner`: a bundle and a state, opened together; everything an application needs. */

import { Bundle } from './bundle/bundle.js';
import type { BundleSource } from './bundle/source.js';
import { type TrainingConfig, trainingConfig } from './config.js';
import { type Picture, Preprocessing } from './data/pictures.js';
import type { Task } from './data/task.js';
import { inRightPrecision } from './device/int8Sums.js';
import { type LearnOptions, type LearnReport, LearnRun } from './learning/learnRun.js';
import { exportModel } from './network/export.js';
import type { Opening } from './network/features.js';
import { type LinearHead, type Prediction, Predictor } from './network/predicting.js';
import type { Runtime } from './runtime/sessions.js';
import type { Generation, LearnedTask } from './state/record.js';
import { State } from './state/state.js';
import type { Storage } from './state/storage.js';
import { BASE } from './state/store.js';

export interface LearnerOptions {
  /** An ONNX Runtime package: `import * as ort from 'onnxruntime-node'`, `-web` or `-react-native`. */
  readonly runtime: Runtime;
  /** Where the bundle's files are. */
  readonly bundle: BundleSource;
  /** Where what is learned is kept. */
  readonly storage: Storage;
  /** Settings of every task, where `learn` is given no others. */
  readonly config?: Partial<TrainingConfig>;
  /** Further options for opening sessions, such as `{ executionProviders: ['wasm'] }`. */
  readonly sessionOptions?: object;
  /** How many generations keep their tensors (8). */
  readonly keep?: number;
}

/**
 * Learns task after task, predicts, exports.
 *
 *     const learner = await Learner.open({ runtime: ort, bundle, storage });
 *     await learner.learn({ name: '01-birds', classes, pictures, labels });
 *     const { labels } = await learner.predict(pictures);
 *     const model = await learner.export();
 *
 * One learner writes to a state at a time; any number may read. Calls may overlap: each `predict`, `features` and `export`
 * ends on the generation that it began with, whatever is learned, committed or rolled back meanwhile. A second `learn` or
 * `rollback`, of this learner or another of the same state, throws StateLockedError at once. Learning, and predictions
 * beside it, take turns on JavaScript's one thread.
 */
export class Learner {
  /** From images to the model's input; `preprocessing.toSize` makes images small to keep. */
  readonly preprocessing: Preprocessing;
  private current: Predictor;
  private refreshing: Promise<Predictor> | undefined;

  private constructor(
    readonly bundle: Bundle,
    readonly state: State,
    private readonly options: LearnerOptions,
    private readonly config: TrainingConfig,
    generation: Generation,
    /** Sentences about how this learner computes here, for a user. */
    readonly warnings: readonly string[],
  ) {
    this.preprocessing = new Preprocessing(bundle.manifest.preprocessing, bundle.manifest.input);
    this.current = this.predictorOf(generation);
  }

  /**
   * Open a bundle with the state learned on it; nothing is written before the first task.
   * Throws BundleError, StateError, or ConfigError for a setting.
   */
  static async open(options: LearnerOptions): Promise<Learner> {
    const config = trainingConfig(options.config);
    const opened = await Bundle.open(options.bundle);
    const state = await State.open(options.storage, opened.id, opened.checkpoint, options.keep);
    const { bundle, note } = await inRightPrecision(opened, openingOf(options, config.threads));
    return new Learner(bundle, state, options, config, await state.load(), note ? [note] : []);
  }

  /** The committed generation that the last call saw. */
  get generation(): Generation {
    return this.current.generation;
  }

  /** The learned tasks, oldest first. */
  get tasks(): readonly LearnedTask[] {
    return this.generation.tasks;
  }

  /** The classes that a prediction over all classes decides between, in its order. */
  get classes(): readonly string[] {
    return this.head().classes;
  }

  /** The linear head of one task ("base" for the source model's own), or of all classes. */
  head(task?: string): LinearHead {
    return this.current.head(task);
  }

  /**
   * Learn one task and commit a new generation. An interrupted run is resumed where its last progress checkpoint was.
   * Throws TaskError for data that cannot be learned, StateLockedError while somebody else learns, StorageError when it
   * cannot be written; the generation before then stays the current one.
   */
  async learn(task: Task, settings: Partial<TrainingConfig> & LearnOptions = {}): Promise<LearnReport> {
    const { onProgress, signal, ...overrides } = settings;
    const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
    const config = trainingConfig({ ...this.config, ...Object.fromEntries(given) });
    const report = await this.state.locked(async () => {
      const { bundle, state, preprocessing } = this;
      await state.requireWritable();
      const generation = await this.refresh();
      const options = { ...(onProgress ? { onProgress } : {}), ...(signal ? { signal } : {}) };
      const opening = this.opening(config.threads);
      return new LearnRun(bundle, preprocessing, state, generation, task, config, opening, options).run();
    });
    await this.refresh();
    return { ...report, warnings: [...this.warnings, ...report.warnings] };
  }

  /**
   * Most probable classes, and probabilities: with `task`, among that task's classes; without, among all learned so far.
   * Throws TaskError for images that do not fit, or of which the network computes numbers that are not finite, and for
   * a task that is not learned.
   *
   * `known` of the prediction is false for what is unlike all that is known, whatever `task`; of images of known classes,
   * that is about the share `reject`, 0.05 unless told otherwise. 0 rejects none. Throws ConfigError where it is no share
   * from 0 to below 1, or was never measured.
   */
  async predict(
    pictures: readonly Picture[],
    options: { task?: string; reject?: number } = {},
  ): Promise<Prediction> {
    return (await this.refreshed()).predict(pictures, options.task, options.reject);
  }

  /** Features of images, float32 `(n, f)`. */
  async features(pictures: readonly Picture[]): Promise<Float32Array> {
    return (await this.refreshed()).features(pictures);
  }

  /**
   * An ordinary inference ONNX model over all classes, or over one task's: its bytes. With `reject`, it has two more
   * outputs in standard ops: `known` bool `(n,)`, as `predict` with the same `reject` has it, and `distance` float32 `(n,)`.
   * In `precision` "int8", which only bundles of quantised models have, it is quantised (QDQ) as that model was.
   */
  async export(options: { task?: string; reject?: number; precision?: string } = {}): Promise<Uint8Array> {
    const predictor = await this.refreshed();
    const doubt = options.reject === undefined ? undefined : predictor.doubt(options.reject);
    const head = predictor.head(options.task);
    return exportModel(this.bundle, predictor.generation, head, doubt, options.precision);
  }

  /**
   * Return to the generation in which `task` had just been learned ("base": before the first task).
   * Throws StateError for a task that is not on the way here.
   */
  async rollback(task: string): Promise<Generation> {
    return this.state.locked(async () => {
      await this.state.requireWritable();
      await this.state.rollback(task === BASE ? 0 : await this.state.generationOf(task));
      await this.state.clearProgress();
      return this.refresh();
    });
  }

  /** See what somebody else committed meanwhile; the current generation. */
  async refresh(): Promise<Generation> {
    return (await this.refreshed()).generation;
  }

  /** The current generation's predictor: of overlapping calls one reads it, and a call keeps the one that it gets. */
  private async refreshed(): Promise<Predictor> {
    while (this.current.generation.number !== (await this.state.head())) {
      this.refreshing ??= this.reload().finally(() => {
        this.refreshing = undefined;
      });
      await this.refreshing;
    }
    return this.current;
  }

  private async reload(): Promise<Predictor> {
    const before = this.current;
    this.current = this.predictorOf(await this.state.load());
    // Predictions that run on it end first; nobody waits for them.
    before.retire().catch(() => undefined);
    return this.current;
  }

  /** Give the runtime's memory back. The learner can still be used, and opens again what it needs. */
  async close(): Promise<void> {
    await this.current.close();
  }

  private predictorOf(generation: Generation): Predictor {
    return new Predictor(this.bundle, this.preprocessing, generation, this.opening(this.config.threads));
  }

  private opening(threads: number): Opening {
    return openingOf(this.options, threads);
  }
}

function openingOf({ runtime, sessionOptions }: LearnerOptions, threads: number): Opening {
  return { runtime, settings: { threads, ...(sessionOptions ? { options: sessionOptions } : {}) } };
}
