/** With few images a class, heads on the frozen backbone do as well as training: docs/decisions/0019-few-shot.md. */

import { DEFAULTS, type TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { filled } from '../formats/sentences.js';

/**
 * Why a task has heads only, by the setting that decides it, or "one-class": a decision among one class has no loss to train
 * on. "" where its centers were trained.
 */
export type HeadsOnlyBecause = '' | 'few-shot' | 'max-forgetting' | 'one-class';

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

/** The sentence about a task of `count` images whose centers were not trained. */
export function fewShotNotes(count: number, classes: readonly string[]): string[] {
  if (classes.length < 2) return [];
  const each = Number((count / classes.length).toPrecision(3));
  return [filled(SENTENCES.fewShot, { each, noun: 'image' })];
}

/** Which setting left a task with heads only, or ""; or that it has one class. */
export function because(classes: readonly string[], few: boolean, forgetting: boolean): HeadsOnlyBecause {
  if (few) return classes.length < 2 ? 'one-class' : 'few-shot';
  return forgetting ? 'max-forgetting' : '';
}
