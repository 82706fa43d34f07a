/** When training ends before its epochs do: a budget of FLOPs, which stands for energy, or of seconds. */

import type { Manifest } from './bundle/manifest.js';
import type { TrainingConfig } from './config.js';
import { ConfigError } from './errors.js';

/** What ended training. */
export type StopReason = 'epochs' | 'seconds' | 'flops';

/**
 * How many steps a run may take, and why it ends.
 *
 * FLOPs are counted in advance from the bundle's costs, so such a run is the same on every device, and its learning rate
 * falls to zero in its own length. Seconds run out where they do, at the border of a step.
 */
export class Stopping {
  readonly steps: number;
  private ended: StopReason = 'epochs';
  private readonly budget: number | null;

  /** Of a run of `steps` steps of `batchSize` pictures. Throws ConfigError for FLOPs that are not enough for one. */
  constructor({ seconds, flops }: TrainingConfig, manifest: Manifest, steps: number, batchSize: number) {
    this.budget = seconds;
    const possible = flops === null ? steps : stepsWithin(flops, manifest, batchSize);
    this.steps = Math.min(possible, steps);
    if (possible < steps) this.ended = 'flops';
  }

  get reason(): StopReason {
    return this.ended;
  }

  /** Whether to stop after `done` steps and so many seconds. */
  over(done: number, seconds: number): boolean {
    if (done >= this.steps) return true;
    if (this.budget === null || seconds < this.budget) return false;
    this.ended = 'seconds';
    return true;
  }
}

function stepsWithin(flops: number, { costs }: Manifest, batchSize: number): number {
  const each = (costs.step_centers ?? 0) * batchSize;
  if (!each) {
    throw new ConfigError(
      'flops is set, and this bundle does not say what a step costs: build it again, or leave flops out.',
    );
  }
  const possible = Math.floor(flops / each);
  if (possible < 1) {
    throw new ConfigError(
      `flops is ${general(flops)}, and one step of ${batchSize} costs ${general(each)}: allow more.`,
    );
  }
  return possible;
}

/** Six digits at most, and an exponent from 1e+06 on, as Python's format "g". */
function general(value: number): string {
  const rounded = Number(value.toPrecision(6));
  return rounded < 1e6 ? String(rounded) : rounded.toExponential().replace(/\+(\d)$/, '+0$1');
}
