/** What a task must pass before it is committed, and the sentences that say why it did not. */

import type { TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { NOVELTY } from '../contract/thresholds.js';
import { type Contradiction, ContradictionError, LabelError, TaskError } from '../errors.js';
import { filled } from '../formats/sentences.js';
import type { ClassStatistics } from '../method/heads.js';
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

/**
 * Throw ContradictionError where a task says of known classes that they are others. `base` are the classes that the base
 * knows.
 */
export function requireAgreement(
  found: ReadonlyMap<string, Contradiction>,
  base: readonly string[],
  task: string,
): void {
  if (!found.size) return;
  const some = [...found].map(([name, { other, share }]) => {
    return filled(SENTENCES.contradictsOne, { share: (100 * share).toFixed(0), noun: 'image', name, other });
  });
  const of = [...found.keys()].find((name) => base.includes(name));
  const values = {
    more: some.length > 3 ? filled(SENTENCES.contradictsMore, { count: some.length - 3 }) : '',
    stays: of === undefined ? '' : filled(SENTENCES.contradictsBase, { name: of }),
    ...{ replace: 'replace: true', add: 'replace: false' },
  };
  const said = { task, found: some.slice(0, 3).join(', '), noun: 'image', ...values };
  throw new ContradictionError(filled(SENTENCES.contradicts, said), found);
}

/** Throw TaskError for one class alone where nothing else is known that it could be told from. */
export function requireOthers(
  known: ClassStatistics,
  { classStatistics }: TrainingConfig,
  task: string,
  classes: readonly string[],
): void {
  if (classes.length !== 1 || (classStatistics && known.count(known.classes) > known.count(classes))) return;
  const remedy = classStatistics
    ? SENTENCES.oneClassBeside
    : filled(SENTENCES.oneClassCounted, { setting: 'classStatistics: true' });
  throw new TaskError(filled(SENTENCES.oneClass, { task, name: classes[0]!, remedy }));
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
