/** What the page and the worker say to each other. Images cross as files; everything heavy stays in the worker. */

import type { ExpectedClass } from 'csk-sdk';

/** A class to be taught, with its images. */
export interface NewClass {
  readonly name: string;
  readonly pictures: readonly Blob[];
}

export interface Guess {
  readonly label: string;
  /** From 0 to 1. */
  readonly probability: number;
}

/** What an image is taken for, the most probable first. */
export interface Answer {
  readonly guesses: readonly Guess[];
  /** Whether it is like anything known at all; true also where that was never measured. */
  readonly known: boolean;
}

/** A task that was interrupted, or not learned since its images looked mixed up, like other known classes, or like one of them. */
export interface Unfinished {
  readonly classes: readonly string[];
  readonly because: 'interrupted' | 'mixed-up' | 'contradicts' | 'twin';
  /** Of a twin, the known class that its images cannot be told from. */
  readonly old?: string;
}

/** Of an app that came with another network: whether what was learned was carried over, or the one before it counts. */
export interface Version {
  readonly is: 'carried' | 'before';
  /** What is not as it was, one sentence each. */
  readonly notes: readonly string[];
}

/** What is known on this device. */
export interface Known {
  readonly model: string;
  readonly base: readonly string[];
  /** Learned here, oldest first. */
  readonly tasks: readonly {
    readonly task: string;
    readonly classes: readonly string[];
    readonly pictures: number;
    /** Whether other devices have learned it, too. */
    readonly fleet: boolean;
  }[];
  /** A task whose images wait, if there is one. */
  readonly unfinished: Unfinished | undefined;
  /** Whether the browser promised not to clear what was learned. */
  readonly persistent: boolean;
  /** What to know about the app's network; undefined where it is the one that was always there. */
  readonly version: Version | undefined;
}

export interface TaskProgress {
  readonly phase: 'read' | 'check' | 'select' | 'train' | 'consolidate' | 'test';
  /** From 0 to 1. */
  readonly done: number;
  readonly epoch: number;
  readonly epochs: number;
  readonly loss: number;
}

/** One held-out image: its true class, and what was said before and after. */
export interface Tested {
  readonly picture: Blob;
  readonly truth: string;
  readonly before: Guess;
  readonly after: Guess;
}

/** A class of a task: how it did on images that were kept back, and what to expect of it (shares of 0 to 1). */
export interface Taught {
  readonly name: string;
  readonly right: number;
  readonly tested: number;
  readonly expected: ExpectedClass | undefined;
}

export interface TaskReport {
  readonly classes: readonly Taught[];
  /** Percentage points that all classes known before are expected to lose together; undefined where there were none. */
  readonly lost: number | undefined;
  /** Classes that cannot be told from a known one; those that are `apart` are left out of answers. */
  readonly twins: readonly { readonly name: string; readonly old: string; readonly apart: boolean }[];
  readonly tested: readonly Tested[];
  readonly seconds: number;
  readonly learnedFrom: number;
  /** What else to know about it, one sentence each. */
  readonly remarks: readonly string[];
}

/** What this device has learned, for whoever merges what a fleet has; and what stays here, one sentence each. */
export interface ForFleet {
  readonly file: Blob;
  readonly leftOut: readonly string[];
}

/** What the fleet knew that is known here now. */
export interface FromFleet {
  readonly changed: boolean;
  /** Classes that were not known here. */
  readonly new: readonly string[];
  /** What is not as one may expect, one sentence each. */
  readonly notes: readonly string[];
}

export interface Calls {
  open(): Known;
  predict(picture: Blob): Answer;
  learn(classes: readonly NewClass[]): TaskReport;
  /**
   * Go on with the unfinished task; one that was refused is believed now, in the place of what is known or beside it. A twin is
   * that known class where `replace` is false, and another one where it is true.
   */
  resume(replace?: boolean): TaskReport;
  /** Forget the unfinished task. */
  discard(): Known;
  stop(): void;
  export(): Blob;
  /** What was learned, as a file. */
  save(): Blob;
  /** Know what a saved file knows, and nothing else. */
  openSaved(file: Blob): Known;
  /** What was learned here, for the fleet, under this name of the device. */
  saveForFleet(name: string): ForFleet;
  /** Know what the fleet knows, too. */
  applyFleet(file: Blob): FromFleet;
  /** Forget the last task. */
  undo(): Known;
  /** Forget a class that was learned here, for good. */
  forget(name: string): Known;
  /** Make one class of two: `other`, which was learned here, is `into`. */
  merge(into: string, other: string): Known;
  /** Call a class that was learned here something else. */
  rename(old: string, name: string): Known;
  /** Back to the network before this one, and to what was known then; forward again; or keep this one, and say no more. */
  version(which: 'back' | 'forward' | 'keep'): Known;
}

export type Call = keyof Calls;

export interface Request<C extends Call = Call> {
  readonly id: number;
  readonly call: C;
  readonly given: Parameters<Calls[C]>;
}

export type Response =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string; readonly stopped: boolean }
  | { readonly progress: TaskProgress };
