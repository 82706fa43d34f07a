/**
 * Which graphs of an int8 bundle are right here: asked of the runtime itself, with a convolution whose sum is known.
 *
 * x86 CPUs without VNNI add pairs of u8 x s8 products up in 16 bits, which saturate. ONNX Runtime has a setting against
 * it, and WebAssembly and ARM64 do not need it (docs/decisions/0010-int8.md).
 */

import { hexToBytes } from '@noble/hashes/utils.js';
import type { Bundle } from '../bundle/bundle.js';
import { EXACT, INT8, TRAINING_MODEL } from '../bundle/manifest.js';
import { BundleError } from '../errors.js';
import { float32 } from '../formats/tensors.js';
import type { Opening } from '../network/feeds.js';
import { Graph, type Runtime, type SessionSettings } from '../runtime/sessions.js';

/** How int8 sums come out: right as they are, right when wide ones are asked for, or wrong in any way. */
export type Int8Sums = 'right' | 'right when wide' | 'wrong';

// Written by tools/int8_sums.py: y is a sum of 8 products of 255 and 127, in units of 8 x 127. 16 bits do not hold two.
const PROBE = hexToBytes(
  '08083ada020a230a01780a036f6e650a047a65726f120171220e5175616e74697a654c696e6561723a000a3e0a01710a036f' +
    '6e650a047a65726f0a01770a036f6e650a066d6964646c650a04756e69740a047a65726f120373756d220b514c696e656172' +
    '436f6e763a000a270a0373756d0a036f6e650a047a65726f120179221044657175616e74697a654c696e6561723a00120473' +
    '756d732a4f080808080801080110034201774a407f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f' +
    '7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f2a0d100142036f6e654a040000803f2a' +
    '0b100242047a65726f4a01002a0d100342066d6964646c654a01002a0e10014204756e69744a0400007e445a1b0a01781216' +
    '0a14080112100a0208010a0208080a0208010a020801621b0a017912160a14080112100a0208010a0208080a0208010a0208' +
    '0142040a001011',
);
const [CHANNELS, VALUE, SUM] = [8, 255, 255];

/** Compute a sum that 16 bits do not hold, by the runtime's default and with wide sums. */
export async function int8Sums(runtime: Runtime, settings: SessionSettings): Promise<Int8Sums> {
  for (const wideSums of [false, true]) {
    if (await addsUp(runtime, { ...settings, wideSums })) return wideSums ? 'right when wide' : 'right';
  }
  return 'wrong';
}

async function addsUp(runtime: Runtime, settings: SessionSettings): Promise<boolean> {
  const graph = await ifItOpens(() => Graph.open(runtime, PROBE, 'the probe of int8 sums', settings));
  if (!graph) return false;
  try {
    const x = float32([1, CHANNELS, 1, 1], new Float32Array(CHANNELS).fill(VALUE));
    return (await graph.run({ x }, ['y'])).y.every((value) => value === SUM);
  } finally {
    await graph.close();
  }
}

/**
 * The bundle in the form that computes right here, and a sentence where that is not its own precision.
 * Throws BundleError where int8 comes out wrong here and the bundle has no exact graphs.
 */
export async function inRightPrecision(
  bundle: Bundle,
  opening: Opening,
): Promise<{ bundle: Bundle; note?: string }> {
  if (bundle.manifest.precision !== INT8) return { bundle };
  const { runtime, settings } = opening;
  const sums = await int8Sums(runtime, settings);
  if (sums === 'right') return { bundle };
  const wide = bundle.view({ wideSums: true });
  if (sums === 'right when wide' && (await opens(wide, opening))) return { bundle: wide };
  const why =
    sums === 'wrong'
      ? `ONNX Runtime adds int8 products up wrong on this CPU`
      : `this CPU's fast int8 sums saturate, and ${bundle.name} was built before its graphs could be opened with wide ones`;
  if (!bundle.precisions.includes(EXACT)) {
    throw new BundleError(
      `${bundle.name} cannot be used here: ${why}, and it has no exact graphs. Build the bundle again.`,
    );
  }
  const advice = sums === 'wrong' ? '' : ' Build the bundle again to have int8 here.';
  const note = `The exact graphs are used instead of int8: ${why}.${advice}`;
  return { bundle: bundle.view({ precision: EXACT }), note };
}

/** Whether the runtime opens the training graph; older builders let two convolutions share what it copies by name. */
async function opens(bundle: Bundle, { runtime, settings }: Opening): Promise<boolean> {
  // That it does not is expected, and no error to log.
  const quiet = { ...settings, options: { ...settings.options, logSeverityLevel: 4 } };
  const graph = await ifItOpens(() => bundle.graph(TRAINING_MODEL, bundle.checkpoint, runtime, quiet));
  await graph?.close();
  return graph !== undefined;
}

async function ifItOpens(open: () => Promise<Graph>): Promise<Graph | undefined> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof BundleError) return undefined;
    throw error;
  }
}
