/** A task: images of some classes, to be learned together. */

import type { Bundle } from '../bundle/bundle.js';
import { TaskError } from '../errors.js';
import { Sha256 } from '../formats/bytes.js';
import { firstTwin, isFolderName, isPlain, LONGEST, LONGEST_FOLDER } from '../formats/names.js';
import { plural } from '../formats/sentences.js';
import type { Generation } from '../state/record.js';
import { BASE } from '../state/store.js';
import type { Picture, PixelBatch, Preprocessing } from './pictures.js';

/** `labels[i]`, from 0, says which of `classes` `pictures[i]` shows. */
export interface Task {
  readonly name: string;
  readonly classes: readonly string[];
  readonly pictures: readonly Picture[];
  readonly labels: ArrayLike<number>;
}

/** A task's images at the model's size, uint8, in memory. */
export class TaskPixels {
  readonly labels: Int32Array;
  private readonly pixels: PixelBatch;

  /** Throws TaskError for images or labels that do not fit. */
  constructor(
    readonly task: Task,
    private readonly preprocessing: Preprocessing,
  ) {
    const { name, classes, pictures } = task;
    requireLabels(task);
    this.labels = Int32Array.from(task.labels);
    this.pixels = preprocessing.stack(pictures, `Task '${name}': image`);
    const missing = classes.find((_, label) => !this.labels.includes(label));
    if (missing !== undefined) {
      throw new TaskError(`Task '${name}' has no image of '${missing}': add some, or leave the class out.`);
    }
  }

  get count(): number {
    return this.labels.length;
  }

  /** The images of these numbers, and their labels. */
  batch(index: Int32Array): { pixels: PixelBatch; labels: Int32Array } {
    const { size } = this.preprocessing;
    const data = new Uint8Array(index.length * size);
    index.forEach((from, to) => {
      data.set(this.pixels.data.subarray(from * size, (from + 1) * size), to * size);
    });
    return { pixels: { count: index.length, data }, labels: index.map((i) => this.labels[i]!) };
  }

  /** sha256 over classes, labels and every image: whether a checkpoint is of this very task. */
  fingerprint(): string {
    const text = JSON.stringify([this.task.classes, [...this.labels]]);
    return new Sha256().update(text).update(this.pixels.data).hex();
  }
}

function requireLabels({ name, classes, pictures, labels }: Task): void {
  if (!classes.length) {
    throw new TaskError(`Task '${name}' has no class: name what its images show.`);
  }
  if (labels.length !== pictures.length) {
    throw new TaskError(
      `Task '${name}' has ${plural(pictures.length, 'image')} and ${plural(labels.length, 'label')}.`,
    );
  }
  for (const label of Array.from(labels)) {
    if (!(Number.isInteger(label) && label >= 0 && label < classes.length)) {
      throw new TaskError(
        `Task '${name}' has the label ${label}, but ${plural(classes.length, 'class', 'classes')}, from 0.`,
      );
    }
  }
}

/** Throw TaskError where no task of this name, with these classes, can be learned after `generation`. */
export function requireNewTask(
  generation: Generation,
  bundle: Bundle,
  name: string,
  classes: readonly string[],
): void {
  if (name === BASE) {
    throw new TaskError(
      `A task cannot be called '${BASE}': that is the name of what the source model knew already. ` +
        'Give the new data another name.',
    );
  }
  if (!isFolderName(name)) {
    throw new TaskError(
      `A task cannot be called '${name.slice(0, 40)}': its name must be valid as a folder's name, without slashes, ` +
        `backslashes and control characters, and at most ${LONGEST_FOLDER} bytes. Rename it.`,
    );
  }
  if (taskNames(generation, bundle).includes(name)) {
    throw new TaskError(
      `Task '${name}' is learned already. Give the new data another name, or go back before it with rollback().`,
    );
  }
  const again = classes.find((one, i) => classes.indexOf(one) !== i);
  if (again !== undefined) {
    throw new TaskError(
      `Task '${name}' has the class '${again.slice(0, 40)}' twice, and each class needs a name of its own: leave one out, ` +
        'or rename it.',
    );
  }
  const odd = classes.find((one) => !isPlain(one));
  if (odd !== undefined) {
    throw new TaskError(
      `Task '${name}' has a class called '${odd.slice(0, 40)}', and a name is not empty, ` +
        `at most ${LONGEST} characters, and without control characters. Rename it.`,
    );
  }
  const twins = firstTwin(classes, [...taskClasses(generation, bundle).values()].flat());
  if (twins) {
    const [mine, theirs] = twins.map((one) => one.slice(0, 40));
    throw new TaskError(
      `Task '${name}' has a class called '${mine}', and there is one called '${theirs}', which differs only in case, ` +
        `spaces at its ends or how accents are stored: they would share the answers. Call it '${theirs}' where it is ` +
        'the same thing, or something else.',
    );
  }
}

/** The classes of the base, where it has any, and of every learned task, oldest first. */
export function taskClasses(generation: Generation, bundle: Bundle): Map<string, readonly string[]> {
  const { classes } = bundle.manifest;
  const learned = generation.tasks.map((task) => [task.name, task.classes] as const);
  return new Map([...(classes.length ? [[BASE, classes] as const] : []), ...learned]);
}

/** The base, where it has classes, and every learned task, oldest first. */
export function taskNames(generation: Generation, bundle: Bundle): string[] {
  return [...taskClasses(generation, bundle).keys()];
}
