/**
 * What an export in int8 appends for a layer: its kernel and bias as integers, and their scales.
 *
 * The formulas, and the numbers to the bit, are those of `csk_sdk/network/export_quantised.py`.
 */

import type { QuantisedLayer } from '../bundle/manifest.js';
import { BundleError } from '../errors.js';
import { type Float32Tensor, float32, type Int8Tensor, type Int32Tensor } from '../formats/tensors.js';
import { roundHalfToEven } from '../method/rounding.js';

// A bias is int32: its scale is kept large enough for it.
const BIAS_MAX = 2 ** 30;
const TINY = 1e-30;

export type ExportedTensor = Float32Tensor | Int8Tensor | Int32Tensor;

/** `tensors`, float32 by name, with those of `layers` as integers. */
export function quantisedTensors(
  layers: readonly QuantisedLayer[],
  tensors: ReadonlyMap<string, Float32Tensor>,
): Map<string, ExportedTensor> {
  const written = new Map<string, ExportedTensor>(tensors);
  for (const layer of layers) {
    const kernel = tensors.get(layer.weight)!;
    const bias = layer.bias ? tensors.get(layer.bias) : undefined;
    requireFit(layer, kernel, bias);
    written.delete(layer.weight);
    written.delete(layer.bias);
    const scale = scalesOf(layer, kernel, bias);
    const shape = layer.axis < 0 ? [] : [scale.length];
    written.set(`${layer.weight}_quantized`, rounded(layer, kernel, scale));
    written.set(`${layer.weight}_scale`, float32(shape, scale));
    written.set(`${layer.weight}_zero_point`, { dtype: 'int8', shape, data: new Int8Array(scale.length) });
    if (!bias) continue;
    const units = scale.map((one) => Math.fround(layer.input_scale) * one);
    const data = Int32Array.from(bias.data, (value, i) =>
      roundHalfToEven(value / units[layer.axis < 0 ? 0 : i]!),
    );
    written.set(`${layer.bias}_quantized`, { dtype: 'int32', shape: bias.shape, data });
    written.set(`${layer.bias}_quantized_scale`, float32(shape, units));
  }
  return written;
}

/** Throw BundleError for a kernel without the layer's axis, and a bias that is not for its outputs. */
function requireFit(layer: QuantisedLayer, kernel: Float32Tensor, bias?: Float32Tensor): void {
  const { axis, weight } = layer;
  const outputs = axis < 0 ? bias?.shape[0] : kernel.shape[axis];
  if (kernel.shape.length > axis && (!bias || (bias.shape.length === 1 && bias.shape[0] === outputs))) return;
  const shape = `(${kernel.shape.join(', ')}${kernel.shape.length === 1 ? ',' : ''})`;
  throw new BundleError(
    `the bundle's layer '${weight}' has a kernel ${shape} that does not fit its bias or its axis ${axis}. ` +
      'Build the bundle again.',
  );
}

/** The scale of each output, or the one of all. */
function scalesOf(layer: QuantisedLayer, kernel: Float32Tensor, bias?: Float32Tensor): Float32Array {
  const largest = new Float64Array(layer.axis < 0 ? 1 : kernel.shape[layer.axis]!);
  const output = outputOf(layer, kernel);
  kernel.data.forEach((value, i) => {
    largest[output(i)] = Math.max(largest[output(i)]!, Math.abs(value));
  });
  const scale = largest.map((value) => value / layer.largest);
  bias?.data.forEach((value, i) => {
    const place = layer.axis < 0 ? 0 : i;
    scale[place] = Math.max(scale[place]!, Math.abs(value) / (layer.input_scale * BIAS_MAX));
  });
  return Float32Array.from(scale, (value) => Math.max(value, TINY));
}

function rounded(layer: QuantisedLayer, kernel: Float32Tensor, scale: Float32Array): Int8Tensor {
  const output = outputOf(layer, kernel);
  const data = Int8Array.from(kernel.data, (value, i) => {
    const integer = roundHalfToEven(Math.fround(value / scale[output(i)]!));
    return Math.min(Math.max(integer, -layer.largest), layer.largest);
  });
  return { dtype: 'int8', shape: kernel.shape, data };
}

/** Which scale the kernel's element at a place has. */
function outputOf(layer: QuantisedLayer, kernel: Float32Tensor): (place: number) => number {
  if (layer.axis < 0) return () => 0;
  const size = kernel.shape[layer.axis]!;
  const behind = kernel.shape.slice(layer.axis + 1).reduce((product, one) => product * one, 1);
  return (place) => Math.floor(place / behind) % size;
}
