/** Settings of a training run, their defaults and their checks. */

import type { Manifest } from './bundle/manifest.js';
import { ConfigError } from './errors.js';
import { type Json, jsonOf } from './formats/json.js';

/**
 * How a task is learned; the defaults were chosen by measurement (docs/decisions/0004-training-defaults.md).
 *
 * `epochs` is the most that training does; it ends earlier where `seconds` are over or `flops` are spent, or where the loss
 * has not fallen by 1 % in `patience` epochs, 0 for never (docs/decisions/0022-plateau.md). `batchSize`, `channelRatio`
 * and `flip` are the bundle's own where null. `energy` is the fraction of the old data's second moment that a step must
 * not touch (0 switches the projection off). `followDrift` is whether old heads and
 * statistics follow the features; where null, they do unless `energy` is 0. Learning rates are peak values of a cosine
 * schedule. `shift` is in pixels, a 16th of the picture's shorter side where null. `threads` 0 is the runtime's default.
 * `sensitivityBatches` is how many batches channels are selected on. `classStatistics` is whether the state keeps sums
 * over the features of the task's classes.
 *
 * `labelCheck` is whether a task is refused whose labels say nothing about its pictures (docs/decisions/0015). An older
 * task may lose `maxForgetting` points of accuracy, as estimated without its pictures; what costs more gets its heads on
 * the network as it was, or is refused, as `onForgetting` says (docs/decisions/0016). `fewShot` is how many pictures a
 * class, on average, a task needs for its centers to be trained, or as many fewer as there are more epochs than 4; with
 * fewer it gets heads on the network as it is, 0 trains always (docs/decisions/0019). `checkpointSeconds` is the time
 * between progress checkpoints.
 */
export interface TrainingConfig {
  readonly epochs: number;
  readonly patience: number;
  readonly seconds: number | null;
  readonly flops: number | null;
  readonly batchSize: number | null;
  readonly channelRatio: number | null;
  readonly energy: number;
  readonly followDrift: boolean | null;
  readonly optimizer: 'sgd' | 'adamw';
  readonly learningRate: number;
  readonly headLearningRate: number;
  readonly momentum: number;
  readonly weightDecay: number;
  readonly flip: boolean | null;
  readonly shift: number | null;
  readonly seed: number;
  readonly threads: number;
  readonly sensitivityBatches: number;
  readonly classStatistics: boolean;
  readonly labelCheck: boolean;
  readonly maxForgetting: number;
  readonly onForgetting: 'heads-only' | 'refuse';
  readonly fewShot: number;
  readonly checkpointSeconds: number;
}

export const DEFAULTS: TrainingConfig = {
  epochs: 4,
  patience: 3,
  seconds: null,
  flops: null,
  batchSize: null,
  channelRatio: null,
  energy: 0.8,
  followDrift: null,
  optimizer: 'sgd',
  learningRate: 0.01,
  headLearningRate: 0.005,
  momentum: 0.9,
  weightDecay: 0,
  flip: null,
  shift: null,
  seed: 0,
  threads: 0,
  sensitivityBatches: 32,
  classStatistics: true,
  labelCheck: true,
  maxForgetting: 3,
  onForgetting: 'heads-only',
  fewShot: 30,
  checkpointSeconds: 20,
};

type Rule = readonly [holds: (value: number) => boolean, rule: string];

const whole = (least: number): Rule => [
  (x) => Number.isSafeInteger(x) && x >= least,
  `a whole number, ${least} or more`,
];
const amount: Rule = [(x) => x >= 0 && x < Number.POSITIVE_INFINITY, '0 or more, and finite'];
const budget: Rule = [(x) => x > 0 && x < Number.POSITIVE_INFINITY, 'above 0, and finite'];
const NUMBERS: Partial<Record<keyof TrainingConfig, Rule>> = {
  epochs: whole(1),
  patience: whole(0),
  seconds: budget,
  flops: budget,
  batchSize: whole(1),
  channelRatio: [(x) => x > 0 && x <= 1, 'above 0 and at most 1'],
  energy: [(x) => x >= 0 && x <= 1, 'between 0 and 1'],
  learningRate: amount,
  headLearningRate: amount,
  weightDecay: amount,
  momentum: [(x) => x >= 0 && x < 1, 'at least 0 and below 1'],
  shift: whole(0),
  seed: whole(0),
  threads: whole(0),
  sensitivityBatches: whole(1),
  maxForgetting: [(x) => x >= 0 && x <= 100, 'between 0 and 100'],
  fewShot: whole(0),
  checkpointSeconds: amount,
};
const OPTIONAL: ReadonlySet<string> = new Set([
  ...['seconds', 'flops', 'batchSize', 'channelRatio', 'followDrift', 'flip', 'shift'],
]);
const CHOICES: Partial<Record<keyof TrainingConfig, readonly string[]>> = {
  optimizer: ['sgd', 'adamw'],
  onForgetting: ['heads-only', 'refuse'],
};

/**
 * The defaults with `settings` put in. Throws ConfigError for an unknown name, a wrong type, a value out of range, or
 * label smoothing, which the Python SDK has and this runner has not.
 */
export function trainingConfig(settings: Partial<TrainingConfig> = {}): TrainingConfig {
  for (const name of Object.keys(settings)) {
    if (name === 'labelSmoothing') {
      throw new ConfigError(
        'labelSmoothing is set, and JavaScript builds of ONNX Runtime cannot override the input that it needs: ' +
          'leave it out, or learn with the Python SDK.',
      );
    }
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new ConfigError(`'${name}' is no setting. Known: ${Object.keys(DEFAULTS).join(', ')}.`);
    }
  }
  const given = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
  const config: TrainingConfig = { ...DEFAULTS, ...given };
  for (const [name, value] of Object.entries(config)) {
    const problem = problemOf(name as keyof TrainingConfig, value);
    if (problem) throw new ConfigError(`${name} is ${value}; it must be ${problem}.`);
  }
  return config;
}

function problemOf(name: keyof TrainingConfig, value: unknown): string | undefined {
  if (value === null && OPTIONAL.has(name)) return undefined;
  const rule = NUMBERS[name];
  if (rule) return typeof value === 'number' && rule[0](value) ? undefined : rule[1];
  const choices = CHOICES[name];
  if (choices) return choices.includes(value as string) ? undefined : choices.join(' or ');
  return typeof value === 'boolean' ? undefined : 'true or false';
}

/** Whether old heads and statistics are carried over to the features as they drift. */
export function followsDrift(config: TrainingConfig): boolean {
  return config.followDrift ?? config.energy > 0;
}

/** Whether to flip pictures, and by how many pixels to shift, for this bundle. */
export function augmentationOf(config: TrainingConfig, manifest: Manifest): { flip: boolean; shift: number } {
  return {
    flip: config.flip ?? manifest.flip,
    shift: config.shift ?? Math.floor(Math.min(...manifest.input.size) / 16),
  };
}

/** All settings as a state's record has them: under the names of csk_sdk/config.py. */
export function configRecord(config: TrainingConfig): { [name: string]: Json } {
  const named = Object.entries(config).map(([name, value]) => {
    return [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), jsonOf(value)] as const;
  });
  return Object.fromEntries([...named, ['label_smoothing', jsonOf(0)]]);
}
