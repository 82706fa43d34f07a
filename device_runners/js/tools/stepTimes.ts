/** How long a training step takes, and how much of it is outside ONNX Runtime. */

import { Bundle } from '../src/bundle/bundle.js';
import type { BundleSource } from '../src/bundle/source.js';
import { trainingConfig } from '../src/config.js';
import { Random } from '../src/data/random.js';
import type { Batch } from '../src/features.js';
import { timesTransposed } from '../src/method/matrix.js';
import type { Runtime, RuntimeSession } from '../src/runtime.js';
import { float32, sizeOf, type Tensors } from '../src/tensors.js';
import { TaskTraining } from '../src/training.js';

/**
 * Of the fastest step, in milliseconds, since other work on the machine only adds; `outside` is projection, optimizer and
 * everything else in JavaScript.
 */
export interface StepTimes {
  readonly step: number;
  readonly outside: number;
  readonly steps: number;
}

const CLASSES = 10;
// Steps in which the engine compiles.
const WARM_UP = 10;

/** Time training steps on random pictures, channels selected as for a task, on one thread. */
export async function timeSteps(source: BundleSource, runtime: Runtime, steps: number): Promise<StepTimes> {
  const clock = { inside: 0 };
  const bundle = await Bundle.open(source);
  const names = Array.from({ length: CLASSES }, (_, i) => `class ${i}`);
  const config = trainingConfig({ threads: 1, sensitivityBatches: 2 });
  const opening = { runtime: timed(runtime, clock), settings: { threads: 1 } };
  const training = new TaskTraining(bundle, withOldKnowledge(bundle), names, config, opening);
  const batches = [0, 1, 2, 3].map((seed) => randomBatch(bundle, seed));
  await training.warmUp(() => batches);
  let fastest: StepTimes = { step: Number.POSITIVE_INFINITY, outside: 0, steps };
  for (let i = 0; i < WARM_UP + steps; i++) {
    clock.inside = 0;
    const begun = performance.now();
    await training.step(batches[i % batches.length]!, 0.001);
    const step = performance.now() - begun;
    if (i >= WARM_UP && step < fastest.step) fastest = { step, outside: step - clock.inside, steps };
  }
  await training.close();
  return fastest;
}

/** The checkpoint as if much had been learned: about half of the selected directions are protected, the most work. */
function withOldKnowledge(bundle: Bundle): Tensors {
  const tensors = new Map(bundle.checkpoint);
  const random = new Random(0);
  for (const { name, groups, shape } of bundle.manifest.sites) {
    const size = shape[1]!;
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
function timed(runtime: Runtime, clock: { inside: number }): Runtime {
  const wrapped = (session: RuntimeSession): RuntimeSession => ({
    run: async (feeds, fetches) => {
      const begun = performance.now();
      try {
        return await session.run(feeds, fetches);
      } finally {
        clock.inside += performance.now() - begun;
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
