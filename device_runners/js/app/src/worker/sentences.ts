/** What the guards of csk-sdk found, said to a person who has no settings. */

import type { ContradictionError, LabelError, LearnReport } from 'csk-sdk';

/** Why a task was refused whose images and names do not belong together. */
export function mixedUp({ evidence: { accuracy, chance } }: LabelError): string {
  return (
    "These images look mixed up between the classes: an image's class follows from the others in " +
    `${percent(accuracy)} of cases, and guessing is right in ${percent(chance)}. Nothing was learned. ` +
    'Check that each class has its own images.'
  );
}

/** Why a task was not learned whose images look like other classes that are known. */
export function contradicting({ found }: ContradictionError): string {
  const some = [...found].map(
    ([name, { other, share }]) => `${percent(share)} of your images of '${name}' look like '${other}'`,
  );
  return `${some.slice(0, 3).join(', ')}. Nothing was learned: say which of the two is right.`;
}

const percent = (share: number): string => `${Math.round(100 * share)} %`;

type Found = Pick<LearnReport, 'headsOnlyBecause' | 'forgetting' | 'warnings'> & {
  /** What csk-sdk expects of decisions over all classes, where it does: `lost` in percentage points of the older ones. */
  readonly expected?: { readonly lost?: number };
};

/** What a person should know about a task that was learned. */
export function remarks({ headsOnlyBecause, forgetting, warnings, expected }: Found): string[] {
  // The last warning is about heads only, where there is such a one; it is said in other words here.
  const others = (
    headsOnlyBecause && headsOnlyBecause !== 'one-class' ? warnings.slice(0, -1) : warnings
  ).map((sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1));
  if (headsOnlyBecause === 'few-shot') {
    others.push(
      'These are too few images to train on, so it tells the new classes by what it sees already. ' +
        'About twenty of each would let it learn more.',
    );
  }
  if (headsOnlyBecause === 'max-forgetting') {
    others.push(
      `Training would have cost about ${Math.round(forgetting)} percentage points of accuracy on what it knew before, so it ` +
        'tells the new classes by what it sees already.',
    );
  }
  return [...others, ...olderClasses(expected?.lost)];
}

/** How older classes fare, which were not in the images: from their statistics. */
function olderClasses(lost: number | undefined): string[] {
  if (lost === undefined) return [];
  const points = Math.round(lost);
  const told = 'as far as their statistics tell, without their images.';
  if (points < 1) return [`The classes that it knew before are told as well as before, ${told}`];
  return [
    `The classes that it knew before lose about ${points} percentage ${points === 1 ? 'point' : 'points'} of accuracy, ${told}`,
  ];
}
