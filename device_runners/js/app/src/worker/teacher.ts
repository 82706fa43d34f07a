/** A bundle, its state in this browser, and tasks: what the page asks for, on csk-sdk. */

import {
  ContradictionError,
  fleet,
  type Generation,
  LabelError,
  Learner,
  type LearnReport,
  type Picture,
  type Progress,
  StateError,
  TaskError,
  TwinError,
  trainedBy,
  type Way,
} from 'csk-sdk';
import { HttpBundle, IndexedDbStorage } from 'csk-sdk/browser';
import type {
  Answer,
  ForFleet,
  FromFleet,
  Known,
  NewClass,
  TaskProgress,
  TaskReport,
  Tested,
  Unfinished,
} from '../protocol.js';
import { decode } from './decode.js';
import { type Pending, PendingTask, type Shown } from './pending.js';
import { contradicting, mixedUp, remarks } from './sentences.js';
import type { Versions } from './version.js';

export const FEWEST_PICTURES = 5;
// Every so manieth image of a class is kept back, to tell how well it was learned.
const HELD_OUT = 5;
const EPOCHS = 8;
const SHOWN_GUESSES = 3;

export class Teacher {
  private stopping: AbortController | undefined;

  private constructor(
    private readonly learner: Learner,
    private readonly versions: Versions,
    private readonly pending: PendingTask,
    private readonly tell: (progress: TaskProgress) => void,
  ) {}

  static async open(
    { runtime, sessionOptions = {} }: Way,
    versions: Versions,
    tell: (progress: TaskProgress) => void,
  ): Promise<Teacher> {
    const [storage, pending] = await Promise.all([
      IndexedDbStorage.open(versions.storage),
      PendingTask.open(),
    ]);
    const bundle = new HttpBundle(versions.bundle);
    const learner = await Learner.open({ runtime, bundle, storage, sessionOptions });
    return new Teacher(learner, versions, pending, tell);
  }

  async known(): Promise<Known> {
    const { learner } = this;
    const { manifest } = learner.bundle;
    const kept = await this.pending.load();
    return {
      model: manifest.model,
      base: manifest.classes.filter((name) => !learner.generation.hidden.includes(name)),
      tasks: learner.tasks.map(({ name, classes, images, fleet: knowledge }) => ({
        ...{ task: name, classes, pictures: images, fleet: knowledge !== undefined },
      })),
      unfinished: kept && {
        ...{ classes: kept.classes, because: why(kept) },
        ...(typeof kept.twin === 'object' ? { old: kept.twin.old } : {}),
      },
      version: this.versions.told,
      persistent: (await navigator.storage?.persisted?.()) ?? false,
    };
  }

  /** Look at an image of nothing: what the engine compiles at the first one is there when somebody waits for it. */
  async warmUp(): Promise<void> {
    const { width, height, channels } = this.learner.preprocessing;
    await this.learner.features([
      { data: new Uint8Array(width * height * channels), width, height, channels },
    ]);
  }

  async predict(picture: Blob): Promise<Answer> {
    const [answer] = await this.answers([await this.small(picture)]);
    return { ...answer!, guesses: answer!.guesses.slice(0, SHOWN_GUESSES) };
  }

  /** Learn new classes together. Throws TaskError for what cannot be a task. */
  async learn(classes: readonly NewClass[]): Promise<TaskReport> {
    const task = this.planned(classes);
    await this.pending.save(task);
    return this.run(task);
  }

  async resume(replace = false): Promise<TaskReport> {
    const task = await this.pending.load();
    if (!task) throw new TaskError('There is no unfinished task to go on with.');
    if (why(task) === 'interrupted') return this.run(task);
    const { twin, ...rest } = task;
    const same = typeof twin === 'object' && !replace;
    const believed: Pending = {
      ...rest,
      // More images of the known class; or another one, whatever that takes from it.
      ...(same ? { classes: [twin.old] } : twin ? { twin: 'counted' } : {}),
      ...(task.labels ? { labels: 'believed' } : {}),
      ...(task.contradicts ? { contradicts: replace ? 'replaces' : 'adds' } : {}),
    };
    await this.pending.save(believed);
    return this.run(believed);
  }

  async discard(): Promise<Known> {
    await this.pending.clear();
    return this.known();
  }

  stop(): void {
    this.stopping?.abort(new Stopped());
  }

  async export(): Promise<Blob> {
    return new Blob([(await this.learner.export()) as Uint8Array<ArrayBuffer>], {
      type: 'application/octet-stream',
    });
  }

  async saveForFleet(name: string): Promise<ForFleet> {
    const { bytes, leftOut } = await fleet.export(this.learner, { name });
    const file = new Blob([bytes as Uint8Array<ArrayBuffer>], { type: 'application/octet-stream' });
    return { file, leftOut };
  }

  async applyFleet(file: Blob): Promise<FromFleet> {
    const name = file instanceof File ? file.name : 'This file';
    const found = await fleet.apply(this.learner, new Uint8Array(await file.arrayBuffer()), { name });
    return { changed: found.changed, new: found.new, notes: found.notes };
  }

  /** Forget the last task: as it was before, where that is still there. */
  async undo(): Promise<Known> {
    const { tasks } = this.learner;
    const last = tasks.at(-1);
    const before = last && (await this.before());
    if (before) await this.learner.rollback(tasks.at(-2)?.name ?? 'base');
    else if (last) await this.learner.forget({ task: last.name });
    return this.known();
  }

  async forget(name: string): Promise<Known> {
    await this.learner.forget({ classes: [name] });
    return this.known();
  }

  async merge(into: string, other: string): Promise<Known> {
    await this.learner.merge(into, other);
    return this.known();
  }

  async rename(old: string, name: string): Promise<Known> {
    await this.learner.rename(old, name);
    return this.known();
  }

  /** What was known before the last task, if it is still there and nothing was renamed or forgotten since. */
  private async before(): Promise<Generation | undefined> {
    const { state, tasks, generation } = this.learner;
    const previous = tasks.at(-2)?.name ?? 'base';
    try {
      const found = await state.load(previous === 'base' ? 0 : await state.generationOf(previous));
      const what = (one: Pick<Generation, 'tasks' | 'hidden'>): string =>
        JSON.stringify([one.hidden, one.tasks.map(({ name, classes }) => [name, classes])]);
      return what(found) === what({ ...generation, tasks: tasks.slice(0, -1) }) ? found : undefined;
    } catch (error) {
      if (error instanceof StateError) return undefined;
      throw error;
    }
  }

  private planned(classes: readonly NewClass[]): Pending {
    const counted = this.learner.generation.tensors.get('statistics.counts')?.data.length;
    if (!classes.length || (classes.length < 2 && !counted)) {
      throw new TaskError('Teach two classes together first, so that there is something to tell apart.');
    }
    const few = classes.find(({ pictures }) => pictures.length < FEWEST_PICTURES);
    if (few) {
      const count = `${few.pictures.length} ${few.pictures.length === 1 ? 'image' : 'images'}`;
      throw new TaskError(`'${few.name}' has ${count}: add some, ${FEWEST_PICTURES} are the least.`);
    }
    const shown = classes.map(({ pictures }, label) =>
      pictures.map((picture): Shown => ({ picture, label })),
    );
    const isTest = (_: Shown, index: number) => index % HELD_OUT === HELD_OUT - 1;
    return {
      task: nextName(this.learner.tasks.map(({ name }) => name)),
      classes: classes.map(({ name }) => name),
      train: shown.flatMap((all) => all.filter((one, index) => !isTest(one, index))),
      test: shown.flatMap((all) => all.filter(isTest)),
    };
  }

  private async run(task: Pending): Promise<TaskReport> {
    const stopping = new AbortController();
    this.stopping = stopping;
    const { classes } = task;
    try {
      const count = task.train.length + task.test.length;
      const read = async (shown: readonly Shown[], before: number) => {
        const pictures: Picture[] = [];
        for (const { picture } of shown) {
          stopping.signal.throwIfAborted();
          pictures.push(await this.small(picture));
          this.say('read', (before + pictures.length) / count);
        }
        return pictures;
      };
      const pictures = await read(task.train, 0);
      const held = await read(task.test, task.train.length);
      const before = await this.answers(held);
      const report = await this.taught(task, pictures, stopping.signal);
      await this.pending.clear();
      this.say('test', 1);
      const after = await this.answers(held);
      const apart = (name: string) => this.learner.tasks.at(-1)?.contributions.get(name) === '';
      const tested = task.test.map(({ picture, label }, index): Tested => {
        const [told, tells] = [before[index]!.guesses[0]!, after[index]!.guesses[0]!];
        return { picture, truth: classes[label]!, before: told, after: tells };
      });
      return {
        classes: classes.map((truth) => {
          const its = tested.filter((one) => one.truth === truth);
          return {
            name: truth,
            tested: its.length,
            right: its.filter((one) => one.after.label === truth).length,
            expected: report.expected.classes[truth],
          };
        }),
        lost: report.expected.lost,
        twins: Object.entries(report.twins).map(([name, { old }]) => ({ name, old, apart: apart(name) })),
        tested,
        seconds: report.seconds,
        learnedFrom: pictures.length,
        remarks: remarks(report),
      };
    } finally {
      this.stopping = undefined;
    }
  }

  /** Throws TaskError, and keeps the task as refused, where its images and labels do not belong together. */
  private async taught(
    task: Pending,
    pictures: readonly Picture[],
    signal: AbortSignal,
  ): Promise<LearnReport> {
    const { task: name, classes, train } = task;
    const labels = train.map(({ label }) => label);
    const settings = {
      epochs: EPOCHS,
      train: trainedBy(this.learner.bundle.manifest),
      labelCheck: task.labels !== 'believed',
      ...(task.twin === 'counted' ? { maxForgetting: 100 } : {}),
      ...(task.contradicts ? { replace: task.contradicts === 'replaces' } : {}),
    };
    const onProgress = (progress: Progress) => this.sayStep(progress);
    try {
      return await this.learner.learn(
        { name, classes, pictures, labels },
        { ...settings, signal, onProgress },
      );
    } catch (error) {
      if (error instanceof LabelError) {
        await this.pending.save({ ...task, labels: 'refused' });
        throw new TaskError(mixedUp(error));
      }
      if (error instanceof TwinError) {
        const [of, { old }] = [...error.found][0]!;
        await this.pending.save({ ...task, twin: { old } });
        throw new TaskError(`These images of '${of}' cannot be told from '${old}'. Nothing was learned.`);
      }
      if (error instanceof ContradictionError) {
        await this.pending.save({ ...task, contradicts: 'refused' });
        throw new TaskError(contradicting(error));
      }
      throw error;
    }
  }

  private async small(picture: Blob): Promise<Picture> {
    const name = picture instanceof File ? picture.name : 'an image';
    const { preprocessing } = this.learner;
    const { width, height, channels } = preprocessing;
    return { data: preprocessing.toSize(await decode(picture), name), width, height, channels };
  }

  /** For each image all classes, the most probable first, and whether it is like any of them. */
  private async answers(pictures: readonly Picture[]): Promise<Answer[]> {
    if (pictures.length === 0) return [];
    const { probabilities, classes, known } = await this.learner.predict(pictures);
    return pictures.map((_, row) => ({
      guesses: classes
        .map((label, index) => ({ label, probability: probabilities[row * classes.length + index]! }))
        .sort((a, b) => b.probability - a.probability),
      known: known?.[row] ?? true,
    }));
  }

  private sayStep({ phase, step, steps, epoch, epochs, loss }: Progress): void {
    this.tell({ phase, done: steps ? step / steps : 0, epoch, epochs, loss });
  }

  private say(phase: TaskProgress['phase'], done: number): void {
    this.tell({ phase, done, epoch: 0, epochs: EPOCHS, loss: Number.NaN });
  }
}

/** Why a task waits. */
function why({ labels, contradicts, twin }: Pending): Unfinished['because'] {
  if (typeof twin === 'object') return 'twin';
  if (labels === 'refused') return 'mixed-up';
  return contradicts === 'refused' ? 'contradicts' : 'interrupted';
}

/** Why a task ended: the user stopped it. */
export class Stopped extends Error {
  constructor() {
    super('Stopped. The task is kept: go on with it whenever you like.');
  }
}

/** "task-01", "task-02", ...: task names sort in the order of learning. */
function nextName(taken: readonly string[]): string {
  for (let number = 1; ; number++) {
    const name = `task-${String(number).padStart(2, '0')}`;
    if (!taken.includes(name)) return name;
  }
}
