/** The bundle's manifest: what is in it, and how to drive its graphs. Names are those of docs/bundle.md. */

import { sha256 } from '../bytes.js';
import { BundleError } from '../errors.js';
import { isObject, type Json, parseJson, plain } from '../json.js';
import {
  each,
  fieldsOf,
  integer,
  mistyped,
  nullable,
  number,
  optional,
  record,
  text,
  truth,
} from './typed.js';

export const SCHEMA_VERSION = 2;
const UNSEALED = '0'.repeat(64);

export const TRAINING_MODEL = 'training_model.onnx';
export const EVAL_MODEL = 'eval_model.onnx';
export const MEMORY_MODEL = 'memory_model.onnx';
export const EXPORT_TEMPLATE = 'export_template.onnx';
export const WEIGHTS = 'weights.safetensors';
export const CHECKPOINT = 'checkpoint.safetensors';
export const MANIFEST = 'manifest.json';
export const PORTABLE = 'portable';
export const CROSS_ENTROPY = 'cross-entropy';
export const EXACT = 'exact';
export const INT8 = 'int8';

/**
 * One convolution whose kernel center is trainable. `delta` and `indices` are inputs of the graphs, `gradient` is an
 * output of the training model, `moment` of the memory model; `shape` is `[c_out, c_in / groups, ...kernel]`.
 */
export interface Site {
  readonly name: string;
  readonly node: string;
  readonly weight: string;
  readonly shape: readonly number[];
  readonly groups: number;
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly pads: readonly number[];
  readonly input_size: readonly number[];
  readonly output_size: readonly number[];
  readonly delta: string;
  readonly indices: string;
  readonly gradient: string;
  readonly moment: string;
}

/** Number of output channels that one input channel feeds: `c_out / groups`. */
export function rowsOf(site: Site): number {
  return site.shape[0]! / site.groups;
}

/** Number of input channels, `c_in`. */
export function channelsOf(site: Site): number {
  return site.shape[1]! * site.groups;
}

/** Where the center lies in a kernel of this size: `kh // 2, kw // 2`, row-major. */
export function centerOf(kernel: readonly number[]): number {
  return kernel.reduce((place, size) => place * size + Math.floor(size / 2), 0);
}

/** The linear classifier `logits = features @ weight.T + bias`, given as graph inputs. */
export interface Head {
  readonly features: number;
  readonly weight: string;
  readonly bias: string;
  readonly weight_gradient: string;
  readonly bias_gradient: string;
}

/** The file of a graph in float32, in a bundle whose `precision` is int8. */
export function exactTwin(name: string): string {
  return `exact_${name}`;
}

/** The input of every graph: float32 `(n, channels, ...size)`. */
export interface InputSpec {
  readonly name: string;
  readonly channels: number;
  /** `[height, width]` of a picture, or `[length]` of a signal. */
  readonly size: readonly number[];
}

/** `(x * scale - mean) / std` after resizing. */
export interface PreprocessingSpec {
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly scale: number;
  readonly resize: string;
  readonly sample_rate: number | null;
}

export interface FileEntry {
  readonly sha256: string;
  readonly size: number;
}

/** What a device must know about a bundle before it opens a graph. Fields that this runner has no use for are left out. */
export interface Manifest {
  readonly schema_version: number;
  readonly producer: string;
  readonly model: string;
  readonly classes: readonly string[];
  readonly loss: string;
  readonly input: InputSpec;
  readonly preprocessing: PreprocessingSpec;
  readonly head: Head;
  readonly sites: readonly Site[];
  readonly base_protected: boolean;
  readonly channel_ratio: number;
  readonly batch_size: number;
  /** FLOPs and bytes per image, by name: docs/bundle.md. */
  readonly costs: Readonly<Record<string, number>>;
  readonly flip: boolean;
  readonly precision: string;
  /** What the bundle has graphs for; empty where it is `precision` alone. */
  readonly precisions: readonly string[];
  readonly backends: readonly string[];
  readonly op_domains: readonly string[];
  readonly kernels: Readonly<Record<string, readonly string[]>>;
  readonly weights_in_export: readonly string[];
  readonly files: Readonly<Record<string, FileEntry>>;
}

const SITE = fieldsOf(
  {
    name: text,
    node: text,
    weight: text,
    shape: each(integer),
    groups: integer,
    stride: each(integer),
    dilation: each(integer),
    pads: each(integer),
    input_size: each(integer),
    output_size: each(integer),
    delta: text,
    indices: text,
    gradient: text,
    moment: text,
  },
  'closed',
);
const HEAD = fieldsOf(
  {
    features: integer,
    weight: optional(text),
    bias: optional(text),
    weight_gradient: optional(text),
    bias_gradient: optional(text),
    source_weight: optional(text),
    source_bias: optional(text),
  },
  'closed',
);
const PREPROCESSING = fieldsOf(
  {
    mean: each(number),
    std: each(number),
    scale: optional(number),
    resize: optional(text),
    sample_rate: optional(nullable(integer)),
  },
  'closed',
);
const FIELDS = fieldsOf(
  {
    schema_version: integer,
    producer: optional(text),
    model: text,
    classes: each(text),
    loss: optional(text),
    input: fieldsOf({ name: text, channels: integer, size: each(integer) }, 'closed'),
    preprocessing: PREPROCESSING,
    head: HEAD,
    sites: each(SITE),
    base_protected: truth,
    channel_ratio: number,
    batch_size: integer,
    costs: optional(record(number)),
    flip: optional(truth),
    precision: optional(text),
    precisions: optional(each(text)),
    backends: optional(each(text)),
    op_domains: optional(each(text)),
    kernels: record(each(text)),
    weights_in_export: optional(each(text)),
    files: record(fieldsOf({ sha256: text, size: integer }, 'closed')),
  },
  'open',
);

/**
 * Parse; `where` names the file in errors.
 * Throws BundleError when it is no JSON, of a newer schema, changed after it was built, or lacks a field.
 */
export function parseManifest(content: string, where: string): Manifest {
  let raw: Json;
  try {
    raw = parseJson(content);
  } catch (error) {
    throw new BundleError(
      `${where} is not valid JSON (${(error as Error).message}); build the bundle again.`,
    );
  }
  const values = isObject(raw) ? (plain(raw) as Record<string, unknown>) : {};
  const { seal, schema_version: version } = values;
  if (!Number.isInteger(version)) {
    throw new BundleError(`${where} has no schema_version; it is not a csk-sdk bundle.`);
  }
  if ((version as number) > SCHEMA_VERSION) {
    throw new BundleError(
      `${where} has schema ${version}, and this csk-sdk reads up to ${SCHEMA_VERSION}: ` +
        'update csk-sdk on this device, or build the bundle with an older one.',
    );
  }
  if (typeof seal !== 'string' || !seal || sha256(content.replaceAll(seal, UNSEALED)) !== seal) {
    throw new BundleError(
      `${where} was changed after it was built: its seal does not match. Copy the bundle again.`,
    );
  }
  const modern = { ...values, input: inputOf(values.input) };
  const wrong = mistyped(modern, FIELDS);
  if (wrong !== undefined) {
    throw new BundleError(`${where} lacks, misnames or mistypes '${wrong}'; build the bundle again.`);
  }
  return withDefaults(modern as unknown as Manifest);
}

/** Schema 1 knew pictures only, and wrote `height` and `width` for `size`. */
function inputOf(raw: unknown): unknown {
  if (typeof raw !== 'object' || raw === null || !('height' in raw)) return raw;
  const { height, width, ...rest } = raw as Record<string, unknown>;
  return { ...rest, size: [height, width] };
}

function withDefaults(found: Manifest): Manifest {
  const head = {
    weight: 'head.weight',
    bias: 'head.bias',
    weight_gradient: 'head.weight.gradient',
    bias_gradient: 'head.bias.gradient',
  };
  const preprocessing = { scale: 1 / 255, resize: 'bilinear', sample_rate: null };
  return {
    ...{ producer: '', loss: CROSS_ENTROPY, flip: true, precision: EXACT, backends: [PORTABLE] },
    ...{ op_domains: ['ai.onnx'], weights_in_export: [], costs: {}, precisions: [] },
    ...found,
    head: { ...head, ...found.head },
    preprocessing: { ...preprocessing, ...found.preprocessing },
  };
}
