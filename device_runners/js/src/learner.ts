/** `Learner`: a bundle and a state, opened together; everything an application needs. */

import { accept, checkAge } from './bundle/accepted.js';
import { Bundle } from './bundle/bundle.js';
import { TrustedKey } from './bundle/signing.js';
import type { BundleSource } from './bundle/source.js';
import { type TrainingConfig, trainingConfig } from './config.js';
import { SENTENCES } from './contract/sentences.js';
import { type Picture, Preprocessing } from './data/pictures.js';
import type { Task } from './data/task.js';
import { inRightPrecision } from './device/int8Sums.js';
import { TaskError } from './errors.js';
import { type Adapted, adapt, forgetDomain } from './learning/adapting.js';
import { type Forgotten, forget, merge, rename } from './learning/forgetting.js';
import { LearnRun } from './learning/learnRun.js';
import type { LearnOptions, LearnReport } from './learning/report.js';
import { domainNames } from './network/domains.js';
import { exportModel } from './network/export.js';
import { type Opening, openingOf } from './network/feeds.js';
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
  /**
   * The text of a PEM file with an ed25519 public key: only bundles that its holder signed are opened, and none that is
   * older than one which this storage has seen.
   */
  readonly trust?: string;
  /** Accept this bundle for good although a newer one was seen. */
  readonly allowOlder?: boolean;
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
   * Throws BundleError, StateError, or ConfigError for a setting, or a `trust` that is no key or cannot be checked here.
   */
  static async open(options: LearnerOptions): Promise<Learner> {
    const config = trainingConfig(options.config);
    const { storage, trust, allowOlder = false } = options;
    const opened = await Bundle.open(options.bundle, trust);
    const key = trust === undefined ? undefined : TrustedKey.of(trust).fingerprint;
    if (key !== undefined && !allowOlder) await checkAge(opened, key, storage);
    const state = await State.open(storage, opened.id, opened.checkpoint, options.keep);
    if (key !== undefined) await accept(opened, key, storage, allowOlder);
    const { bundle, note } = await inRightPrecision(opened, openingOf(options, config.threads));
    return new Learner(bundle, state, options, config, await state.load(), note ? [note] : []);
  }

  /** The committed generation that the last call saw. */
  get generation(): Generation {
    return this.current.generation;
  }

  /** The key whose holder's bundles are opened, and files of a fleet applied: `trust` of the options. */
  get trust(): string | undefined {
    return this.options.trust;
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
   * Images of classes that are known are added to what is known of them; with `replace: true`, nothing that was learned of
   * them before counts any more (what the base knows does). Images that look like those of another known class contradict
   * what is known: a ContradictionError, unless `replace` is true or false.
   * Throws TaskError for data that cannot be learned, StateLockedError while somebody else learns, StorageError when it
   * cannot be written; the generation before then stays the current one.
   */
  async learn(task: Task, settings: Partial<TrainingConfig> & LearnOptions = {}): Promise<LearnReport> {
    const { onProgress, signal, replace, ...overrides } = settings;
    const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
    const config = trainingConfig({ ...this.config, ...Object.fromEntries(given) });
    const report = await this.state.locked(async () => {
      const { bundle, state, preprocessing } = this;
      await state.requireWritable();
      const generation = await this.refresh();
      const options = {
        ...(onProgress ? { onProgress } : {}),
        ...(signal ? { signal } : {}),
        ...(replace === undefined ? {} : { replace }),
      };
      const opening = this.opening(config.threads);
      const run = await LearnRun.open(
        bundle,
        preprocessing,
        state,
        generation,
        task,
        config,
        opening,
        options,
      );
      return run.run();
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
   * Learn the domain `name`: what another camera, light or weather makes of images. It takes no labels.
   *
   * `pictures` are at least 32, as `predict` takes them, of known things, a fair mix of their classes, and all of this domain.
   * From then on each image is told to be of one of the domains or of none, and seen as the base's images are (adaptive batch
   * normalisation): what is known is recognised in it, and what is learned from it is known everywhere. The backbone is not
   * trained any more. Of up to 512 images, no pixel is kept. `replace` takes the place of a domain of this name. Commits a
   * generation.
   *
   * Throws TaskError for images that are too few, look like what is known already, or come no nearer to it, and for a name that
   * is known or cannot be used; BundleError where the bundle was built without base data; StateLockedError and StorageError
   * as `learn` does.
   */
  async adapt(
    name: string,
    pictures: readonly Picture[],
    { replace = false }: { replace?: boolean } = {},
  ): Promise<Adapted> {
    const { bundle, preprocessing, state } = this;
    const opening = this.opening(this.config.threads);
    return this.changing(() => adapt(bundle, preprocessing, state, name, pictures, opening, replace));
  }

  /** The names of the domains that are known, in alphabetical order. */
  get domains(): readonly string[] {
    return domainNames(this.generation.tensors);
  }

  /** Take back the domain `name`: its images are seen as all others are. Throws TaskError where it is not known. */
  async forgetDomain(name: string): Promise<Generation> {
    return this.changing(() => forgetDomain(this.state, name));
  }

  /**
   * Forget classes, or a task: what it contributed, its head, and every older generation that holds it.
   *
   * What is known of all others is then, where no center was ever trained, to the bit what a device knows that never learned
   * it; `remains` of what is returned says what else is left. Classes of the base are hidden, since the bundle holds them. It
   * cannot be undone. Throws TaskError for a class or task that is not known, StorageError where something cannot be removed.
   */
  async forget(what: { classes?: readonly string[]; task?: string }): Promise<Forgotten> {
    const { classes = [], task } = what;
    if (classes.length > 0 === (task !== undefined)) throw new TaskError(SENTENCES.forgetWhat);
    return this.changing(() => forget(this.bundle, this.state, classes, task));
  }

  /** Give a learned class another name. Throws TaskError for one that is not learned, or a name that is taken. */
  async rename(old: string, name: string): Promise<Generation> {
    return this.changing(() => rename(this.bundle, this.state, old, name));
  }

  /**
   * Make one class of two: what was learned of `other` is known of `into`. Throws TaskError for a class that is not known, and
   * for `other` of the base.
   */
  async merge(into: string, other: string): Promise<Generation> {
    return this.changing(() => merge(this.bundle, this.state, into, other));
  }

  /** The lock, and predictions from what is committed afterwards. */
  private async changing<T>(work: () => Promise<T>): Promise<T> {
    const done = await this.state.locked(async () => {
      await this.state.requireWritable();
      return work();
    });
    await this.refresh();
    return done;
  }

  /**
   * Return to the generation in which `task` had just been learned ("base": before the first task); also forward again, as
   * long as that generation is there. Throws StateError for a task that no kept generation ended with.
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
