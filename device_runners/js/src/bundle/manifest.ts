/** The bundle's manifest: what is in it, and how to drive its graphs. Names are those of docs/bundle.md. */

import { MANIFEST_SCHEMA } from '../contract/manifestSchema.js';
import { BundleError } from '../errors.js';
import { sha256 } from '../formats/bytes.js';
import { isObject, type Json, plain } from '../formats/json.js';
import { isInteger, parseShallow, violation } from '../formats/schema.js';
import { sizeOf } from '../formats/tensors.js';

export const SCHEMA_VERSION = 3;
/** What tasks train that do not leave the backbone as it is, as the setting `train` says it. */
export type Trained = 'centers' | 'kernels';
const UNSEALED = '0'.repeat(64);

export const TRAINING_MODEL = 'training_model.onnx';
export const EVAL_MODEL = 'eval_model.onnx';
export const MEMORY_MODEL = 'memory_model.onnx';
// The network cut in front of its first site: up to there, and the training and memory model from there on.
export const PREFIX_MODEL = 'prefix_model.onnx';
export const TRAINING_SUFFIX = 'training_suffix.onnx';
export const MEMORY_SUFFIX = 'memory_suffix.onnx';
// What a domain's images are seen through, and what is measured of them; how base images are.
export const DOMAIN_MODEL = 'domain_model.onnx';
export const DOMAIN_STATISTICS = 'domain_statistics.onnx';
export const DOMAIN_CHANNELS = 'domain_channels.safetensors';
export const EXPORT_TEMPLATE = 'export_template.onnx';
export const QUANTISED_TEMPLATE = 'export_template_int8.onnx';
export const WEIGHTS = 'weights.safetensors';
export const UPGRADE = 'upgrade.safetensors';
export const CHECKPOINT = 'checkpoint.safetensors';
export const MANIFEST = 'manifest.json';
export const PORTABLE = 'portable';
export const CROSS_ENTROPY = 'cross-entropy';
export const EXACT = 'exact';
export const INT8 = 'int8';

// Inputs and outputs of a domain's graphs, of all channels of all convolutions.
export const DOMAIN_SCALE = 'domain_scale';
export const DOMAIN_SHIFT = 'domain_shift';
export const DOMAIN_MEAN = 'domain_mean';
export const DOMAIN_DEVIATION = 'domain_deviation';
export const CHANNEL_MEAN = 'channel_mean';
export const CHANNEL_VARIANCE = 'channel_variance';

/**
 * One convolution whose kernel center is trainable, or where it is `whole`, its kernel. `delta` and `indices` are inputs of the graphs, `gradient` is an
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
  readonly whole?: boolean;
}

/** Number of output channels that one input channel feeds: `c_out / groups`. */
export function rowsOf(site: Site): number {
  return site.shape[0]! / site.groups;
}

/** How many positions of the kernel are trainable: its center, or all. */
export function tapsOf(site: Site): number {
  return site.whole ? sizeOf(site.shape.slice(2)) : 1;
}

/** What of a kernel one output channel can learn: `c_in / groups`, and of a whole kernel all its positions. */
export function widthOf(site: Site): number {
  return site.shape[1]! * tapsOf(site);
}

/** What tasks select from: the `widthOf` of all groups, one after the other. */
export function columnsOf(site: Site): number {
  return widthOf(site) * site.groups;
}

/** What tasks train on a bundle: the centers of its kernels, or kernels as a whole. */
export function trainedBy(manifest: Manifest): Trained {
  return manifest.sites.some((site) => site.whole) ? 'kernels' : 'centers';
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

/** The input of every graph: float32 `(n, channels, ...size)`. */
export interface InputSpec {
  readonly name: string;
  readonly channels: number;
  /** `[height, width]` of an image, or `[length]` of a signal. */
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

/**
 * A layer that an export in int8 holds as integers: its kernel as int8, its bias as int32. `weight` and `bias` are the names of
 * the float tensors, `bias` "" where there is none; `axis` is the kernel's axis with a scale of its own for each output, -1 for
 * one scale; no integer is larger than `largest`; `input_scale` is that of what the layer reads.
 */
export interface QuantisedLayer {
  readonly weight: string;
  readonly bias: string;
  readonly axis: number;
  readonly largest: number;
  readonly input_scale: number;
}

/** Level and contrast of the base data, in the graphs' units: mean and deviation of each channel. Probes are drawn like it. */
export interface ProbeSpec {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

export interface FileEntry {
  readonly sha256: string;
  readonly size: number;
}

/**
 * From which `bundle` (its id) to upgrade, with the map in `UPGRADE`: how many of this bundle's features are `kept`, and what
 * share of their variance the map tells of classes that it was not fitted on.
 */
export interface UpgradeSpec {
  readonly bundle: string;
  readonly kept: number;
  readonly explained: number;
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
  /** Shape of one image's features in front of the first site; empty where the bundle has no graphs cut there. */
  readonly prefix: readonly number[];
  readonly precision: string;
  /** What the bundle has graphs for; empty where it is `precision` alone. */
  readonly precisions: readonly string[];
  /** Missing for exact, and in older bundles. */
  readonly probe?: ProbeSpec | null;
  readonly backends: readonly string[];
  readonly op_domains: readonly string[];
  readonly kernels: Readonly<Record<string, readonly string[]>>;
  readonly weights_in_export: readonly string[];
  /** How new a signed bundle is. */
  readonly counter: number;
  /** The layers of the int8 export template, of a bundle that was built from a quantised model; else there are none. */
  readonly quantised: readonly QuantisedLayer[];
  /** From which bundle a device may carry over what it learned: docs/decisions/0032-upgrade.md. */
  readonly upgrade?: UpgradeSpec | null;
  /** How many channels all convolutions have together, where the bundle has graphs for domains; else 0. */
  readonly domain_channels: number;
  readonly files: Readonly<Record<string, FileEntry>>;
}

/**
 * Parse; `where` names the file in errors.
 * Throws BundleError when it is no JSON, of a newer schema, changed after it was built, or not as the schema has it.
 */
export function parseManifest(content: string, where: string): Manifest {
  let raw: Json;
  try {
    raw = parseShallow(content);
  } catch {
    throw new BundleError(`${where} is not valid JSON; build the bundle again.`);
  }
  const { seal, schema_version: version } = isObject(raw) ? raw : {};
  if (!isObject(raw) || !isInteger(version)) {
    throw new BundleError(`${where} has no schema_version; it is not a csk-sdk bundle.`);
  }
  if (version.value > SCHEMA_VERSION) {
    throw new BundleError(
      `${where} has schema ${BigInt(version.text)}, and this csk-sdk reads up to ${SCHEMA_VERSION}: ` +
        'update csk-sdk on this device, or build the bundle with an older one.',
    );
  }
  if (typeof seal !== 'string' || !seal || sha256(content.replaceAll(seal, UNSEALED)) !== seal) {
    throw new BundleError(
      `${where} was changed after it was built: its seal does not match. Copy the bundle again.`,
    );
  }
  const modern = { ...raw, input: modernInput(raw.input) };
  const wrong = violation(modern, MANIFEST_SCHEMA);
  if (wrong !== undefined) {
    throw new BundleError(`${where}: ${wrong}. Build the bundle again, or update csk-sdk on this device.`);
  }
  return withDefaults(plain(modern) as unknown as Manifest);
}

/** Schema 1 knew images only, and wrote `height` and `width` for `size`. */
function modernInput(raw: Json | undefined): Json {
  if (!isObject(raw) || !Object.hasOwn(raw, 'height')) return raw ?? null;
  const { height, width, ...rest } = raw;
  return { ...rest, size: [height!, width ?? null] };
}

/** The file of a graph in float32, in a bundle whose `precision` is int8. */
export function exactTwin(name: string): string {
  return `exact_${name}`;
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
    ...{
      op_domains: ['ai.onnx'],
      weights_in_export: [],
      quantised: [],
      costs: {},
      prefix: [],
      precisions: [],
      counter: 0,
      domain_channels: 0,
    },
    ...found,
    head: { ...head, ...found.head },
    preprocessing: { ...preprocessing, ...found.preprocessing },
  };
}
