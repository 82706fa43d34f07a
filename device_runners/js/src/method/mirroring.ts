/**
 * Features of mirrored images, for a task's own head: of some from the network, of the others from what these tell.
 *
 * What mirroring changes in an image's features depends little on what the image shows (docs/decisions/0005-heads.md).
 */

import { MIRRORING } from '../contract/thresholds.js';

/** How many of so many images are mirrored themselves. */
export function mirroredByTheNetwork(images: number): number {
  return Math.min(images, Math.max(MIRRORING.leastImages, Math.ceil(images / MIRRORING.oneIn)));
}

/**
 * The features `(n - m, f)` of the images behind the first `m`, as if they were mirrored.
 *
 * `own` `(n, f)` are those of all images as they are, in an order that has nothing to do with what they show, and
 * `mirrored` `(m, f)` those of the first `m` mirrored. Image `i` changes as image `i mod m` did.
 */
export function mirroredLike(own: Float32Array, mirrored: Float32Array): Float32Array {
  const size = mirrored.length;
  const change = mirrored.map((value, at) => value - own[at]!);
  return own.slice(size).map((value, at) => value + change[at % size]!);
}
