/** When training ends before its epochs do: a plateau, a budget of FLOPs, which stands for energy, or of seconds. */

import type { Manifest } from '../bundle/manifest.js';
import type { TrainingConfig } from '../config.js';
import { SENTENCES } from '../contract/sentences.js';
import { STOPPING } from '../contract/thresholds.js';
import { ConfigError } from '../errors.js';
import { filled } from '../formats/sentences.js';

/** What ended training. */
export type StopReason = 'epochs' | 'plateau' | 'seconds' | 'flops';

/**
 * How many steps a run may take, and why it ends.
 *
 * FLOPs are counted in advance from the bundle's costs, so such a run is the same on every device, and its learning rate
 * falls to zero in its own length. Seconds run out where they do, at the border of a step. A plateau is as many epochs in
 * a row as the setting `patience` says whose mean loss is not 1 % below the best before; `memory` is what has to be kept
 * to find the same one after an interruption.
 */
export class Stopping {
  readonly steps: number;
  private ended: StopReason = 'epochs';
  private readonly budget: number | null;
  private readonly patience: number;
  private best = Number.POSITIVE_INFINITY;
  private stale = 0;

  /** Of `perEpoch` steps of `batchSize` images an epoch. Throws ConfigError for FLOPs that do not make one. */
  constructor(
    { epochs, seconds, flops, patience }: TrainingConfig,
    manifest: Manifest,
    private readonly perEpoch: number,
    batchSize: number,
  ) {
    this.budget = seconds;
    this.patience = patience;
    const steps = perEpoch * epochs;
    const possible = flops === null ? steps : stepsWithin(flops, manifest, batchSize);
    this.steps = Math.min(possible, steps);
    if (possible < steps) this.ended = 'flops';
  }

  get reason(): StopReason {
    return this.ended;
  }

  /** The best epoch's mean loss, below zero before the first one, and how many epochs have passed since. */
  get memory(): { best: number; stale: number } {
    return { best: Number.isFinite(this.best) ? this.best : -1, stale: this.stale };
  }

  /** Go on from what `memory` gave. */
  resume({ best, stale }: { best: number; stale: number }): void {
    this.best = best >= 0 ? best : Number.POSITIVE_INFINITY;
    this.stale = stale;
  }

  /** Whether to stop after `done` steps and so many seconds, with this mean loss over the epoch so far. */
  over(done: number, seconds: number, loss: number): boolean {
    const flat = done % this.perEpoch === 0 && this.isFlat(loss);
    if (done >= this.steps) return true;
    if (flat) {
      this.ended = 'plateau';
      return true;
    }
    if (this.budget === null || seconds < this.budget) return false;
    this.ended = 'seconds';
    return true;
  }

  /** Whether the epoch that ends with this mean loss makes a plateau. */
  private isFlat(loss: number): boolean {
    if (loss < (1 - STOPPING.leastFall) * this.best) {
      this.best = loss;
      this.stale = 0;
    } else {
      this.stale += 1;
    }
    return this.patience > 0 && this.stale >= this.patience;
  }
}

function stepsWithin(flops: number, { costs }: Manifest, batchSize: number): number {
  const each = (costs.step_centers ?? 0) * batchSize;
  if (!each) {
    throw new ConfigError(SENTENCES.flopsUnknown);
  }
  const possible = Math.floor(flops / each);
  if (possible < 1) {
    const values = { flops: general(flops), batch_size: batchSize, each: general(each) };
    throw new ConfigError(filled(SENTENCES.flopsTooFew, values));
  }
  return possible;
}

/** Six digits at most, and an exponent from 1e+06 on, as Python's format "g". */
function general(value: number): string {
  const rounded = Number(value.toPrecision(6));
  return rounded < 1e6 ? String(rounded) : rounded.toExponential().replace(/\+(\d)$/, '+0$1');
}
