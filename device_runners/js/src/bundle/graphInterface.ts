/**
 * What goes into and comes out of a bundle's graphs, as its manifest says it, held against the graphs themselves.
 *
 * The table is that of docs/bundle.md, "The graphs". The same is in `csk_sdk/bundle/graph_interface.py`.
 */

import { byCodePoint } from '../formats/json.js';
import { quoted } from '../formats/schema.js';
import {
  CHANNEL_MEAN,
  CHANNEL_VARIANCE,
  CROSS_ENTROPY,
  DOMAIN_DEVIATION,
  DOMAIN_MEAN,
  DOMAIN_MODEL,
  DOMAIN_SCALE,
  DOMAIN_SHIFT,
  DOMAIN_STATISTICS,
  EVAL_MODEL,
  exactTwin,
  type Manifest,
  MEMORY_MODEL,
  MEMORY_SUFFIX,
  PREFIX_MODEL,
  rowsOf,
  TRAINING_MODEL,
  TRAINING_SUFFIX,
  widthOf,
} from './manifest.js';
import type { End } from './onnxFile.js';

// TensorProto.DataType of onnx.proto.
const FLOAT = 1;
const UINT8 = 2;
const INT64 = 7;
const BOOL = 9;
const FLOAT16 = 10;
/** A free size: of the batch, of the classes, of a site's selected channels. */
const FREE = null;

interface Wanted {
  readonly types: readonly number[];
  readonly shape: readonly (number | null)[];
  readonly optional?: boolean;
}

type Ends = Map<string, Wanted>;
const GRAPHS = [
  ...[TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL, PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX],
  ...[DOMAIN_MODEL, DOMAIN_STATISTICS],
];

/** Inputs and outputs of the graph file `name`; undefined for a file that is no graph that is run. */
export function interfaceOf(manifest: Manifest, name: string): { inputs: Ends; outputs: Ends } | undefined {
  const plain = GRAPHS.find((one) => name === one || name === exactTwin(one));
  if (plain === undefined) return undefined;
  const { head, sites, input } = manifest;
  const one = (type: number, ...shape: (number | null)[]): Wanted => ({ types: [type], shape });
  const prefix: Wanted = { types: [FLOAT16, UINT8], shape: [FREE, ...manifest.prefix] };
  const image = one(FLOAT, FREE, input.channels, ...input.size);
  const inputs: Ends = new Map([
    ['image', [TRAINING_SUFFIX, MEMORY_SUFFIX].includes(plain) ? prefix : image],
  ]);
  if (plain === PREFIX_MODEL) return { inputs, outputs: new Map([['prefix', prefix]]) };
  const features = one(FLOAT, FREE, head.features);
  const channels = one(FLOAT, manifest.domain_channels);
  if (plain === DOMAIN_MODEL) {
    inputs.set(DOMAIN_SCALE, channels).set(DOMAIN_SHIFT, channels);
    return { inputs, outputs: new Map([['features', features]]) };
  }
  if (plain === DOMAIN_STATISTICS) {
    inputs.set(DOMAIN_MEAN, channels).set(DOMAIN_DEVIATION, channels);
    return { inputs, outputs: new Map([CHANNEL_MEAN, CHANNEL_VARIANCE].map((name) => [name, channels])) };
  }
  for (const site of sites) {
    inputs.set(site.delta, one(FLOAT, rowsOf(site), FREE)).set(site.indices, one(INT64, FREE));
  }
  const outputs: Ends = new Map();
  if (plain === MEMORY_MODEL || plain === MEMORY_SUFFIX) {
    outputs.set('features', features);
    for (const site of sites) {
      const width = widthOf(site);
      outputs.set(site.moment, one(FLOAT, site.groups, width, width));
    }
    return { inputs, outputs };
  }
  inputs.set(head.weight, features).set(head.bias, one(FLOAT, FREE));
  if (plain === EVAL_MODEL) {
    outputs.set('logits', one(FLOAT, FREE, FREE)).set('features', features);
    return { inputs, outputs };
  }
  if (manifest.loss === CROSS_ENTROPY) {
    inputs.set('label', one(INT64, FREE));
    inputs.set('label_smoothing', { ...one(FLOAT), optional: true });
    inputs.set('class_mask', { ...one(BOOL, FREE), optional: true });
  } else inputs.set('label', one(FLOAT, FREE, FREE));
  outputs.set('loss', one(FLOAT)).set('logits', one(FLOAT, FREE, FREE));
  outputs.set(head.weight_gradient, features).set(head.bias_gradient, one(FLOAT, FREE));
  for (const site of sites) outputs.set(site.gradient, one(FLOAT, rowsOf(site), FREE));
  return { inputs, outputs };
}

/**
 * How a graph's ends of one `kind` ("input", "output") differ from those that are wanted; undefined where they do not.
 * A size that is free on one side fits any on the other.
 */
export function misfit(wanted: Ends, found: ReadonlyMap<string, End>, kind: string): string | undefined {
  for (const [name, want] of wanted) {
    const end = found.get(name);
    if (!end) {
      if (!want.optional) return `it has no ${kind} ${quoted(name)}`;
      continue;
    }
    const { type, shape } = end;
    const differs = (size: number | null, index: number): boolean =>
      size !== null && want.shape[index] !== null && size !== want.shape[index];
    if (!want.types.includes(type) || shape?.length !== want.shape.length || shape.some(differs)) {
      return `its ${kind} ${quoted(name)} has another type or shape than the manifest says`;
    }
  }
  const unknown = [...found.keys()].filter((name) => !wanted.has(name)).sort(byCodePoint)[0];
  return unknown === undefined
    ? undefined
    : `it has an ${kind} ${quoted(unknown)}, which nothing in the manifest names`;
}
