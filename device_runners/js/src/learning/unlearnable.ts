/** Which image it is that nothing can be learned from: as csk_sdk/learning/unlearnable.py. */

import type { Bundle } from '../bundle/bundle.js';
import type { DivergedError } from '../errors.js';
import type { Tensors } from '../formats/tensors.js';
import { FeatureExtractor } from '../network/features.js';
import type { Opening } from '../network/feeds.js';
import { unlearnable } from '../network/finite.js';

/** Numbers of images, and these as the graphs take them. */
export interface Numbered {
  readonly numbers: Int32Array;
  readonly images: Float32Array;
}

/**
 * What to throw for `error`: the first image without finite features, by name; `error` where all have some. Under the network of
 * `tensors`, as it was before the task: so it is the image, and not what training made of the network.
 */
export async function naming(
  error: DivergedError,
  bundle: Bundle,
  tensors: Tensors,
  opening: Opening,
  batches: Iterable<Numbered>,
  name: (image: number) => string,
): Promise<DivergedError> {
  const extractor = await FeatureExtractor.open(bundle, tensors, opening);
  try {
    for (const { numbers, images } of batches) {
      const at = (await extractor.features(images)).findIndex((value) => !Number.isFinite(value));
      if (at >= 0) return unlearnable(name(numbers[Math.floor(at / bundle.manifest.head.features)]!));
    }
    return error;
  } finally {
    await extractor.close();
  }
}
