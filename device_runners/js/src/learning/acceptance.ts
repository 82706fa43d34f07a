/** What a task must pass before it is committed, and the sentences that say why it did not. */

import type { TrainingConfig } from '../config.js';
import { NOVELTY } from '../contract/thresholds.js';
import { LabelError, TaskError } from '../errors.js';
import { isRefuted, type LabelEvidence } from '../method/labelCheck.js';

/**
 * Throw LabelError where a task's labels say nothing about its images. `evidence` is undefined where nothing was
 * measured, as after resuming: then there is nothing to say.
 */
export function requireLearnable(
  evidence: LabelEvidence | undefined,
  config: TrainingConfig,
  task: string,
): void {
  if (!config.labelCheck || !evidence || !isRefuted(evidence)) return;
  const percent = (share: number): string => (100 * share).toFixed(0);
  throw new LabelError(
    `The labels of task '${task}' look wrong: a classifier fitted to the other images names an image left out ` +
      `correctly in ${percent(evidence.accuracy)} % of cases, and guessing in ${percent(evidence.chance)} %. Check ` +
      'that each class holds its own images; if they are right, learn it with labelCheck: false. ' +
      'Nothing was committed.',
    evidence,
  );
}

/** A warning where a task's images are far from everything known; else nothing. */
function unfamiliar(novelty: number | undefined): string[] {
  if (novelty === undefined || novelty < NOVELTY.unfamiliar) return [];
  return [
    `these images are unlike all that the model knows (out-of-distribution score ${novelty.toFixed(1)}: so many ` +
      "times as far from the nearest class as its own images are): expect little, and check the images and the bundle's preprocessing.",
  ];
}

/**
 * Whether an old task is estimated to lose more than `maxForgetting` points. Throws TaskError where that means to
 * refuse (`onForgetting`).
 */
export function forgetsTooMuch(
  forgetting: ReadonlyMap<string, number>,
  { maxForgetting, onForgetting }: TrainingConfig,
  task: string,
): boolean {
  const { worst, points } = worstOf(forgetting);
  if (points <= maxForgetting) return false;
  if (onForgetting === 'refuse') {
    throw new TaskError(
      `Learning '${task}' would cost '${worst}' about ${points.toFixed(1)} percentage points of accuracy, more than the ` +
        `${maxForgetting} that maxForgetting allows: lower learningRate or channelRatio, raise energy, or set ` +
        "onForgetting: 'heads-only'. Nothing was committed.",
    );
  }
  return true;
}

/** The sentence about a task whose trained centers were dropped. */
function headsInstead(forgetting: ReadonlyMap<string, number>, { maxForgetting }: TrainingConfig): string {
  const { worst, points } = worstOf(forgetting);
  return (
    `the trained centers would have cost '${worst}' about ${points.toFixed(1)} percentage points of accuracy, more than the ` +
    `${maxForgetting} of maxForgetting: they were dropped, and the new classes have heads on the network as it was. ` +
    'A lower learningRate or a higher energy may do better.'
  );
}

/** All that the user of a learned task should know, one sentence each. */
export function warningsAbout(
  novelty: number | undefined,
  { forgetting, headsOnly }: { forgetting: ReadonlyMap<string, number>; headsOnly: boolean },
  config: TrainingConfig,
): string[] {
  return [...unfamiliar(novelty), ...(headsOnly ? [headsInstead(forgetting, config)] : [])];
}

/** The old task that loses most, and its points; 0 where none is known. */
export function worstOf(forgetting: ReadonlyMap<string, number>): { worst: string; points: number } {
  let found: readonly [string, number] | undefined;
  for (const one of forgetting) if (!found || one[1] > found[1]) found = one;
  return { worst: found?.[0] ?? '', points: found?.[1] ?? 0 };
}
