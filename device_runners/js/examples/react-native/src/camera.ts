/** A photo as csk-sdk takes images: RGBA numbers. */

import { toByteArray } from 'base64-js';
import type { Picture } from 'csk-sdk';
import { decode } from 'jpeg-js';
import { launchCamera } from 'react-native-image-picker';

// Larger than any usual model's input, and small enough to decode in JavaScript at once.
const LONGEST_SIDE = 320;

/** Take one photo; undefined where the user thought better of it. */
export async function takePhoto(): Promise<Picture | undefined> {
  const taken = await launchCamera({
    mediaType: 'photo',
    includeBase64: true,
    maxWidth: LONGEST_SIDE,
    maxHeight: LONGEST_SIDE,
    quality: 0.9,
  });
  if (taken.errorCode) throw new Error(taken.errorMessage ?? `the camera said '${taken.errorCode}'`);
  const jpeg = taken.assets?.[0]?.base64;
  if (jpeg === undefined) return undefined;
  const { data, width, height } = decode(toByteArray(jpeg), { useTArray: true, formatAsRGBA: true });
  return { data, width, height, channels: 4 };
}
