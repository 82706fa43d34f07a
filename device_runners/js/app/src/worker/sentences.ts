/** What the guards of csk-sdk found, said to a person who has no settings. */

import type { ContradictionError, LabelError, LearnReport } from 'csk-sdk';
import { percent } from '../wording.js';

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

type Found = Pick<LearnReport, 'headsOnlyBecause' | 'forgetting' | 'warnings' | 'twins' | 'gain'>;

// How csk-sdk's sentences begin that name settings, and are said in other words here.
const HEADS_INSTEAD = 'what was trained would have cost';
const NOT_TOLD = 'among all classes only';

/** What a person should know about a task that was learned. */
export function remarks({ headsOnlyBecause, forgetting, warnings, twins, gain }: Found): string[] {
  // The last one is about few images, where there are; the page asks about twins.
  const own = headsOnlyBecause === 'few-shot' ? warnings.slice(0, -1) : warnings;
  const asked = Object.keys(twins).map((name) => `'${name}' cannot be told from`);
  const reworded = [...asked, HEADS_INSTEAD, NOT_TOLD];
  const others = own
    .filter((sentence) => !reworded.some((begins) => sentence.startsWith(begins)))
    .map((sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1));
  if (own.some((sentence) => sentence.startsWith(NOT_TOLD))) {
    others.push(
      'It tells these classes from one another, but hardly ever from what it knew before: they look much like that to it.',
    );
  }
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
  if (gain && headsOnlyBecause === 'no-gain') {
    others.push(
      `Whether training helps was asked of ${gain.images || 'none'} of your images, and it was not clear that it does: it tells the ` +
        'new classes by what it sees already.',
    );
  } else if (gain && headsOnlyBecause === '') {
    others.push(
      `Whether training helps was asked of ${gain.images} of your images, and it does: it was trained.`,
    );
  }
  return others;
}
