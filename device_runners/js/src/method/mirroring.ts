/**
 * How many of a task's images are looked at mirrored, too, for its own head.
 *
 * Each takes as long as an image of its own, and beside many they hardly tell more (docs/decisions/0005-heads.md).
 */

import { MIRRORING } from '../contract/thresholds.js';

/** How many beside so many images: all of few, and none where these are enough. */
export function mirroredBeside(images: number): number {
  return Math.min(images, Math.max(0, MIRRORING.enough - images));
}

/** Which `count` of so many images, in ascending order: they may lie sorted by class, and all are to be among them. */
export function spreadOver(images: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => Math.floor((at * images) / count));
}
