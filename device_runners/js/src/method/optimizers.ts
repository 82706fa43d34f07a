/**
 * Optimizers over named float32 parameters, as updates to be subtracted: the caller projects them first, for momentum
 * and Adam rescale directions, so that a projection before them would leak.
 */

import { OPTIMIZER_CONSTANTS, type TrainingConfig } from '../contract/settings.js';
import { WARM_UP } from '../contract/thresholds.js';
import { StateError } from '../errors.js';
import { float32, int64, type StoredTensor, type Tensors } from '../formats/tensors.js';

interface Slots {
  steps: number;
  readonly arrays: Float32Array[];
}

/** What optimizers share: state per parameter, and its way into a checkpoint. */
export abstract class Optimizer {
  protected abstract readonly slots: readonly string[];
  private state = new Map<string, Slots>();

  constructor(protected readonly weightDecay: number) {}

  /**
   * Turn the gradient of parameter `name`, in place, into the update to be subtracted from `parameter` at this learning
   * rate.
   */
  step(name: string, gradient: Float32Array, parameter: Float32Array, rate: number): void {
    let own = this.state.get(name);
    if (!own) {
      own = { steps: 0, arrays: this.slots.map(() => new Float32Array(gradient.length)) };
      this.state.set(name, own);
    }
    own.steps += 1;
    this.update(own.arrays, own.steps, rate, gradient, parameter);
  }

  protected abstract update(
    slots: readonly Float32Array[],
    count: number,
    rate: number,
    gradient: Float32Array,
    parameter: Float32Array,
  ): void;

  /** The state for a checkpoint: `SLOT/NAME` float32, flat, and `steps/NAME` int64 `(1,)`. */
  tensors(): Map<string, StoredTensor> {
    const saved = new Map<string, StoredTensor>();
    for (const [name, { steps, arrays }] of this.state) {
      this.slots.forEach((slot, i) => {
        saved.set(`${slot}/${name}`, float32([arrays[i]!.length], arrays[i]!));
      });
      saved.set(`steps/${name}`, int64([steps]));
    }
    return saved;
  }

  /** Replace the state by what `tensors` returned. Throws StateError when it is another optimizer's, or incomplete. */
  load(tensors: Tensors): void {
    const state = new Map<string, Slots>();
    for (const [key, saved] of tensors) {
      if (!key.startsWith('steps/') || saved.dtype !== 'int64') continue;
      const name = key.slice('steps/'.length);
      const arrays = this.slots.map((slot) => tensors.get(`${slot}/${name}`));
      if (!arrays.every((one) => one?.dtype === 'float32')) {
        throw new StateError(
          `the progress checkpoint's optimizer state of '${name}' does not fit: start the task again.`,
        );
      }
      const copies = arrays.map((one) => Float32Array.from(one!.data as Float32Array));
      state.set(name, { steps: Number(saved.data[0]), arrays: copies });
    }
    this.state = state;
  }
}

/** Heavy-ball momentum: `b <- momentum b + g + weight_decay p`, `U = rate b`. */
export class SGD extends Optimizer {
  protected readonly slots = ['momentum'];

  constructor(
    private readonly momentum: number,
    weightDecay = 0,
  ) {
    super(weightDecay);
  }

  protected update(
    [buffer]: readonly Float32Array[],
    _count: number,
    rate: number,
    gradient: Float32Array,
    parameter: Float32Array,
  ): void {
    const decay = this.weightDecay;
    for (let i = 0; i < gradient.length; i++) {
      const moved = this.momentum * buffer![i]! + gradient[i]! + (decay ? decay * parameter[i]! : 0);
      buffer![i] = moved;
      gradient[i] = rate * moved;
    }
  }
}

/**
 * Adam (Kingma & Ba, arXiv 1412.6980), weight decay decoupled (Loshchilov & Hutter, arXiv 1711.05101):
 * `U = rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)`.
 */
export class AdamW extends Optimizer {
  protected readonly slots = ['first', 'second'];

  constructor(
    weightDecay = 0,
    private readonly own: { beta1: number; beta2: number; epsilon: number } = OPTIMIZER_CONSTANTS.adamw,
  ) {
    super(weightDecay);
  }

  protected update(
    [first, second]: readonly Float32Array[],
    count: number,
    rate: number,
    gradient: Float32Array,
    parameter: Float32Array,
  ): void {
    const { beta1, beta2, epsilon } = this.own;
    const scale = rate / (1 - beta1 ** count);
    const spread = 1 / Math.sqrt(1 - beta2 ** count);
    for (let i = 0; i < gradient.length; i++) {
      const g = gradient[i]!;
      const m = beta1 * first![i]! + (1 - beta1) * g;
      const v = beta2 * second![i]! + (1 - beta2) * g * g;
      first![i] = m;
      second![i] = v;
      gradient[i] = (m / (Math.sqrt(v) * spread + epsilon)) * scale + rate * this.weightDecay * parameter[i]!;
    }
  }
}

/**
 * Evolved sign momentum (Chen et al., 2023, arXiv 2302.06675, algorithm 2): `U = rate (sign(b1 m + (1 - b1) g) +
 * weight_decay p)`, then `m <- b2 m + (1 - b2) g`. Every element moves by the rate: a third to a tenth of AdamW's.
 */
export class Lion extends Optimizer {
  protected readonly slots = ['mean'];

  constructor(
    weightDecay = 0,
    private readonly own: { beta1: number; beta2: number } = OPTIMIZER_CONSTANTS.lion,
  ) {
    super(weightDecay);
  }

  protected update(
    [mean]: readonly Float32Array[],
    _count: number,
    rate: number,
    gradient: Float32Array,
    parameter: Float32Array,
  ): void {
    const { beta1, beta2 } = this.own;
    const decay = this.weightDecay;
    for (let i = 0; i < gradient.length; i++) {
      const g = gradient[i]!;
      const m = mean![i]!;
      const direction = Math.sign(beta1 * m + (1 - beta1) * g);
      mean![i] = beta2 * m + (1 - beta2) * g;
      gradient[i] = rate * (direction + (decay ? decay * parameter[i]! : 0));
    }
  }
}

type Own = Pick<TrainingConfig, 'momentum' | 'weightDecay'>;

/** Every choice of the setting `optimizer`. */
const OPTIMIZERS: { readonly [Name in TrainingConfig['optimizer']]: (settings: Own) => Optimizer } = {
  sgd: ({ momentum, weightDecay }) => new SGD(momentum, weightDecay),
  adamw: ({ weightDecay }) => new AdamW(weightDecay),
  lion: ({ weightDecay }) => new Lion(weightDecay),
};

/** The optimizer that a run's settings ask for. */
export function optimizerOf(settings: Own & Pick<TrainingConfig, 'optimizer'>): Optimizer {
  return OPTIMIZERS[settings.optimizer](settings);
}

/**
 * Factor of the learning rate at `step` (from 0) of `total`: linear over `warmup` steps, then half a cosine to 0
 * (Loshchilov & Hutter, arXiv 1608.03983).
 */
export function cosine(step: number, total: number, warmup = 0): number {
  if (step < warmup) return (step + 1) / warmup;
  if (step >= total) return 0;
  return 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / (total - warmup)));
}

/** Over how many steps the learning rate rises, of `perEpoch` in an epoch. */
export function warmUpSteps(perEpoch: number): number {
  return Math.min(Math.floor(perEpoch / 2), WARM_UP.mostSteps);
}
