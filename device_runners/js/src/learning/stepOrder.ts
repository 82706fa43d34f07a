/** Which images each step of a run goes over: all of a task's, or those that most of the gradient comes from. */

import { Random } from '../method/random.js';

/**
 * The order of `images` images in each epoch, by seed and epoch, so that any step can be redone. Steps go over the `chosen` of them,
 * 0 or 1 each, all at first, `batchSize` at a time: `count` images and `perEpoch` steps in an epoch.
 */
export class StepOrder {
  chosen: Uint8Array;
  count: number;
  /** That of the last epoch that was asked for. */
  private order: { readonly epoch: number; readonly index: Int32Array } | undefined;

  constructor(
    images: number,
    private readonly batchSize: number,
    private readonly seed: number,
  ) {
    this.chosen = new Uint8Array(images).fill(1);
    this.count = images;
  }

  get perEpoch(): number {
    return Math.ceil(this.count / this.batchSize);
  }

  /** Let the steps go over these. */
  over(chosen: Uint8Array): void {
    this.chosen = chosen;
    this.count = chosen.reduce((sum, one) => sum + one, 0);
    this.order = undefined;
  }

  /** The images of one step of an epoch. */
  step(epoch: number, position: number): Int32Array {
    if (this.order?.epoch !== epoch) {
      this.order = { epoch, index: this.epoch(epoch).filter((image) => this.chosen[image]) };
    }
    return this.order.index.subarray(position * this.batchSize, (position + 1) * this.batchSize);
  }

  /** How many images the steps of the last of so many steps' epoch have gone over by then. */
  seen(steps: number): number {
    return Math.min((((steps - 1) % this.perEpoch) + 1) * this.batchSize, this.count);
  }

  /** All images in the order of an epoch, also those that no step goes over. */
  epoch(epoch: number): Int32Array {
    return new Random(this.seed, epoch).permutation(this.chosen.length);
  }

  /** All images in the order in which everything but steps sees them. */
  plain(): Int32Array {
    return new Random(this.seed).permutation(this.chosen.length);
  }
}
