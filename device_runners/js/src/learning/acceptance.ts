/** What a task must pass before it is committed, and the sentences that say why it did not. */

import type { TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { NOVELTY } from '../contract/thresholds.js';
import { LabelError, TaskError } from '../errors.js';
import { filled } from '../formats/sentences.js';
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
    filled(SENTENCES.labelsLookWrong, {
      ...{ task, noun: 'image', accuracy: percent(evidence.accuracy), chance: percent(evidence.chance) },
    }),
    evidence,
  );
}

/** A warning where a task's images are far from everything known; else nothing. */
function unfamiliar(novelty: number | undefined): string[] {
  if (novelty === undefined || novelty < NOVELTY.unfamiliar) return [];
  return [filled(SENTENCES.unfamiliar, { noun: 'image', score: novelty.toFixed(1) })];
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
      filled(SENTENCES.forgetsTooMuch, { task, worst, points: points.toFixed(1), allowed: maxForgetting }),
    );
  }
  return true;
}

/** The sentence about a task whose trained centers were dropped. */
function headsInstead(forgetting: ReadonlyMap<string, number>, { maxForgetting }: TrainingConfig): string {
  const { worst, points } = worstOf(forgetting);
  return filled(SENTENCES.headsInstead, { worst, points: points.toFixed(1), allowed: maxForgetting });
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
