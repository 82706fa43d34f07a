/** How long a training step takes, and how much of it is outside ONNX Runtime. */

import { Bundle } from '../src/bundle/bundle.js';
import type { BundleSource } from '../src/bundle/source.js';
import { trainingConfig } from '../src/config.js';
import { Random } from '../src/data/random.js';
import type { Batch } from '../src/features.js';
import type { Runtime, RuntimeSession } from '../src/runtime.js';
import { sizeOf } from '../src/tensors.js';
import { TaskTraining } from '../src/training.js';

/** Medians in milliseconds; `outside` is projection, optimizer and everything else in JavaScript. */
export interface StepTimes {
  readonly step: number;
  readonly outside: number;
  readonly steps: number;
}

const CLASSES = 10;

/** Time training steps on random pictures, channels selected as for a task, on one thread. */
export async function timeSteps(source: BundleSource, runtime: Runtime, steps: number): Promise<StepTimes> {
  const clock = { inside: 0 };
  const bundle = await Bundle.open(source);
  const names = Array.from({ length: CLASSES }, (_, i) => `class ${i}`);
  const config = trainingConfig({ threads: 1, sensitivityBatches: 2 });
  const opening = { runtime: timed(runtime, clock), settings: { threads: 1 } };
  const training = new TaskTraining(bundle, bundle.checkpoint, names, config, opening);
  const batches = [0, 1, 2, 3].map((seed) => randomBatch(bundle, seed));
  await training.warmUp(() => batches);
  const whole: number[] = [];
  const outside: number[] = [];
  for (let i = 0; i < steps + 3; i++) {
    clock.inside = 0;
    const begun = performance.now();
    await training.step(batches[i % batches.length]!, 0.01);
    const took = performance.now() - begun;
    // The first steps are those in which the engine compiles.
    if (i >= 3) {
      whole.push(took);
      outside.push(took - clock.inside);
    }
  }
  await training.close();
  return { step: median(whole), outside: median(outside), steps };
}

function randomBatch(bundle: Bundle, seed: number): Batch {
  const { input, batch_size: count } = bundle.manifest;
  const random = new Random(seed);
  const normal = (): number =>
    Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
  const images = Float32Array.from({ length: count * sizeOf([input.channels, ...input.size]) }, normal);
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

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}
