/**
 * Which of two ways to compute a bundle's training step to take, such as WebAssembly and WebGPU: asked of both, with made-up
 * images. The other way is taken where its numbers are those of the usual one, and where it is clearly faster.
 */

import { Bundle } from '../bundle/bundle.js';
import { columnsOf, rowsOf, TRAINING_MODEL } from '../bundle/manifest.js';
import type { BundleSource } from '../bundle/source.js';
import { now } from '../engine.js';
import { reasonOf } from '../errors.js';
import { float32, int64 } from '../formats/tensors.js';
import { Random } from '../method/random.js';
import { channelCount } from '../method/selection.js';
import { imageFeed, openingOf } from '../network/feeds.js';
import type { Feed, Runtime } from '../runtime/sessions.js';
import { inRightPrecision } from './int8Sums.js';
import { madeUpImages } from './probe.js';

/** A package of ONNX Runtime, and options for its sessions, such as `{ executionProviders: ['webgpu'] }`. */
export interface Way {
  readonly name: string;
  readonly runtime: Runtime;
  readonly sessionOptions?: object;
}

export interface Choice {
  readonly way: Way;
  /** What was found, one sentence. */
  readonly because: string;
}

// Of the largest number of each output. float32 sums in another order differ by 1e-5 or so; half precision by 1e-2.
const TOLERANCE = 1e-3;
// A little faster is not worth another set of kernels.
const FASTER = 0.8;
const STEPS = 3;
const CLASSES = 2;

interface Steps {
  readonly ms: number;
  readonly outputs: Readonly<Record<string, Float32Array>>;
}

/**
 * The `other` way where it computes a step of this bundle as the `usual` one does, in at most 0.8 of its time (the median of three
 * steps behind a first one); else the usual one. Whatever the other way throws is a reason against it.
 * Throws BundleError where the usual way cannot open the bundle, or run it.
 */
export async function chooseWay(
  source: BundleSource,
  usual: Way,
  other: Way,
  clock: () => number = now,
): Promise<Choice> {
  const bundle = await Bundle.open(source);
  const known = await timed(bundle, usual, clock);
  let tried: Steps;
  try {
    tried = await timed(bundle, other, clock);
  } catch (error) {
    return { way: usual, because: `${other.name} cannot compute this bundle: ${reasonOf(error)}` };
  }
  const off = deviation(known.outputs, tried.outputs);
  const times = `${tried.ms.toFixed(1)} ms a step with ${other.name}, ${known.ms.toFixed(1)} with ${usual.name}`;
  if (!(off <= TOLERANCE)) {
    return {
      way: usual,
      because: `${other.name} computes other numbers: up to ${off.toExponential(1)} off.`,
    };
  }
  if (tried.ms > FASTER * known.ms) return { way: usual, because: `It is not faster: ${times}.` };
  return { way: other, because: `It is faster, with the same numbers: ${times}.` };
}

/** The largest difference of any output, in parts of that output's largest number; NaN where one is not finite. */
function deviation(a: Steps['outputs'], b: Steps['outputs']): number {
  const each = Object.keys(a).map((name) => {
    const [one, two] = [a[name]!, b[name]!];
    let [largest, most] = [0, 0];
    for (let i = 0; i < one.length; i++) {
      largest = Math.max(largest, Math.abs(one[i]!));
      most = Math.max(most, Math.abs(one[i]! - two[i]!));
    }
    return one.length === two.length ? most / (largest || 1) : Number.NaN;
  });
  return Math.max(...each);
}

async function timed(opened: Bundle, way: Way, clock: () => number): Promise<Steps> {
  const opening = openingOf(way, 0);
  const { bundle } = await inRightPrecision(opened, opening);
  const graph = await bundle.graph(TRAINING_MODEL, bundle.checkpoint, opening.runtime, opening.settings);
  try {
    const { feeds, names } = madeUp(bundle);
    const outputs = await graph.run(feeds, names);
    const times: number[] = [];
    while (times.length < STEPS) {
      const begun = clock();
      await graph.run(feeds, names);
      times.push(clock() - begun);
    }
    return { ms: times.sort((a, b) => a - b)[Math.floor(STEPS / 2)]!, outputs };
  } finally {
    await graph.close();
  }
}

/** A step as of a task: made-up images and head, the share of channels that a task trains, none of them moved yet. */
function madeUp(bundle: Bundle): { feeds: Record<string, Feed>; names: string[] } {
  const { batch_size: count, channel_ratio: ratio, head, sites } = bundle.manifest;
  const random = new Random(0);
  const drawn = (size: number, scale: number): Float32Array =>
    Float32Array.from({ length: size }, () => scale * random.normal());
  const images = madeUpImages(bundle.manifest, count, random);
  const feeds: Record<string, Feed> = {
    image: imageFeed(bundle, images),
    label: int64(Int32Array.from({ length: count }, (_, i) => i % CLASSES)),
    [head.weight]: float32([CLASSES, head.features], drawn(CLASSES * head.features, 0.1)),
    [head.bias]: float32([CLASSES]),
  };
  for (const site of sites) {
    const chosen = channelCount(columnsOf(site), ratio);
    feeds[site.indices] = int64(Array.from({ length: chosen }, (_, i) => i));
    feeds[site.delta] = float32([rowsOf(site), chosen]);
  }
  const gradients = sites.map((site) => site.gradient);
  return { feeds, names: ['loss', head.weight_gradient, head.bias_gradient, ...gradients] };
}
