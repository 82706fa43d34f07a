/** Images as an application has them, and as the model takes them. */

import type { InputSpec, PreprocessingSpec } from '../bundle/manifest.js';
import { BundleError, TaskError } from '../errors.js';
import { plural } from '../formats/sentences.js';
import { resizeBilinear } from './resize.js';

/**
 * An image: `height * width * channels` numbers from 0 to 255, row by row, the channels of a pixel together. `channels`
 * is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha), and follows from the data's length where it is left out: a
 * browser's `ImageData` is an image. Alpha is dropped. Of a camera with more than 8 bits the upper 8 of those that it
 * fills, `value >> (bitDepth - 8)`, as `bit_depth` makes them in Python; a browser decodes a PNG of 16 bits as if it
 * filled all of them.
 */
export interface Picture {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  readonly channels?: number;
}

/** Many images of the model's size: uint8 RGB `(count, height, width, channels)`. */
export interface PixelBatch {
  readonly count: number;
  readonly data: Uint8Array;
}

/**
 * What the bundle's manifest says about its input, as functions: first size and channels (`toSize`, still uint8, small
 * to keep), then `(x * scale - mean) / std` (`normalize`). As csk_sdk/data/preprocess.py.
 */
export class Preprocessing {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  private readonly resizes: boolean;
  private readonly gain: Float32Array;
  private readonly offset: Float32Array;

  /** Throws BundleError when the manifest's mean, std or resize cannot be applied. */
  constructor(spec: PreprocessingSpec, input: InputSpec) {
    const { mean, std, scale, resize } = spec;
    const { channels } = input;
    if (mean.length !== channels || std.length !== channels) {
      throw new BundleError(
        `The bundle's preprocessing has ${mean.length} means and ${std.length} standard deviations for ` +
          `${channels} input channels: build the bundle again.`,
      );
    }
    if (![...mean, ...std].every(Number.isFinite) || !std.every((value) => value > 0)) {
      throw new BundleError(
        `The bundle's preprocessing has mean ${mean} and std ${std}, and every mean must be finite and every std ` +
          'above zero: build the bundle again.',
      );
    }
    if (resize !== 'bilinear' && resize !== 'none') {
      throw new BundleError(
        `The bundle's preprocessing asks for resize '${resize}', and this csk-sdk knows 'bilinear' and 'none': ` +
          'update csk-sdk on this device.',
      );
    }
    [this.height, this.width] = input.size as [number, number];
    this.channels = channels;
    this.resizes = resize === 'bilinear';
    // One multiplication and one addition; the constants are rounded once.
    this.gain = Float32Array.from(std, (value) => scale / value);
    this.offset = Float32Array.from(std, (value, i) => -mean[i]! / value);
  }

  /** Numbers of one image of the model's size. */
  get size(): number {
    return this.height * this.width * this.channels;
  }

  /**
   * Give an image the model's channels and size: uint8 `(height, width, channels)`; its own data if nothing has to
   * change. `where` names the image in errors. Throws TaskError for data that do not fit its size, and for another
   * size than the model's if the bundle does not resize.
   */
  toSize(picture: Picture, where: string): Uint8Array {
    const channels = channelsOf(picture, where);
    const { width, height } = picture;
    const right = width === this.width && height === this.height;
    if (!right && !this.resizes) {
      throw new TaskError(
        `${where} is ${width}x${height} pixels (width x height) and the model takes ${this.width}x${this.height}: ` +
          'resize it, or build the bundle with --resize bilinear.',
      );
    }
    let pixels = new Uint8Array(picture.data.buffer, picture.data.byteOffset, picture.data.byteLength);
    let found = channels;
    if (channels !== this.channels) [pixels, found] = this.convert(pixels, channels, where);
    if (!right) pixels = resizeBilinear(pixels, height, width, found, this.height, this.width);
    // Gray for a model of RGB: resized once, repeated afterwards.
    return found === this.channels ? pixels : repeated(pixels, this.channels);
  }

  /** `toSize` for many. */
  stack(pictures: readonly Picture[], noun = 'image'): PixelBatch {
    const data = new Uint8Array(pictures.length * this.size);
    pictures.forEach((picture, i) => {
      data.set(this.toSize(picture, `${noun} ${i}`), i * this.size);
    });
    return { count: pictures.length, data };
  }

  /** `(x * scale - mean) / std` per channel: float32 `(count, channels, height, width)`. */
  normalize({ count, data }: PixelBatch): Float32Array {
    const { channels, gain, offset } = this;
    const area = this.height * this.width;
    const out = new Float32Array(count * this.size);
    for (let n = 0; n < count; n++) {
      for (let c = 0; c < channels; c++) {
        const from = n * this.size + c;
        const to = n * this.size + c * area;
        for (let i = 0; i < area; i++) {
          // Rounded after each of the two, as NumPy does.
          out[to + i] = Math.fround(data[from + i * channels]! * gain[c]!) + offset[c]!;
        }
      }
    }
    return out;
  }

  private convert(pixels: Uint8Array, channels: number, where: string): [Uint8Array, number] {
    if (channels > 4 || (this.channels !== 1 && this.channels !== 3)) {
      throw new TaskError(
        `${where} has ${plural(channels, 'channel')} and the model takes ${this.channels}: ` +
          'hand over images with the channels that the model was trained on.',
      );
    }
    const colors = channels > 2 ? 3 : 1;
    const area = pixels.length / channels;
    if (colors === 3 && this.channels === 1) {
      const gray = new Uint8Array(area);
      for (let i = 0; i < area; i++) {
        const at = i * channels;
        // ITU-R 601-2 luma in fixed point, as Pillow's convert("L").
        const sum = pixels[at]! * 19595 + pixels[at + 1]! * 38470 + pixels[at + 2]! * 7471;
        gray[i] = (sum + 0x8000) >> 16;
      }
      return [gray, 1];
    }
    if (colors === channels) return [pixels, colors];
    const opaque = new Uint8Array(area * colors);
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < colors; c++) opaque[i * colors + c] = pixels[i * channels + c]!;
    }
    return [opaque, colors];
  }
}

function channelsOf(picture: Picture | null | undefined, where: string): number {
  const { data, width = 0, height = 0, channels } = picture ?? {};
  if ((data as unknown) instanceof Uint16Array) {
    throw new TaskError(
      `${where} has values of 16 bits, and an image has 8: hand over the upper 8 of the bits that the camera fills, ` +
        'Uint8Array.from(data, (value) => value >> (bitDepth - 8)), in tasks and in predictions.',
    );
  }
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new TaskError(
      `${where} has no Uint8Array of pixels: hand over numbers from 0 to 255, as a camera gives them.`,
    );
  }
  if (!(Number.isSafeInteger(width) && Number.isSafeInteger(height) && width > 0 && height > 0)) {
    throw new TaskError(`${where} is ${width}x${height} pixels (width x height): there is no pixel in it.`);
  }
  const found = channels ?? data.length / (width * height);
  if (!Number.isSafeInteger(found) || found < 1 || data.length !== width * height * found) {
    throw new TaskError(
      `${where} has ${data.length} bytes, which is not ${width} x ${height} pixels of ${channels ?? '1 to 4'} channels.`,
    );
  }
  return found;
}

function repeated(gray: Uint8Array, channels: number): Uint8Array {
  const out = new Uint8Array(gray.length * channels);
  for (let i = 0; i < out.length; i++) out[i] = gray[Math.floor(i / channels)]!;
  return out;
}
