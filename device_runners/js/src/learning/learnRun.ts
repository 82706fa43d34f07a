/** One task learned from start to commit, resumable at any step. */

import type { Bundle } from '../bundle/bundle.js';
import { trainedBy } from '../bundle/manifest.js';
import { augmentationOf, configRecord, DEFAULTS, type TrainingConfig } from '../config.js';
import { PROGRESS_SCHEMA } from '../contract/progressSchema.js';
import { SENTENCES } from '../contract/sentences.js';
import { GAIN } from '../contract/thresholds.js';
import { moved, randomMoves } from '../data/augment.js';
import type { Preprocessing } from '../data/pictures.js';
import { requireNewTask, type Task, TaskPixels, taskClasses } from '../data/task.js';
import { now } from '../engine.js';
import { DivergedError } from '../errors.js';
import { dumps, type Json } from '../formats/json.js';
import { violation } from '../formats/schema.js';
import { type StoredTensor, type Tensors, uint8 } from '../formats/tensors.js';
import type { Lesson } from '../method/contributions.js';
import { recognised } from '../method/decisions.js';
import { type Gain, pays, untold } from '../method/gain.js';
import { ClassStatistics } from '../method/heads.js';
import { carrying } from '../method/importance.js';
import { cosine, warmUpSteps } from '../method/optimizers.js';
import { Random } from '../method/random.js';
import { tiles } from '../method/tiles.js';
import type { Batch } from '../network/features.js';
import type { Opening } from '../network/feeds.js';
import { peakRssBytes } from '../runtime/peakMemory.js';
import type { Generation, LearnedTask } from '../state/record.js';
import type { State } from '../state/state.js';
import { VERSION } from '../version.js';
import {
  alone,
  requireAgreement,
  requireLearnable,
  requireOthers,
  requireTrainable,
  warningsAbout,
  worstOf,
} from './acceptance.js';
import { type Consolidated, consolidate, headsOnly, type Look } from './consolidation.js';
import {
  gainNote,
  type HeadsOnlyBecause,
  headsBecause,
  headsNotes,
  undecidedNote,
  whyFixed,
} from './fewShot.js';
import { gainSoFar } from './gaining.js';
import {
  expectedOf,
  expectedRecord,
  type LearnOptions,
  type LearnReport,
  type Progress,
  type StopSignal,
} from './report.js';
import { replacing, type TaskClasses } from './revision.js';
import { StepOrder } from './stepOrder.js';
import { Stopping } from './stopping.js';
import { TaskTraining } from './training.js';
import { type Numbered, naming } from './unlearnable.js';

/** In a progress checkpoint: over which images the steps go, `(n,)` uint8. */
const STEPPED = 'stepped';
/** And what `train` was by default where it was begun; builds for which that was "centers" do not say. */
const DEFAULT_TRAIN = 'default_train';

interface Resumed {
  readonly step: number;
  readonly loss: number;
  readonly seconds: number;
}

/** What a task is learned from, and what of older tasks is made anew for it. */
interface Ground {
  readonly generation: Generation;
  readonly refitted: TaskClasses;
}

/** One call of `Learner.learn`, under the state's lock. */
export class LearnRun {
  private readonly pixels: TaskPixels;
  private readonly batchSize: number;
  /** All images, until it is known what each has to teach. */
  private readonly order: StepOrder;
  private stopping: Stopping;
  /** Why only heads are fitted, or "". */
  private because: HeadsOnlyBecause;
  /** What held-out images said of training, once they were asked. */
  private gain: Gain | undefined;
  private readonly training: TaskTraining;
  /** The task's images, the same for every look at them. */
  private readonly batches = (): Generator<Batch> => this.plainBatches();
  /** What was seen of them, where no center moves. */
  private looked: Look | undefined;
  /** The images of the step that is being taken. */
  private stepping: Int32Array | undefined;
  private begun = 0;
  /** Steps that count. */
  private taken = 0;
  /** Tensors and facts of a newer csk-sdk in the progress checkpoint that this run goes on from. */
  private foreign: { tensors: Tensors; meta: object } = { tensors: new Map(), meta: {} };
  /** What a checkpoint says of who began the lesson; and whether that was a build that trained by default. */
  private begunBy: object = { [DEFAULT_TRAIN]: DEFAULTS.train };
  private trainedByDefault = false;

  /** Check the task, and open it on `generation`, or on what is left of it where the task replaces. */
  static async open(
    bundle: Bundle,
    preprocessing: Preprocessing,
    state: State,
    generation: Generation,
    task: Task,
    config: TrainingConfig,
    opening: Opening,
    options: LearnOptions,
  ): Promise<LearnRun> {
    const { name, classes } = task;
    requireNewTask(generation, bundle, name, classes);
    requireTrainable(bundle, config);
    const known = ClassStatistics.from(generation.tensors, bundle.manifest.head.features);
    requireOthers(known, config, name, classes);
    const ground = options.replace
      ? await replacing(bundle, state, generation, classes)
      : { generation, refitted: new Map() };
    return new LearnRun(bundle, preprocessing, state, ground, task, config, opening, options);
  }

  private constructor(
    private readonly bundle: Bundle,
    private readonly preprocessing: Preprocessing,
    private readonly state: State,
    private readonly ground: Ground,
    private readonly task: Task,
    private config: TrainingConfig,
    private readonly opening: Opening,
    private readonly options: LearnOptions,
  ) {
    const { generation, refitted } = ground;
    this.report('check');
    this.pixels = new TaskPixels(task, preprocessing);
    this.batchSize = config.batchSize ?? bundle.manifest.batch_size;
    this.order = new StepOrder(this.pixels.count, this.batchSize, config.seed);
    this.stopping = this.stoppingOf();
    this.because = headsBecause(this.pixels.count, task.classes, config, whyFixed(generation.tensors));
    const old = taskClasses(generation, bundle);
    for (const name of refitted.keys()) old.delete(name);
    this.training = new TaskTraining(
      bundle,
      generation.tensors,
      task.classes,
      config,
      opening,
      old,
      refitted,
      recognised(generation.tasks.map((one) => one.expected)),
    );
  }

  private stepOver(images: Uint8Array): void {
    this.order.over(images);
    this.stopping = this.stoppingOf();
  }

  private stoppingOf(): Stopping {
    return new Stopping(this.config, this.bundle.manifest, this.order.perEpoch, this.batchSize);
  }

  /** Let the steps go over the images that most of the gradient comes from. */
  private async chooseImages(): Promise<void> {
    const share = this.config.gradientShare;
    if (share === 1) return;
    const order = this.order.plain();
    let { norms } = this.training;
    const rest = order.subarray(norms.length);
    if (rest.length) {
      norms = Float64Array.from([...norms, ...(await this.training.normsOf(this.plainBatches(rest)))]);
    }
    const found = new Uint8Array(order.length);
    // Two batches at least, where there are as many: of one alone, none could be held out.
    for (const row of carrying(norms, share, 2 * this.batchSize)) found[order[row]!] = 1;
    this.stepOver(found);
  }

  /** Learn and commit. */
  async run(): Promise<LearnReport> {
    try {
      return await this.learn();
    } catch (error) {
      throw error instanceof DivergedError ? await this.naming(error) : error;
    } finally {
      await this.training.close();
      tiles().release();
    }
  }

  private naming(error: DivergedError): Promise<DivergedError> {
    const { bundle, ground, opening, task } = this;
    const name = (image: number) => `image ${image} of task '${task.name}'`;
    return naming(error, bundle, ground.generation.tensors, opening, this.suspects(), name);
  }

  /** The images of the step that failed, or all where it was no step. */
  private *suspects(): Generator<Numbered> {
    const order = this.stepping ?? Int32Array.from({ length: this.pixels.count }, (_, i) => i);
    for (let start = 0; start < order.length; start += this.batchSize) {
      const numbers = order.subarray(start, start + this.batchSize);
      yield { numbers, images: this.preprocessing.normalize(this.pixels.batch(numbers).pixels) };
    }
  }

  private async learn(): Promise<LearnReport> {
    const { state, task, training } = this;
    const identity = this.identity();
    const resumed = await this.restore(identity);
    this.begun = now() - 1000 * resumed.seconds;
    if (resumed.step === 0) await this.warmUp();
    const trained = this.because ? { loss: 0, steps: 0 } : await this.train(resumed, identity);
    const epochs = Math.ceil(trained.steps / this.order.perEpoch);
    this.taken = trained.steps;
    this.report('consolidate', trained.steps, trained.loss);
    const result = await consolidate(training, task.name, this.batches, this.looked);
    const learned: LearnedTask = {
      name: task.name,
      classes: [...task.classes],
      epochs,
      images: this.pixels.count,
      seconds: Math.round(this.seconds() * 1000) / 1000,
      loss: this.because ? result.loss() : trained.loss,
      peakRssBytes: peakRssBytes(),
      config: this.configRecord(),
      protected: training.protected,
      notes: [...this.warnings(result), ...(this.choice(result) ? [this.choice(result)] : [])],
      contributions: await this.kept(result.lesson, result.apart),
      carried: await this.kept(result.carried, result.apart),
      shared: [],
      expected: expectedRecord(result.judgement),
      ...(result.lesson?.temperature === undefined ? {} : { temperature: result.lesson.temperature }),
    };
    throwIfAborted(this.options.signal);
    const parent = this.ground.generation;
    const committed = await state.commit(parent.number, [...parent.tasks, learned], result.tensors);
    await state.clearProgress();
    return this.reported(learned, result, committed.number, resumed.step);
  }

  /** By class, what its contribution is called in the state; '' for those that are `apart`. */
  private async kept(lesson: Lesson | undefined, apart: readonly string[]): Promise<Map<string, string>> {
    const names = new Map<string, string>(lesson ? apart.map((name) => [name, '']) : []);
    for (const [name, one] of lesson?.contributions ?? []) {
      names.set(name, await this.state.keepContribution(one.tensors()));
    }
    return names;
  }

  private reported(
    { name: task, classes, images, epochs, loss, seconds, protected: kept }: LearnedTask,
    result: Consolidated,
    generation: number,
    resumedAtStep: number,
  ): LearnReport {
    const { training, stopping } = this;
    const { leaks, forgetting, judgement } = result;
    const because = this.because || (result.headsOnly ? 'max-forgetting' : '');
    const refitted = new Set([...this.ground.refitted.values()].flat());
    return {
      ...{
        task,
        classes,
        images,
        epochs,
        stepped: this.because ? 0 : Math.min(this.order.count, this.taken * this.batchSize),
        loss,
        seconds,
        generation,
        resumedAtStep,
        protected: kept,
        warnings: this.warnings(result),
      },
      leak: Math.max(0, ...leaks.values()),
      forgetting: Math.round(100 * worstOf(forgetting).points) / 100,
      headsOnly: because !== '',
      headsOnlyBecause: because,
      gain: this.gain,
      choice: this.choice(result),
      known: training.known,
      replaced: classes.filter((name) => refitted.has(name)),
      stopped: this.because ? 'epochs' : stopping.reason,
      expected: expectedOf(judgement),
      twins: Object.fromEntries(judgement?.twins ?? []),
    };
  }

  /** Warm up, and be sure that there is something to learn. */
  private async warmUp(): Promise<void> {
    const { training, config, task, bundle, options } = this;
    if (this.because) {
      this.looked = await headsOnly(training, this.batches);
    } else {
      this.report('select');
      const order = this.order.plain();
      await training.warmUp(this.batches, (rows) =>
        this.plainBatches(Int32Array.from(rows, (row) => order[row]!)),
      );
      await this.chooseImages();
    }
    requireLearnable(training.evidence, config, task.name);
    if (options.replace === undefined) {
      requireAgreement(training.contradicted, bundle.manifest.classes, task.name);
    }
  }

  private warnings(result: Consolidated): string[] {
    const { because, training, config, task, pixels } = this;
    const single = alone(task.classes, result.judgement, pixels.count);
    const about = warningsAbout(training.novelty, result, config, single);
    return [...about, ...headsNotes(because, pixels.count, task.classes, trainedBy(this.bundle.manifest))];
  }

  /** What was chosen and why, where it was left to be decided, or why nothing was asked: begun before, no time; else "". */
  private choice({ headsOnly: dropped }: Consolidated): string {
    const { gain, config, stopping, taken } = this;
    const trained = trainedBy(this.bundle.manifest);
    if (gain) return gainNote(gain, this.pixels.count, config.maxForgetting, trained, dropped);
    if (this.trainedByDefault) return SENTENCES.begunWithCenters;
    if (this.because || this.probe < taken || config.seconds === null) return '';
    return undecidedNote(taken, stopping.steps, config.seconds, dropped);
  }

  /**
   * All steps from where it was resumed: the mean loss of the last epoch, and how many steps there were. Depends on seed
   * and step, not on resuming (but for a budget of seconds).
   */
  private async train(resumed: Resumed, identity: object): Promise<{ loss: number; steps: number }> {
    const { config, stopping } = this;
    const { perEpoch } = this.order;
    const { signal } = this.options;
    const { steps } = stopping;
    const warmup = warmUpSteps(perEpoch);
    let saved = now();
    let { loss, step: done } = resumed;
    while (done < steps) {
      if (done === this.probe && !(await this.pays())) {
        this.because = 'no-gain';
        await this.training.stayFrozen();
        return { loss: 0, steps: 0 };
      }
      const epoch = Math.floor(done / perEpoch);
      const position = done % perEpoch;
      if (position === 0) loss = 0;
      const batch = this.trainingBatch(epoch, position);
      loss += (await this.training.step(batch, cosine(done, steps, warmup))) * batch.labels.length;
      done += 1;
      this.report('train', done, loss / this.order.seen(done));
      const over = stopping.over(done, this.seconds(), loss / this.order.seen(done));
      const due = now() - saved >= 1000 * config.checkpointSeconds;
      if (!over && (due || signal?.aborted)) {
        const asked = this.gain ? { gain: this.gain } : {};
        const own = { step: done, loss, seconds: this.seconds(), plateau: stopping.memory, ...asked };
        const tensors = new Map([...this.foreign.tensors, ...this.progress()]);
        await this.state.saveProgress(tensors, {
          ...this.foreign.meta,
          ...identity,
          ...this.begunBy,
          ...own,
        });
        saved = now();
      }
      throwIfAborted(signal);
      if (over) break;
    }
    this.stepping = undefined;
    return { loss: loss / this.order.seen(done), steps: done };
  }

  /** The tensors of a progress checkpoint. */
  private progress(): Map<string, StoredTensor> {
    return this.training.progress().set(STEPPED, uint8(this.order.chosen));
  }

  /**
   * After how many steps it is decided whether to go on; -1 for never. Half of the first epoch, so that the other half's
   * images are held out; less where there are fewer steps.
   */
  private get probe(): number {
    return this.config.train === 'auto'
      ? Math.floor(Math.min(this.order.perEpoch, this.stopping.steps) / 2)
      : -1;
  }

  /** Whether the first steps are worth going on, by images that they have not seen. */
  private async pays(): Promise<boolean> {
    this.stepping = undefined;
    this.gain ??= this.probe ? await this.gained() : untold();
    return pays(this.gain, this.config.maxForgetting);
  }

  /** Of at most so many images up to the last one that was stepped on, and so many behind it. */
  private gained(): Promise<Gain> {
    const order = this.order.epoch(0);
    const last = this.order.step(0, this.probe - 1);
    const seen = 1 + order.indexOf(last[last.length - 1]!);
    const some = order.slice(Math.max(0, seen - GAIN.mostImages), seen + GAIN.mostImages);
    const held = new Set(order.slice(seen, seen + GAIN.mostImages));
    // In the order in which the warm-up has seen them: what it has kept need not be looked at again.
    const all = some.length === this.pixels.count;
    const asked = all ? this.order.plain() : some;
    const heldOut = Array.from(asked, (image) => held.has(image));
    const batches = all ? this.batches : () => this.plainBatches(asked);
    return gainSoFar(this.training, batches, heldOut, this.share(this.probe));
  }

  /** What the first so many steps are of all, by their learning rates. */
  private share(done: number): number {
    const { steps } = this.stopping;
    const warmup = warmUpSteps(this.order.perEpoch);
    const rates = Array.from({ length: steps }, (_, step) => cosine(step, steps, warmup));
    const sum = (some: readonly number[]): number => some.reduce((total, rate) => total + rate, 0);
    return sum(rates.slice(0, done)) / sum(rates);
  }

  /** Where to go on from; step 0 for a fresh start. */
  private async restore(identity: Record<string, unknown>): Promise<Resumed> {
    const fresh = { step: 0, loss: 0, seconds: 0 };
    const found = await this.state.loadProgress();
    if (!found) return fresh;
    // A setting that it lacks was none yet, and was as its default is, or was then.
    const { checkpoint_seconds: _, ...defaults } = configRecord({ ...DEFAULTS, train: 'centers' });
    const config = { ...JSON.parse(dumps(defaults)), ...(found.meta.config as object) };
    const said: Record<string, unknown> = { ...found.meta, config };
    const trainedByDefault =
      this.config.train === 'auto' && config.train === 'centers' && !(DEFAULT_TRAIN in said);
    const begun = trainedByDefault ? { config: { ...(identity.config as object), train: 'centers' } } : {};
    const same = Object.entries({ ...identity, ...begun }).every(
      ([key, value]) => sorted(said[key]) === sorted(value),
    );
    // Another run's stays until this one has something better to keep in its place.
    if (!same || violation(found.spelled, PROGRESS_SCHEMA) !== undefined) return fresh;
    const stepped = found.tensors.get(STEPPED)?.data;
    const chosen =
      stepped instanceof Uint8Array && stepped.length === this.pixels.count ? stepped : undefined;
    if (stepped && !chosen?.includes(1)) return fresh;
    Object.assign(identity, begun);
    this.trainedByDefault = trainedByDefault;
    if (trainedByDefault) this.config = { ...this.config, train: 'centers' };
    this.begunBy = DEFAULT_TRAIN in said ? { [DEFAULT_TRAIN]: said[DEFAULT_TRAIN] } : {};
    this.training.resume(found.tensors);
    // A build that knew of no such choice stepped over all.
    if (chosen) this.stepOver(chosen);
    const known = this.progress();
    const facts = Object.entries(found.spelled).filter(
      ([key]) => !Object.hasOwn(PROGRESS_SCHEMA.properties!, key),
    );
    this.foreign = {
      tensors: new Map([...found.tensors].filter(([key]) => !known.has(key))),
      meta: Object.fromEntries(facts),
    };
    const { step, loss, seconds, plateau } = found.meta;
    this.stopping.resume(plateau as { best: number; stale: number });
    this.gain = found.meta.gain as Gain | undefined;
    return { step: Number(step), loss: Number(loss), seconds: Number(seconds) };
  }

  /** The settings, and what precision they came to here, as Python has it. */
  private configRecord(): Record<string, Json> {
    return { ...configRecord(this.config), precision: this.bundle.precision };
  }

  /** What must be equal for a progress checkpoint to be continued: another runner orders images differently. */
  private identity(): Record<string, unknown> {
    const { checkpoint_seconds: _, ...config } = this.configRecord();
    return {
      task: this.task.name,
      fingerprint: this.pixels.fingerprint() + (this.options.replace ? '+replace' : ''),
      generation: this.ground.generation.number,
      config: JSON.parse(dumps(config)),
      backend: 'portable',
      version: `${VERSION} javascript`,
    };
  }

  /** Shuffled by (seed, epoch) and augmented by (seed, epoch, position), so that any step can be redone. */
  private trainingBatch(epoch: number, position: number): Batch {
    const { seed } = this.config;
    const index = this.order.step(epoch, position);
    this.stepping = index;
    const { pixels, labels } = this.pixels.batch(index);
    const { flip, shift } = augmentationOf(this.config, this.bundle.manifest);
    const moves = randomMoves(pixels.count, new Random(seed, epoch, position), flip, shift);
    return { images: this.preprocessing.normalize(moved(pixels, moves, this.preprocessing)), labels };
  }

  /** The images of `order` once, without augmentation: the whole task, shuffled by the seed, where nothing is named. */
  private *plainBatches(order = this.order.plain()): Generator<Batch> {
    for (let start = 0; start < order.length; start += this.batchSize) {
      throwIfAborted(this.options.signal);
      const { pixels, labels } = this.pixels.batch(order.subarray(start, start + this.batchSize));
      yield { images: this.preprocessing.normalize(pixels), labels };
    }
  }

  private report(phase: Progress['phase'], step = 0, loss = Number.NaN): void {
    const epochs = this.config.epochs;
    const epoch = phase === 'train' || phase === 'consolidate' ? Math.ceil(step / this.order.perEpoch) : 0;
    this.options.onProgress?.({ phase, step, steps: this.stopping?.steps ?? 0, epoch, epochs, loss });
  }

  private seconds(): number {
    return (now() - this.begun) / 1000;
  }
}

/** As the method of that name, which React Native's signals lack. */
function throwIfAborted(signal: StopSignal | undefined): void {
  if (signal?.aborted) throw signal.reason ?? new Error('learning was stopped');
}

/** As JSON, an object's names in order. */
function sorted(value: unknown): string {
  const plain = typeof value === 'object' && value !== null && !Array.isArray(value);
  return JSON.stringify(plain ? Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)) : value);
}
