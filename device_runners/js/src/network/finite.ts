/**
 * Numbers that are not finite never become a prediction, and never part of a state. The sentences are Python's
 * (csk_sdk/network/finite.py).
 */

import { DivergedError, StateError, TaskError } from '../errors.js';
import { allFinite, type Numbers } from '../formats/finite.js';

const WHAT = 'the network computes numbers that are not finite (NaN or infinity)';
const ADVICE = 'If others fail, too, try another release of ONNX Runtime, or build the bundle again.';

/**
 * Throws TaskError for the first row of `values` `(n, width)` that is not finite: what the network or a head computes
 * for `n` images, the first of which is number `first`.
 */
export function requireAnswers(values: Numbers, width: number, first = 0): void {
  if (allFinite(values)) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  const picture = first + Math.floor(at / width);
  throw new TaskError(
    `For image ${picture} ${WHAT}, so nothing can be said of it: check the image. ${ADVICE}`,
  );
}

/** Nothing can be learned from one of a task's images, `which` it is where that is known. */
export function unlearnable(which?: string): DivergedError {
  return new DivergedError(
    `For ${which ?? 'one image of the task'} ${WHAT}, so nothing can be learned from it: ` +
      `check the ${which === undefined ? "task's images" : 'image'}. ${ADVICE} Nothing was committed.`,
  );
}

/** Throws DivergedError where features of a task's images are not finite. */
export function requireLearnableFeatures(features: Float32Array): void {
  if (!allFinite(features)) throw unlearnable();
}

/** Throws DivergedError where numbers of a task's training are not finite: committed, they could not be unlearned. */
export function requireConverged(name: string, values: Numbers): void {
  if (allFinite(values)) return;
  throw new DivergedError(
    `Training diverged ('${name}' is no longer finite): lower learningRate, and check this task's data. ` +
      'Nothing was committed.',
  );
}

/** Throws StateError where a stored head, or one made of stored statistics, is not finite. */
export function requireUsableHead(weight: Float32Array, bias: Float32Array, whose: string): void {
  if (allFinite(weight) && allFinite(bias)) return;
  throw new StateError(
    `The head of ${whose} holds numbers that are not finite (NaN or infinity): roll back to an earlier task.`,
  );
}
