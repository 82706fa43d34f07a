/** What a task must pass before it is committed, and the sentences that say why it did not. */

import type { Bundle } from '../bundle/bundle.js';
import { trainedBy } from '../bundle/manifest.js';
import type { TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { NOT_TOLD, NOVELTY, ONE_IMAGE } from '../contract/thresholds.js';
import {
  ConfigError,
  type Contradiction,
  ContradictionError,
  LabelError,
  TaskError,
  type Twin,
  TwinError,
} from '../errors.js';
import { filled, listed, percent, plural } from '../formats/sentences.js';
import type { Judgement } from '../method/decisions.js';
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
    return filled(SENTENCES.contradictsOne, { share: percent(share), noun: 'image', name, other });
  });
  const of = [...found.keys()].find((name) => base.includes(name));
  const values = {
    more:
      some.length > 3
        ? filled(SENTENCES.contradictsMore, {
            classes: plural(some.length - 3, 'more class', 'more classes'),
          })
        : '',
    stays: of === undefined ? '' : filled(SENTENCES.contradictsBase, { name: of }),
    ...{ replace: 'replace: true', add: 'replace: false' },
  };
  const said = { task, found: some.slice(0, 3).join(', '), noun: 'image', ...values };
  throw new ContradictionError(filled(SENTENCES.contradicts, said), found);
}

/** Throw ConfigError where `train` asks for what the bundle was not built to train. */
export function requireTrainable(bundle: Bundle, { train }: TrainingConfig): void {
  const trained = trainedBy(bundle.manifest);
  if (train === 'auto' || train === 'heads' || train === trained) return;
  const sites = train === 'kernels' ? 'kernels' : 'center';
  throw new ConfigError(filled(SENTENCES.trainsOther, { asked: train, bundle: bundle.name, trained, sites }));
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

/**
 * Classes that decisions over all classes must leave out, since they would cost an old one `maxForgetting` points. Throws
 * TwinError where that means to refuse (`onForgetting`), or nothing would be left to learn.
 */
export function twinsToPart(
  judgement: Judgement | undefined,
  { maxForgetting, onForgetting }: TrainingConfig,
  task: string,
  classes: readonly string[],
): string[] {
  const found = [...(judgement?.twins ?? [])].filter(([, { taken }]) => 100 * taken > maxForgetting);
  if (found.length && (onForgetting === 'refuse' || classes.length === 1)) {
    throw new TwinError(filled(SENTENCES.twinRefused, { task, ...about(...found[0]!) }), new Map(found));
  }
  return found.map(([name]) => name);
}

/** A sentence for each class that cannot be told from an old one, or takes much of it. */
function toldTwins(judgement: Judgement | undefined, apart: readonly string[]): string[] {
  const twins = [...(judgement?.twins ?? [])].map(([name, twin]) =>
    filled(apart.includes(name) ? SENTENCES.twinApart : SENTENCES.twinCounted, about(name, twin)),
  );
  const rivals = [...(judgement?.rivals ?? [])].map(([name, { old, taken }]) =>
    filled(SENTENCES.hardToTell, { new: name, old, taken: percent(taken), noun: 'image' }),
  );
  return [...twins, ...rivals];
}

function about(name: string, { old, taken, back }: Twin): Record<string, string> {
  const merge = `merge(${JSON.stringify(old)}, ${JSON.stringify(name)})`;
  return { new: name, old, taken: percent(taken), back: percent(back), merge };
}

/** A loud warning where the task's decision works, and the one over all classes hardly ever names its classes. */
function notTold(judgement: Judgement | undefined, apart: readonly string[]): string[] {
  const counted = [...(judgement?.expected ?? [])].filter(([name]) => !apart.includes(name));
  if (counted.length < 2) return [];
  const mean = (of: 'allClasses' | 'task'): number =>
    counted.reduce((sum, [, one]) => sum + one[of], 0) / counted.length;
  const [everywhere, task] = [mean('allClasses'), mean('task')];
  if (everywhere >= NOT_TOLD.allClasses || task < NOT_TOLD.task) return [];
  return [filled(SENTENCES.notTold, { everywhere: percent(everywhere), task: percent(task) })];
}

/** Of a task of so many images, the classes that have one only, so that nothing judges what is made of it. */
export function alone(
  classes: readonly string[],
  judgement: Judgement | undefined,
  images: number,
): readonly string[] {
  if (!judgement) return images === classes.length ? classes : [];
  return classes.filter((name) => !judgement.expected.has(name));
}

/** What to expect of classes that were learned from one image. */
function ofOneImage(names: readonly string[]): string[] {
  if (!names.length) return [];
  const values = {
    names: listed(
      names.map((name) => `'${name}'`),
      3,
    ),
    noun: 'image',
  };
  return [filled(SENTENCES.oneImage, { ...values, advised: ONE_IMAGE.advised })];
}

/** A warning of classes of the task that its images cannot tell apart. */
function toldAlike(judgement: Judgement | undefined): string[] {
  if (!judgement?.alike.length) return [];
  const pairs = listed(
    judgement.alike.map(([one, other]) => `'${one}' and '${other}'`),
    3,
  );
  return [filled(SENTENCES.alike, { pairs, noun: 'image' })];
}

/** What is told of a lesson: `forgetting` by old task, whether trained centers were dropped, and how decisions go. */
export interface Outcome {
  readonly forgetting: ReadonlyMap<string, number>;
  readonly headsOnly: boolean;
  readonly judgement?: Judgement | undefined;
  /** Classes that decisions over all classes leave out. */
  readonly apart: readonly string[];
}

/** All that the user of a learned task should know, one sentence each; `single` are classes of one image. */
export function warningsAbout(
  novelty: number | undefined,
  { forgetting, headsOnly, judgement, apart }: Outcome,
  config: TrainingConfig,
  single: readonly string[] = [],
): string[] {
  const dropped = headsOnly ? [headsInstead(forgetting, config)] : [];
  const judged = [...toldTwins(judgement, apart), ...toldAlike(judgement), ...notTold(judgement, apart)];
  return [...unfamiliar(novelty), ...dropped, ...judged, ...ofOneImage(single)];
}

/** The old task that loses most, and its points; 0 where none is known. */
export function worstOf(forgetting: ReadonlyMap<string, number>): { worst: string; points: number } {
  let found: readonly [string, number] | undefined;
  for (const one of forgetting) if (!found || one[1] > found[1]) found = one;
  return { worst: found?.[0] ?? '', points: found?.[1] ?? 0 };
}
