/** One task learned from start to commit, resumable at any step. */

import type { Bundle } from './bundle/bundle.js';
import { augmentationOf, configRecord, type TrainingConfig } from './config.js';
import { consolidate } from './consolidation.js';
import { moved, randomMoves } from './data/augment.js';
import type { Preprocessing } from './data/pictures.js';
import { Random } from './data/random.js';
import { requireNewTask, type Task, TaskPixels } from './data/task.js';
import type { Batch, Opening } from './features.js';
import { dumps } from './json.js';
import { cosine } from './method/optimizers.js';
import type { Generation, LearnedTask } from './state/record.js';
import type { State } from './state/state.js';
import { TaskTraining } from './training.js';
import { VERSION } from './version.js';

/** Where a training run is. */
export interface Progress {
  readonly phase: 'check' | 'select' | 'train' | 'consolidate';
  readonly step: number;
  readonly steps: number;
  readonly epoch: number;
  readonly epochs: number;
  /** Mean loss of the epoch so far; NaN before the first step. */
  readonly loss: number;
}

/**
 * What learning one task took. `leak` is the largest `||dC B|| / ||dC||` of any site. `protected` says for each site how
 * many of the selected channels' directions the projection kept for older knowledge, as "r/k".
 */
export interface LearnReport {
  readonly task: string;
  readonly classes: readonly string[];
  readonly images: number;
  readonly epochs: number;
  readonly loss: number;
  readonly seconds: number;
  readonly generation: number;
  readonly leak: number;
  readonly resumedAtStep: number;
  readonly protected: Readonly<Record<string, string>>;
}

export interface LearnOptions {
  /** Called after every step. */
  readonly onProgress?: (progress: Progress) => void;
  /** Stops learning at the next step; a progress checkpoint is kept, and `learn` throws the signal's reason. */
  readonly signal?: AbortSignal;
}

interface Resumed {
  readonly step: number;
  readonly loss: number;
  readonly seconds: number;
}

/** One call of `Learner.learn`, under the state's lock. */
export class LearnRun {
  private readonly pixels: TaskPixels;
  private readonly batchSize: number;
  private readonly perEpoch: number;
  private readonly steps: number;
  private readonly training: TaskTraining;
  private order: { epoch: number; index: Int32Array } | undefined;
  private begun = 0;

  constructor(
    private readonly bundle: Bundle,
    private readonly preprocessing: Preprocessing,
    private readonly state: State,
    private readonly generation: Generation,
    private readonly task: Task,
    private readonly config: TrainingConfig,
    opening: Opening,
    private readonly options: LearnOptions,
  ) {
    requireNewTask(generation, bundle, task.name, task.classes);
    this.report('check');
    this.pixels = new TaskPixels(task, preprocessing);
    this.batchSize = config.batchSize ?? bundle.manifest.batch_size;
    this.perEpoch = Math.ceil(this.pixels.count / this.batchSize);
    this.steps = this.perEpoch * config.epochs;
    this.training = new TaskTraining(bundle, generation.tensors, task.classes, config, opening);
  }

  /** Learn and commit. */
  async run(): Promise<LearnReport> {
    try {
      return await this.learn();
    } finally {
      await this.training.close();
    }
  }

  private async learn(): Promise<LearnReport> {
    const { state, task, config } = this;
    const identity = this.identity();
    const resumed = await this.restore(identity);
    this.begun = performance.now() - 1000 * resumed.seconds;
    if (resumed.step === 0) {
      this.report('select');
      await this.training.warmUp(() => this.plainBatches());
    }
    const loss = await this.train(resumed, identity);
    this.report('consolidate', this.steps, loss);
    const { tensors, leaks } = await consolidate(this.training, task.name, () => this.plainBatches());
    const learned: LearnedTask = {
      name: task.name,
      classes: [...task.classes],
      epochs: config.epochs,
      images: this.pixels.count,
      seconds: Math.round(this.seconds() * 1000) / 1000,
      loss,
      peakRssBytes: peakRssBytes(),
      config: configRecord(config),
    };
    throwIfAborted(this.options.signal);
    const parent = this.generation;
    const committed = await state.commit(parent.number, [...parent.tasks, learned], tensors);
    await state.clearProgress();
    const kept = [...this.training.sites].map(([name, { basis }]) => [name, `${basis.r}/${basis.k}`]);
    const { images, seconds, epochs, classes } = learned;
    return {
      ...{ task: task.name, classes, images, epochs, loss, seconds, generation: committed.number },
      leak: Math.max(0, ...leaks.values()),
      resumedAtStep: resumed.step,
      protected: Object.fromEntries(kept),
    };
  }

  /** All steps from where it was resumed; the mean loss of the last epoch. Depends on seed and step, not on resuming. */
  private async train(resumed: Resumed, identity: object): Promise<number> {
    const { config, perEpoch, pixels } = this;
    const { signal } = this.options;
    const warmup = Math.min(Math.floor(perEpoch / 2), 50);
    let saved = performance.now();
    let { loss } = resumed;
    for (let step = resumed.step; step < this.steps; step++) {
      const epoch = Math.floor(step / perEpoch);
      const position = step % perEpoch;
      if (position === 0) loss = 0;
      const batch = this.trainingBatch(epoch, position);
      loss += (await this.training.step(batch, cosine(step, this.steps, warmup))) * batch.labels.length;
      const done = step + 1;
      const seen = Math.min((position + 1) * this.batchSize, pixels.count);
      this.report('train', done, loss / seen);
      const due = performance.now() - saved >= 1000 * config.checkpointSeconds;
      if (done < this.steps && (due || signal?.aborted)) {
        const meta = { ...identity, step: done, loss, seconds: this.seconds() };
        await this.state.saveProgress(this.training.progress(), meta);
        saved = performance.now();
      }
      throwIfAborted(signal);
    }
    return loss / pixels.count;
  }

  /** Where to go on from; step 0 for a fresh start. */
  private async restore(identity: Record<string, unknown>): Promise<Resumed> {
    const fresh = { step: 0, loss: 0, seconds: 0 };
    const found = await this.state.loadProgress();
    if (!found) return fresh;
    const same = Object.entries(identity).every(
      ([key, value]) => JSON.stringify(found.meta[key]) === JSON.stringify(value),
    );
    // Another run's stays until this one has something better to keep in its place.
    if (!same) return fresh;
    this.training.resume(found.tensors);
    const { step, loss, seconds } = found.meta;
    return { step: Number(step), loss: Number(loss), seconds: Number(seconds) };
  }

  /** What must be equal for a progress checkpoint to be continued: another runner orders pictures differently. */
  private identity(): Record<string, unknown> {
    const { checkpoint_seconds: _, ...config } = configRecord(this.config);
    return {
      task: this.task.name,
      fingerprint: this.pixels.fingerprint(),
      generation: this.generation.number,
      config: JSON.parse(dumps(config)),
      backend: 'portable',
      version: `${VERSION} javascript`,
    };
  }

  /** Shuffled by (seed, epoch) and augmented by (seed, epoch, position), so that any step can be redone. */
  private trainingBatch(epoch: number, position: number): Batch {
    const { seed } = this.config;
    if (this.order?.epoch !== epoch) {
      this.order = { epoch, index: new Random(seed, epoch).permutation(this.pixels.count) };
    }
    const index = this.order.index.subarray(position * this.batchSize, (position + 1) * this.batchSize);
    const { pixels, labels } = this.pixels.batch(index);
    const { flip, shift } = augmentationOf(this.config, this.bundle.manifest);
    const moves = randomMoves(pixels.count, new Random(seed, epoch, position), flip, shift);
    return { images: this.preprocessing.normalize(moved(pixels, moves, this.preprocessing)), labels };
  }

  /** The whole task once, shuffled by the seed, without augmentation. */
  private *plainBatches(): Generator<Batch> {
    const order = new Random(this.config.seed).permutation(this.pixels.count);
    for (let start = 0; start < order.length; start += this.batchSize) {
      const { pixels, labels } = this.pixels.batch(order.subarray(start, start + this.batchSize));
      yield { images: this.preprocessing.normalize(pixels), labels };
    }
  }

  private report(phase: Progress['phase'], step = 0, loss = Number.NaN): void {
    const epochs = this.config.epochs;
    const epoch = phase === 'train' || phase === 'consolidate' ? Math.ceil(step / this.perEpoch) : 0;
    this.options.onProgress?.({ phase, step, steps: this.steps ?? 0, epoch, epochs, loss });
  }

  private seconds(): number {
    return (performance.now() - this.begun) / 1000;
  }
}

/** As the method of that name, which React Native's signals lack. */
function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason ?? new Error('learning was stopped');
}

/** The process's peak memory; 0 where the platform does not say. */
function peakRssBytes(): number {
  const process = (globalThis as { process?: { resourceUsage?: () => { maxRSS: number } } }).process;
  return (process?.resourceUsage?.().maxRSS ?? 0) * 1024;
}
