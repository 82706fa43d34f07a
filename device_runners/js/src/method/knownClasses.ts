/**
 * More images of classes that are known already: how much they count beside those that came before.
 *
 * Classes are one by name. New images of a known class are mostly of another kind than the old ones, or nobody would
 * have collected them; but ten of them vanish in a mean over five hundred. So all that a task brings of known classes
 * count as much together as those that were there (docs/decisions/0017-known-classes.md).
 */

import { KNOWN_CLASSES } from '../contract/thresholds.js';
import type { Contradiction } from '../errors.js';
import { freedomOf } from './covariance.js';
import { type ClassStatistics, ldaHead, type ShrunkCovariance, shrunkCovariance } from './heads.js';
import { type HeadArrays, logitsOf } from './logistic.js';
import { argmax, dot } from './matrix.js';

/** How many times a new image of a class that is `known` counts, by name; `images` are the new ones' counts. */
export function timesCounted(
  images: ReadonlyMap<string, number>,
  known: ClassStatistics,
): Map<string, number> {
  const seen = knownAmong([...images.keys()], known);
  const count = seen.reduce((sum, name) => sum + images.get(name)!, 0);
  const factor = count ? Math.min(KNOWN_CLASSES.most, Math.max(1, known.count(seen) / count)) : 1;
  return new Map(seen.map((name) => [name, factor]));
}

/** Those of `classes` that `known` has images of. */
export function knownAmong(classes: readonly string[], known: ClassStatistics): string[] {
  const seen = new Set(seenIn(known));
  return classes.filter((name) => seen.has(name));
}

/**
 * Classes of which most new images look like those of another one, which is `known`. Classes that are known themselves; and where
 * the other one is of the task, too, and most of its own images do not look like it, new ones as well: names that were exchanged,
 * of which one was not known, or is left out of decisions.
 *
 * `features` `(n, f)` and `labels` `(n,)` into `classes` are the task's. An image looks like one of a class where the
 * discriminant decides for it, and those of which it does lie no further from its mean than its own do. What is unlike
 * everything known, as in another season, has the looks of no class, whichever is nearest.
 */
export function contradicted(
  known: ClassStatistics,
  priorPictures: number,
  features: Float32Array,
  labels: ArrayLike<number>,
  classes: readonly string[],
): Map<string, Contradiction> {
  const found = new Map<string, Contradiction>();
  const seen = seenIn(known);
  const distance = seen.some((name) => classes.includes(name)) && distanceIn(known, priorPictures);
  if (!distance) return found;
  const f = known.features;
  const said = decisions(features, ldaHead(known, priorPictures, seen));
  const images = classes.map((_, index) =>
    Array.from(labels, (_, i) => i).filter((i) => labels[i] === index),
  );
  const looksLike = (own: readonly number[], c: number): number =>
    own.filter((i) => said[i] === c).length / own.length;
  const itself = (other: number): number => {
    const own = images[classes.indexOf(seen[other]!)] ?? [];
    return own.length < KNOWN_CLASSES.leastImages ? 1 : looksLike(own, other);
  };
  for (const [index, name] of classes.entries()) {
    const own = images[index]!;
    if (own.length < KNOWN_CLASSES.leastImages) continue;
    const shares = seen.map((one, c) => (one === name ? 0 : looksLike(own, c)));
    const other = argmax(shares);
    const share = shares[other]!;
    if (share <= KNOWN_CLASSES.contradiction) continue;
    if (!seen.includes(name) && itself(other) >= KNOWN_CLASSES.contradiction) continue;
    const theirs = own.filter((i) => said[i] === other).map((i) => features.subarray(i * f, (i + 1) * f));
    if (distance(theirs, seen[other]!) < KNOWN_CLASSES.familiar) {
      found.set(name, { other: seen[other]!, share });
    }
  }
  return found;
}

function seenIn({ classes, counts }: ClassStatistics): string[] {
  return classes.filter((_, c) => counts[c]! > 0);
}

/** For each of `(n, f)` features the class of the head that it is taken for. */
function decisions(features: Float32Array, head: HeadArrays): number[] {
  const count = head.bias.length;
  const logits = logitsOf(features, head);
  return Array.from({ length: logits.length / count }, (_, i) => argmax(logits, i * count, count));
}

/**
 * How far images are from a class's mean on average, squared, over what is expected of others of the class; undefined
 * where no class has any spread. The covariance fits the images that it is made of too closely: with `g` the share of its
 * degrees of freedom that the discriminant uses, others lie `1 / (1 - g)^2` times as far.
 */
function distanceIn(
  known: ClassStatistics,
  priorPictures: number,
): ((images: readonly Float32Array[], name: string) => number) | undefined {
  const shrunk = shrunkCovariance(known, priorPictures);
  if (!shrunk) return undefined;
  const f = known.features;
  const used = shareUsed(shrunk, freedomOf(known.counts));
  const expected = shrunk.noise() / (1 - used) ** 2;
  return (images, name) => {
    const row = known.classes.indexOf(name);
    const apart = new Float64Array(images.length * f);
    for (const [i, image] of images.entries()) {
      for (let j = 0; j < f; j++)
        apart[i * f + j] = image[j]! - known.sums[row * f + j]! / known.counts[row]!;
    }
    const solved = shrunk.system.solveRows(apart, images.length);
    return dot(apart, solved) / images.length / expected;
  };
}

/** `g`, the share of the covariance's degrees of freedom that the discriminant uses. */
export function shareUsed({ noise, shrinkage }: Omit<ShrunkCovariance, 'system'>, freedom: number): number {
  return Math.min(((1 - shrinkage) * noise()) / freedom, KNOWN_CLASSES.mostUsed);
}
