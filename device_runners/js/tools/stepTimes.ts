/** How long a training step takes, and how much of it is outside ONNX Runtime. */

import { Bundle } from '../src/bundle/bundle.js';
import { widthOf } from '../src/bundle/manifest.js';
import type { BundleSource } from '../src/bundle/source.js';
import { trainingConfig } from '../src/config.js';
import { inRightPrecision } from '../src/device/int8Sums.js';
import { float32, sizeOf, type Tensors } from '../src/formats/tensors.js';
import { TaskTraining } from '../src/learning/training.js';
import { timesTransposed } from '../src/method/matrix.js';
import { Random } from '../src/method/random.js';
import type { Batch } from '../src/network/features.js';
import type { Runtime, RuntimeSession } from '../src/runtime/sessions.js';

/** One step, in milliseconds; `outside` is projection, optimizer and everything else in JavaScript. */
export interface StepTime {
  readonly step: number;
  readonly outside: number;
}

const CLASSES = 10;
// Milliseconds of steps in which the engine compiles.
const WARM_UP = 3000;

/** Training steps on random images, channels selected as for a task, on one thread. */
export class TimedSteps {
  private done = 0;

  private constructor(
    private readonly training: TaskTraining,
    private readonly batches: readonly Batch[],
    private readonly inside: { ms: number },
    private readonly now: () => number,
  ) {}

  /** Ready to be timed by the clock `now`, in ms, and compiled. */
  static async open(source: BundleSource, runtime: Runtime, now: () => number): Promise<TimedSteps> {
    const inside = { ms: 0 };
    const opening = { runtime: timed(runtime, inside, now), settings: { threads: 1 } };
    const { bundle } = await inRightPrecision(await Bundle.open(source), opening);
    const names = Array.from({ length: CLASSES }, (_, i) => `class ${i}`);
    const config = trainingConfig({ threads: 1, sensitivityBatches: 2 });
    const training = new TaskTraining(bundle, withOldKnowledge(bundle), names, config, opening);
    const batches = [0, 1, 2, 3].map((seed) => randomBatch(bundle, seed));
    await training.warmUp(() => batches);
    const steps = new TimedSteps(training, batches, inside, now);
    for (const begun = now(); now() - begun < WARM_UP; ) await steps.run(1);
    return steps;
  }

  async run(count: number): Promise<StepTime[]> {
    const times: StepTime[] = [];
    while (times.length < count) {
      this.inside.ms = 0;
      const begun = this.now();
      await this.training.step(this.batches[this.done++ % this.batches.length]!, 0.001);
      const step = this.now() - begun;
      times.push({ step, outside: step - this.inside.ms });
    }
    return times;
  }

  async close(): Promise<void> {
    await this.training.close();
  }
}

/** The checkpoint as if much had been learned: about half of the selected directions are protected, the most work. */
function withOldKnowledge(bundle: Bundle): Tensors {
  const tensors = new Map(bundle.checkpoint);
  const random = new Random(0);
  for (const site of bundle.manifest.sites) {
    const { name, groups } = site;
    const size = widthOf(site);
    const moment = float32([groups, size, size]);
    for (let group = 0; group < groups; group++) {
      const root = Float64Array.from({ length: size * size }, () => normal(random));
      moment.data.set(timesTransposed(root, root, size, size, size), group * size * size);
    }
    tensors.set(`moment/${name}`, moment);
  }
  return tensors;
}

function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

function randomBatch(bundle: Bundle, seed: number): Batch {
  const { input, batch_size: count } = bundle.manifest;
  const random = new Random(seed);
  const images = Float32Array.from({ length: count * sizeOf([input.channels, ...input.size]) }, () =>
    normal(random),
  );
  return { images, labels: Int32Array.from({ length: count }, (_, i) => (i + seed * count) % CLASSES) };
}

/** The runtime, with the time spent in `run` added up. */
function timed(runtime: Runtime, inside: { ms: number }, now: () => number): Runtime {
  const wrapped = (session: RuntimeSession): RuntimeSession => ({
    run: async (feeds, fetches) => {
      const begun = now();
      try {
        return await session.run(feeds, fetches);
      } finally {
        inside.ms += now() - begun;
      }
    },
    release: () => session.release(),
  });
  return {
    Tensor: runtime.Tensor,
    InferenceSession: {
      create: async (model, options) => wrapped(await runtime.InferenceSession.create(model, options)),
    },
  };
}
