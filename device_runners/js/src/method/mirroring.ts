/**
 * Features of mirrored images, for a task's own head: of some from the network, of the others from what these tell.
 *
 * What mirroring changes in an image's features depends little on what the image shows (docs/decisions/0005-heads.md).
 */

import { MIRRORING } from '../contract/thresholds.js';
import { rowsAt } from './matrix.js';

/** How many of so many images are mirrored themselves. */
export function mirroredByTheNetwork(images: number): number {
  return Math.min(images, Math.max(MIRRORING.leastImages, Math.ceil(images / MIRRORING.oneIn)));
}

/** Which `count` of so many images, in ascending order: they may lie sorted by class, and all are to be among them. */
export function spreadOver(images: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => Math.floor((at * images) / count));
}

/** And the others, in ascending order. */
export function othersOf(images: number, chosen: readonly number[]): number[] {
  const taken = new Set(chosen);
  return Array.from({ length: images }, (_, at) => at).filter((at) => !taken.has(at));
}

/**
 * The features `(n - m, f)` of the images that are not mirrored themselves, as if they were.
 *
 * `own` `(n, f)` are those of all images as they are, and `mirrored` `(m, f)` those of the images `spreadOver(n, m)` mirrored.
 * The first of the others changes as the first of these did, and so on, over and over.
 */
export function mirroredLike(own: Float32Array, mirrored: Float32Array, f: number): Float32Array {
  const [n, m] = [own.length / f, mirrored.length / f];
  const chosen = spreadOver(n, m);
  const were = rowsAt(own, chosen, f);
  const change = mirrored.map((value, at) => value - were[at]!);
  return rowsAt(own, othersOf(n, chosen), f).map((value, at) => value + change[at % change.length]!);
}
