/** Dynamic channel element selection (CsKO, arXiv 2406.08830): which input channels of a site a task may train. */

import { ConfigError, DivergedError } from '../errors.js';
import { roundHalfToEven } from './rounding.js';

/** Running sensitivity of one site's input channels, `s_j = sum over batches of ||dL/dC[:, j]||^2`. */
export class Sensitivity {
  readonly values: Float64Array;

  constructor(channels: number) {
    this.values = new Float64Array(channels);
  }

  /** Add one batch's center gradient, `(rows, c_in)`. */
  add(gradient: Float32Array): void {
    const channels = this.values.length;
    for (let i = 0; i < gradient.length; i += channels) {
      for (let j = 0; j < channels; j++) this.values[j] = this.values[j]! + gradient[i + j]! ** 2;
    }
  }
}

/** How many of `channels` a ratio selects: at least 1, half a channel rounded to the even number, as in Python. */
export function channelCount(channels: number, ratio: number): number {
  if (!(ratio > 0 && ratio <= 1)) {
    throw new ConfigError(
      `channelRatio is ${ratio}, but it must be above 0 and at most 1: ` +
        'give the share of input channels to train, for example 0.25.',
    );
  }
  return Math.max(1, roundHalfToEven(ratio * channels));
}

/** The most sensitive channels, ascending; of equally sensitive ones the lower. Throws DivergedError where one is not finite. */
export function selectChannels(sensitivity: Float64Array, ratio: number): number[] {
  const count = channelCount(sensitivity.length, ratio);
  const broken = sensitivity.findIndex((value) => !Number.isFinite(value));
  if (broken >= 0) {
    throw new DivergedError(
      `the gradient of input channel ${broken} is not finite on this task's data: ` +
        "check the images, and that the bundle's preprocessing fits the model.",
    );
  }
  const order = Array.from(sensitivity.keys()).sort((a, b) => sensitivity[b]! - sensitivity[a]! || a - b);
  return order.slice(0, count).sort((a, b) => a - b);
}
