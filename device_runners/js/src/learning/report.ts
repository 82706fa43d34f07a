/** What a caller of `Learner.learn` may ask for, and is told. */

import type { Twin } from '../errors.js';
import { type Json, jsonOf } from '../formats/json.js';
import type { ExpectedClass, Judgement } from '../method/decisions.js';
import type { Gain } from '../method/gain.js';
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
 * How often decisions will be right, shares of 0 to 1: of each class of the task, each of its images left out of what judges
 * it. `lost` is how many percentage points all older classes together lose to the new ones, estimated without their
 * images; undefined where there are none of either. No classes where no class statistics are kept.
 */
export interface Expected {
  readonly classes: Readonly<Record<string, ExpectedClass>>;
  readonly lost?: number;
}

/**
 * What learning one task took. `stepped` is over how many of the images steps went, those that most of the gradient comes from
 * (`gradientShare`); 0 without a step. `loss` is over them. `leak` is the largest `||dC B|| / ||dC||` of any site. `protected` says for each site how
 * many of the selected channels' directions the projection kept for older knowledge, as "r/k".
 *
 * `forgetting` is how many percentage points of accuracy the trained centers were estimated to cost the old task that loses most.
 * `headsOnlyBecause` is the setting for which the network stayed as it was: "max-forgetting" where that was too much,
 * "few-shot" where the images were too few to train on, "train" where it was asked for, "no-gain" where training would not
 * have paid, "one-class" where a decision has nothing to train on, "domains" where some are known, which are of the network
 * as it is, else ""; but for the first, `epochs` is then 0, and `loss`
 * that of the head. `gain` is what held-out images said where it was left to be decided (`train: 'auto'`), and `choice` the
 * same as a sentence, else "". `known` are the classes that were known before, and updated, `replaced` those
 * of which nothing that was learned before counts any more. `stopped` is what ended training. `warnings` are sentences
 * about what looks wrong, though not wrong enough to refuse the task. `expected` is how often decisions will be right, and
 * `twins` are by class of the task those that cannot be told from an old one (docs/decisions/0033).
 */
export interface LearnReport {
  readonly task: string;
  readonly classes: readonly string[];
  readonly images: number;
  readonly epochs: number;
  readonly stepped: number;
  readonly loss: number;
  readonly seconds: number;
  readonly generation: number;
  readonly leak: number;
  readonly resumedAtStep: number;
  readonly protected: Readonly<Record<string, string>>;
  readonly forgetting: number;
  readonly headsOnly: boolean;
  readonly headsOnlyBecause: HeadsOnlyBecause;
  readonly gain: Gain | undefined;
  readonly choice: string;
  readonly known: readonly string[];
  readonly replaced: readonly string[];
  readonly stopped: StopReason;
  readonly warnings: readonly string[];
  readonly expected: Expected;
  readonly twins: Readonly<Record<string, Twin>>;
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

/** A judgement as a caller is told: shares to four digits, points to two. */
export function expectedOf(judgement: Judgement | undefined): Expected {
  const share = (value: number): number => Math.round(1e4 * value) / 1e4;
  const classes = [...(judgement?.expected ?? [])].map(([name, one]) => {
    const shares = { allClasses: share(one.allClasses), task: share(one.task), share: share(one.share) };
    return [name, { ...one, ...shares }] as const;
  });
  // Not how often old classes are right: the base's statistics are of images that the network was trained on.
  const old = judgement?.lost === undefined ? {} : { lost: Math.round(1e4 * judgement.lost) / 100 };
  return { classes: Object.fromEntries(classes), ...old };
}

/** The same as a record has it. */
export function expectedRecord(judgement: Judgement | undefined): Record<string, Json> {
  if (!judgement) return {};
  const { classes, lost } = expectedOf(judgement);
  const each = Object.entries(classes).map(([name, { allClasses, task, confused, share }]) => {
    return [name, { all_classes: allClasses, task, confused, share }] as const;
  });
  const old = lost === undefined ? {} : { old: { lost } };
  return jsonOf({ classes: Object.fromEntries(each), ...old }) as Record<string, Json>;
}
