/** Which tasks get heads on the frozen backbone, and why: docs/decisions/0019-few-shot.md, 0035-train.md. */

import type { Trained } from '../bundle/manifest.js';
import { DEFAULTS, type TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { filled, general, grouped, plural, rounded } from '../formats/sentences.js';
import type { Tensors } from '../formats/tensors.js';
import { type Gain, isClear, pays } from '../method/gain.js';
import { domainNames } from '../network/domains.js';

/**
 * Why a task has heads only, by the setting that decides it ("train" where it was asked for them), "no-gain" where it was left
 * to be decided and training would not have paid, "one-class": a decision among one class has no loss to train on, or
 * "domains": some are known, and of the network as it is. "" where its centers were trained.
 */
export type HeadsOnlyBecause =
  | ''
  | 'few-shot'
  | 'max-forgetting'
  | 'train'
  | 'no-gain'
  | 'one-class'
  | 'domains';

/**
 * Whether `count` images of so many classes are fewer for each, on average, than `fewShot`, or are all of one class.
 *
 * What is lacking is steps: of more epochs than the default, each image counts for as many more.
 */
export function isFewShot(
  count: number,
  classes: readonly string[],
  { epochs, fewShot }: TrainingConfig,
): boolean {
  return classes.length < 2 || count * Math.max(1, epochs / DEFAULTS.epochs) < fewShot * classes.length;
}

/** Why a generation with these `tensors` has no center that may be trained; "" where one may be. */
export function whyFixed(tensors: Tensors): HeadsOnlyBecause {
  return domainNames(tensors).length ? 'domains' : '';
}

/**
 * Why a task is to have heads only, before anything is seen of its images; "" where its centers may be trained. `fixed` is
 * why none may be whatever the task, as `whyFixed` says it.
 */
export function headsBecause(
  count: number,
  classes: readonly string[],
  config: TrainingConfig,
  fixed: HeadsOnlyBecause = '',
): HeadsOnlyBecause {
  if (fixed) return fixed;
  if (classes.length < 2) return 'one-class';
  if (config.train === 'heads') return 'train';
  return isFewShot(count, classes, config) ? 'few-shot' : '';
}

/**
 * The sentence about a task of `count` images that has heads only, as was known before. `trained` is what the bundle would
 * train.
 */
export function headsNotes(
  why: HeadsOnlyBecause,
  count: number,
  classes: readonly string[],
  trained: Trained,
): string[] {
  if (why === 'domains') return [SENTENCES.headsDomains];
  if (why !== 'few-shot') return [];
  const each = Number((count / classes.length).toPrecision(3));
  return [filled(SENTENCES.fewShot, { each: plural(String(each), 'image'), trained })];
}

/**
 * The sentence about what held-out images said of training, and what was chosen. `asked` is how many there were, held out or
 * not; `trained` is what the bundle trains, `dropped` says that it was, and cost older tasks too much.
 */
export function gainNote(
  gain: Gain,
  asked: number,
  maxForgetting: number,
  trained: Trained,
  dropped = false,
): string {
  if (!gain.images) return filled(SENTENCES.headsUntold, { images: plural(asked, 'image'), trained });
  const values = {
    images: plural(gain.images, 'image'),
    done: (100 * gain.done).toFixed(0),
    likelihood: rounded(gain.likelihood, 4),
  };
  if (isClear(gain) && !pays(gain, maxForgetting)) {
    const lost = gain.lost.toFixed(1);
    return filled(SENTENCES.centersCost, { ...values, lost, allowed: maxForgetting });
  }
  const shares = { before: (100 * gain.heads).toFixed(1), after: (100 * gain.centers).toFixed(1) };
  const chosen = dropped ? SENTENCES.centersDropped : SENTENCES.centersPay;
  return filled(isClear(gain) ? chosen : SENTENCES.headsPay, { ...values, ...shares, trained });
}

/** The sentence about a task whose time was over before held-out images were asked, after `done` of its `steps`. */
export function undecidedNote(done: number, steps: number, seconds: number, dropped: boolean): string {
  const fate = dropped ? 'dropped, as older tasks would have lost too much' : 'kept';
  const values = { seconds: general(seconds), done: grouped(done), steps: grouped(steps), fate };
  return filled(SENTENCES.undecided, values);
}
