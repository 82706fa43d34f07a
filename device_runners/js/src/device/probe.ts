/** Made-up images that are like a bundle's data in level and contrast, for trying its graphs: as csk_sdk/device/probe.py. */

import type { Manifest } from '../bundle/manifest.js';
import { PROBE } from '../contract/thresholds.js';
import { sizeOf } from '../formats/tensors.js';
import type { Random } from '../method/random.js';

const LARGEST = 255;

/**
 * `count` images or signals of noise in the graphs' units, `(count, channels, ...size)`. Level and contrast are what the builder
 * measured; else they are guessed: for images, as pixels of their range. No image leaves the range of its pixels.
 */
export function madeUpImages(manifest: Manifest, count: number, random: Random): Float32Array {
  const { input, preprocessing, probe } = manifest;
  const pixels = sizeOf(input.size);
  const isSignal = input.size.length === 1;
  const made = new Float32Array(count * input.channels * pixels);
  for (let at = 0; at < made.length; at++) {
    const channel = Math.floor(at / pixels) % input.channels;
    const of = (pixel: number): number =>
      (pixel * preprocessing.scale - preprocessing.mean[channel]!) / preprocessing.std[channel]!;
    const [level, spread] = probe
      ? [probe.mean[channel]!, probe.std[channel]!]
      : isSignal
        ? [0, 1]
        : [of(PROBE.level), of(PROBE.level + PROBE.spread) - of(PROBE.level)];
    const value = level + PROBE.contrast * spread * random.normal();
    made[at] = isSignal ? value : Math.min(Math.max(value, of(0)), of(LARGEST));
  }
  return made;
}
