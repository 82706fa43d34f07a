/**
 * Everything that csk-sdk throws on purpose. Each message is one sentence or two that say what is wrong, where, and
 * what to do next. Whatever is thrown, committed generations stay as they are.
 */

import type { LabelEvidence } from './method/labelCheck.js';

/** Base class: catch this to catch everything that csk-sdk throws on purpose. */
export class CskError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A bundle is missing, damaged, or was written in another schema. */
export class BundleError extends CskError {}

/** A stored state is damaged or belongs to another bundle. */
export class StateError extends CskError {}

/** Another process, tab or worker holds the state's lock. */
export class StateLockedError extends StateError {}

/** A task's data cannot be learned from, or nothing can be said of an image. */
export class TaskError extends CskError {}

/** While a task was learned, numbers became NaN or infinite, by an image or by the training. Nothing was committed. */
export class DivergedError extends TaskError {}

/** Of a known class: the other one that most of its new images look like, and their share. */
export interface Contradiction {
  readonly other: string;
  readonly share: number;
}

/** A task says of known classes that they are others: `found` is by class the other one, and the share of its images. */
export class ContradictionError extends TaskError {
  constructor(
    message: string,
    readonly found: ReadonlyMap<string, Contradiction>,
  ) {
    super(message);
  }
}

/**
 * A new class that cannot be told from `old`: `taken` of the old one's images would be called the new one. `back` is the
 * share of the new one's images that look more like the old one.
 */
export interface Twin {
  readonly old: string;
  readonly taken: number;
  readonly back: number;
}

/** A task teaches classes that cannot be told from old ones: `found` is by class that one, and what it would lose. */
export class TwinError extends TaskError {
  constructor(
    message: string,
    readonly found: ReadonlyMap<string, Twin>,
  ) {
    super(message);
  }
}

/** A task's labels say nothing about its images; `evidence` is what was measured. */
export class LabelError extends TaskError {
  constructor(
    message: string,
    readonly evidence: LabelEvidence,
  ) {
    super(message);
  }
}

/** The storage is full, or refuses to be written. */
export class StorageError extends CskError {}

/** A file of what a device or a fleet has learned is damaged, of another bundle, or not to be trusted. */
export class FleetError extends CskError {}

/** A setting is unknown or out of range. */
export class ConfigError extends CskError {}

/** Why something failed, in one line: a runtime's own words may quote what it read, line breaks included. */
export function reasonOf(error: unknown): string {
  // Engines and browsers throw things that are no Error, or say nothing.
  return String((error as Partial<Error> | undefined)?.message || error)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .slice(0, 300)
    .trim();
}
