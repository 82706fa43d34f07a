/** Generated from csk_sdk/contract/settings.json: change it there, and run `make contract`. */

/** How a task is learned: every setting. docs/settings.md has them as a table. */
export interface TrainingConfig {
  /** Passes over the task's data, at most. A whole number, 1 or more. */
  readonly epochs: number;
  /** Stop when the loss has not fallen by 1 % in so many epochs; 0 never does. A whole number, 0 or more. */
  readonly patience: number;
  /** Stop after so many seconds, and keep what was learned. Above 0, and finite, in seconds. Null: no limit. */
  readonly seconds: number | null;
  /** Stop after so many floating-point operations, such as 2e12. Above 0, and finite, in FLOPs. Null: no limit. */
  readonly flops: number | null;
  /** Images or signals per step. A whole number, 1 or more, in images. Null: the bundle's own. */
  readonly batchSize: number | null;
  /** Share of each site's channels to train. Above 0 and at most 1. Null: the bundle's own. */
  readonly channelRatio: number | null;
  /** Share of the old data's variance that is protected: the retained-variance threshold of the projection; 0 switches it off. Between 0 and 1. */
  readonly energy: number;
  /** Drift compensation: carry old heads and statistics over to the features as they move. Null: on, unless `energy` is 0. */
  readonly followDrift: boolean | null;
  /** How a gradient becomes a step: SGD with momentum, AdamW, or Lion, which has half of AdamW's memory and wants learning rates of 0.001 or less. */
  readonly optimizer: 'sgd' | 'adamw' | 'lion';
  /** Peak learning rate of the centers, or kernels; it follows a cosine. 0 or more, and finite. */
  readonly learningRate: number;
  /** Peak learning rate of the head; it follows a cosine. 0 or more, and finite. */
  readonly headLearningRate: number;
  /** Share of the last step that the next one repeats (SGD only). At least 0 and below 1. */
  readonly momentum: number;
  /** How strongly changes of the centers, and the head, are pulled towards 0. 0 or more, and finite. */
  readonly weightDecay: number;
  /** Mirror images at random; signals never are. Null: the bundle's own. */
  readonly flip: boolean | null;
  /** Move images or signals at random, by at most so many pixels or samples. A whole number, 0 or more, in pixels or samples. Null: a 16th of the image's shorter side, or of the signal's length. */
  readonly shift: number | null;
  /** Order and augmentation of the data. A whole number, 0 or more. */
  readonly seed: number;
  /** Compute threads; 0 is one per core, in JavaScript the runtime's own choice. A whole number, 0 or more. */
  readonly threads: number;
  /** On at most how many batches the channels are selected. A whole number, 1 or more. */
  readonly sensitivityBatches: number;
  /** Take steps over those images only that together send back this share of the gradient when training begins, two batches at least; 1 is all. Streams use all. Above 0 and at most 1. */
  readonly gradientShare: number;
  /** Keep sums over the features of each class; without, decisions over all classes fall back on the tasks' own heads. */
  readonly classStatistics: boolean;
  /** Refuse a task whose labels say nothing about its images. */
  readonly labelCheck: boolean;
  /** Accuracy that an older task may lose, estimated without its images. Between 0 and 100, in percentage points. */
  readonly maxForgetting: number;
  /** A task that costs more: learn its heads on the frozen backbone, or refuse it. */
  readonly onForgetting: 'heads-only' | 'refuse';
  /** With fewer images or signals a class, on average, learn heads on the frozen backbone; as many fewer as there are more epochs than the default. 0: no task has too few. A whole number, 0 or more, in images a class. */
  readonly fewShot: number;
  /** What a task trains: its heads on the frozen backbone, or the centers too, or of a bundle built for it whole kernels; auto: these where images held out in the first epoch say that it pays. Of fewer images than `fewShot`, heads. */
  readonly train: 'auto' | 'heads' | 'centers' | 'kernels';
  /** Time between progress checkpoints. 0 or more, and finite, in seconds. */
  readonly checkpointSeconds: number;
}

/** What is meant where nothing is set. */
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
  gradientShare: 0.9,
  classStatistics: true,
  labelCheck: true,
  maxForgetting: 3,
  onForgetting: 'heads-only',
  fewShot: 30,
  train: 'auto',
  checkpointSeconds: 20,
};

/** Of one setting: its name in a state's record, its type, and what a value must be. */
export interface Setting {
  readonly record: string;
  readonly type: 'integer' | 'number' | 'boolean' | 'string';
  readonly optional: boolean;
  readonly rule: string;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly exclusiveMaximum?: number;
  readonly choices?: readonly string[];
}

export const SETTINGS: { readonly [Name in keyof TrainingConfig]: Setting } = {
  epochs: {
    record: 'epochs',
    type: 'integer',
    optional: false,
    rule: 'a whole number, 1 or more',
    minimum: 1,
  },
  patience: {
    record: 'patience',
    type: 'integer',
    optional: false,
    rule: 'a whole number, 0 or more',
    minimum: 0,
  },
  seconds: {
    record: 'seconds',
    type: 'number',
    optional: true,
    rule: 'above 0, and finite',
    exclusiveMinimum: 0,
  },
  flops: {
    record: 'flops',
    type: 'number',
    optional: true,
    rule: 'above 0, and finite',
    exclusiveMinimum: 0,
  },
  batchSize: {
    record: 'batch_size',
    type: 'integer',
    optional: true,
    rule: 'a whole number, 1 or more',
    minimum: 1,
  },
  channelRatio: {
    record: 'channel_ratio',
    type: 'number',
    optional: true,
    rule: 'above 0 and at most 1',
    exclusiveMinimum: 0,
    maximum: 1,
  },
  energy: {
    record: 'energy',
    type: 'number',
    optional: false,
    rule: 'between 0 and 1',
    minimum: 0,
    maximum: 1,
  },
  followDrift: { record: 'follow_drift', type: 'boolean', optional: true, rule: 'true or false' },
  optimizer: {
    record: 'optimizer',
    type: 'string',
    optional: false,
    rule: 'sgd, adamw or lion',
    choices: ['sgd', 'adamw', 'lion'],
  },
  learningRate: {
    record: 'learning_rate',
    type: 'number',
    optional: false,
    rule: '0 or more, and finite',
    minimum: 0,
  },
  headLearningRate: {
    record: 'head_learning_rate',
    type: 'number',
    optional: false,
    rule: '0 or more, and finite',
    minimum: 0,
  },
  momentum: {
    record: 'momentum',
    type: 'number',
    optional: false,
    rule: 'at least 0 and below 1',
    minimum: 0,
    exclusiveMaximum: 1,
  },
  weightDecay: {
    record: 'weight_decay',
    type: 'number',
    optional: false,
    rule: '0 or more, and finite',
    minimum: 0,
  },
  flip: { record: 'flip', type: 'boolean', optional: true, rule: 'true or false' },
  shift: { record: 'shift', type: 'integer', optional: true, rule: 'a whole number, 0 or more', minimum: 0 },
  seed: { record: 'seed', type: 'integer', optional: false, rule: 'a whole number, 0 or more', minimum: 0 },
  threads: {
    record: 'threads',
    type: 'integer',
    optional: false,
    rule: 'a whole number, 0 or more',
    minimum: 0,
  },
  sensitivityBatches: {
    record: 'sensitivity_batches',
    type: 'integer',
    optional: false,
    rule: 'a whole number, 1 or more',
    minimum: 1,
  },
  gradientShare: {
    record: 'gradient_share',
    type: 'number',
    optional: false,
    rule: 'above 0 and at most 1',
    exclusiveMinimum: 0,
    maximum: 1,
  },
  classStatistics: { record: 'class_statistics', type: 'boolean', optional: false, rule: 'true or false' },
  labelCheck: { record: 'label_check', type: 'boolean', optional: false, rule: 'true or false' },
  maxForgetting: {
    record: 'max_forgetting',
    type: 'number',
    optional: false,
    rule: 'between 0 and 100',
    minimum: 0,
    maximum: 100,
  },
  onForgetting: {
    record: 'on_forgetting',
    type: 'string',
    optional: false,
    rule: 'heads-only or refuse',
    choices: ['heads-only', 'refuse'],
  },
  fewShot: {
    record: 'few_shot',
    type: 'integer',
    optional: false,
    rule: 'a whole number, 0 or more',
    minimum: 0,
  },
  train: {
    record: 'train',
    type: 'string',
    optional: false,
    rule: 'auto, heads, centers or kernels',
    choices: ['auto', 'heads', 'centers', 'kernels'],
  },
  checkpointSeconds: {
    record: 'checkpoint_seconds',
    type: 'number',
    optional: false,
    rule: '0 or more, and finite',
    minimum: 0,
  },
};

/** What the Python SDK has and this runner refuses: why, and its default, which a record states. */
export const REFUSED: Readonly<Record<string, { why: string; record: string; default: number }>> = {
  labelSmoothing: {
    why: 'labelSmoothing is set, and JavaScript builds of ONNX Runtime cannot override the input that it needs: leave it out, or learn with the Python SDK.',
    record: 'label_smoothing',
    default: 0,
  },
};

/** What each optimizer comes with. */
export const OPTIMIZER_CONSTANTS = {
  sgd: {},
  adamw: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
  lion: { beta1: 0.9, beta2: 0.99 },
} as const;

/** The sentence about a value that is not allowed. */
export const SENTENCE = '{name} is {value}; it must be {rule}.';
