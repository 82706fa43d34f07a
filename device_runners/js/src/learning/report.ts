/** What a caller of `Learner.learn` may ask for, and is told. */

import type { HeadsOnlyBecause } from './fewShot.js';
import type { StopReason } from './stopping.js';

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
 *
 * `forgetting` is how many percentage points of accuracy the trained centers were estimated to cost the old task that loses most.
 * `headsOnlyBecause` is the setting for which the network stayed as it was: "max-forgetting" where that was too much,
 * "few-shot" where the images were too few to train on (`epochs` is then 0, and `loss` that of the head), "one-class" where a
 * decision has nothing to train on, else "". `known` are the classes that were known before, and updated, `replaced` those
 * of which nothing that was learned before counts any more. `stopped` is what ended training. `warnings` are sentences
 * about what looks wrong, though not wrong enough to refuse the task.
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
  readonly forgetting: number;
  readonly headsOnly: boolean;
  readonly headsOnlyBecause: HeadsOnlyBecause;
  readonly known: readonly string[];
  readonly replaced: readonly string[];
  readonly stopped: StopReason;
  readonly warnings: readonly string[];
}

/** What an AbortSignal has, of which any object will do: not every engine knows AbortController. */
export interface StopSignal {
  readonly aborted: boolean;
  readonly reason?: unknown;
}

export interface LearnOptions {
  /**
   * Whether the task replaces what was learned of its classes (true; what the base knows stays) or adds to it (false).
   * Otherwise it adds, and throws a ContradictionError where its images look like those of other known classes.
   */
  readonly replace?: boolean;
  /** Called after every step. */
  readonly onProgress?: (progress: Progress) => void;
  /** Stops learning at the next step; a progress checkpoint is kept, and `learn` throws the signal's reason. */
  readonly signal?: StopSignal;
}
