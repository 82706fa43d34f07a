/**
 * What a manifest must fulfil beyond its schema: numbers that fit each other, names that are not used twice.
 *
 * Its types and bounds are in the contract's schema. The same checks, in the same order and words, are in
 * `csk_sdk/bundle/manifest_checks.py`; `tests/contract/manifests.json` holds both to one answer.
 */

import { LIMITS } from '../contract/thresholds.js';
import { BundleError } from '../errors.js';
import { byCodePoint } from '../formats/json.js';
import { isPlain } from '../formats/names.js';
import { quoted } from '../formats/schema.js';
import { plural } from '../formats/sentences.js';
import {
  CHANNEL_MEAN,
  CHANNEL_VARIANCE,
  CHECKPOINT,
  DOMAIN_CHANNELS,
  DOMAIN_DEVIATION,
  DOMAIN_MEAN,
  DOMAIN_MODEL,
  DOMAIN_SCALE,
  DOMAIN_SHIFT,
  DOMAIN_STATISTICS,
  EVAL_MODEL,
  EXPORT_TEMPLATE,
  exactTwin,
  type Manifest,
  MEMORY_MODEL,
  MEMORY_SUFFIX,
  PORTABLE,
  PREFIX_MODEL,
  QUANTISED_TEMPLATE,
  type Site,
  TRAINING_MODEL,
  TRAINING_SUFFIX,
  WEIGHTS,
} from './manifest.js';

/** Throw BundleError unless the manifest's parts fit each other and it lists every file that is read. */
export function checkManifest(manifest: Manifest, where: string): void {
  for (const problem of problems(manifest)) throw new BundleError(`${where}: ${problem}`);
}

/** What is wrong with a manifest that fulfils its schema, and what to do, a sentence each. */
export function* problems(manifest: Manifest): Generator<string> {
  for (const name of Object.keys(manifest.files).sort(byCodePoint)) {
    if (!isInside(name)) {
      yield `it lists a file outside the bundle: ${quoted(name)}. Do not use this bundle.`;
    }
  }
  const again = 'Build the bundle again.';
  for (const problem of sizes(manifest)) yield `${problem}. ${again}`;
  for (const problem of classes(manifest)) yield `${problem}. Build it again with --classes.`;
  for (const problem of names(manifest)) yield `${problem}. ${again}`;
  for (const name of requiredFiles(manifest)) {
    if (!Object.hasOwn(manifest.files, name)) {
      yield `it does not list ${name}, so nobody knows what it should be. Copy the bundle again.`;
    }
  }
  for (const problem of kernels(manifest)) yield `${problem}. ${again}`;
  for (const problem of quantised(manifest)) yield `${problem}. ${again}`;
}

/** Whether this is the name of a file in the bundle's folder, written in the one way that there is. */
function isInside(name: string): boolean {
  return !/[\\:\0]/.test(name) && !name.split('/').some((part) => ['', '.', '..'].includes(part));
}

/** The graphs that a device opens of a bundle with this manifest. */
function graphFiles(manifest: Manifest): string[] {
  const graphs = [
    ...(manifest.backends.includes(PORTABLE) ? [TRAINING_MODEL] : []),
    ...[EVAL_MODEL, MEMORY_MODEL],
    ...(manifest.prefix.length ? [PREFIX_MODEL, TRAINING_SUFFIX, MEMORY_SUFFIX] : []),
  ];
  const twins = manifest.precisions.some((precision) => precision !== manifest.precision);
  const domains = manifest.domain_channels ? [DOMAIN_MODEL, DOMAIN_STATISTICS] : [];
  return [...graphs, ...(twins ? graphs.map(exactTwin) : []), ...domains];
}

function requiredFiles(manifest: Manifest): string[] {
  const templates = [EXPORT_TEMPLATE, ...(manifest.quantised.length ? [QUANTISED_TEMPLATE] : [])];
  const domains = manifest.domain_channels ? [DOMAIN_CHANNELS] : [];
  return [...graphFiles(manifest), ...templates, WEIGHTS, CHECKPOINT, ...domains];
}

function* sizes(manifest: Manifest): Generator<string> {
  const { input, preprocessing, precisions, precision } = manifest;
  if (product([input.channels, ...input.size]) > LIMITS.inputNumbers) {
    yield `input.channels and input.size are more than ${LIMITS.inputNumbers} numbers`;
  }
  if (product(manifest.prefix) > LIMITS.inputNumbers) {
    yield `prefix is a shape of more than ${LIMITS.inputNumbers} numbers`;
  }
  for (const [where, spec] of Object.entries({ preprocessing, probe: manifest.probe })) {
    for (const name of ['mean', 'std'] as const) {
      if (spec && spec[name].length !== input.channels) {
        yield `${where}.${name} must have ${plural(input.channels, 'entry', 'entries')}, one for each channel`;
      }
    }
  }
  const signals = input.size.length === 1;
  if (preprocessing.resize === (signals ? 'bilinear' : 'crop')) {
    yield `preprocessing.resize is "${preprocessing.resize}", which is for ${signals ? 'images' : 'signals'}`;
  }
  if (precisions.length && precisions[0] !== precision) yield 'precisions must begin with precision';
  for (const [index, site] of manifest.sites.entries()) yield* ofSite(site, `sites[${index}]`);
}

function* ofSite(site: Site, where: string): Generator<string> {
  const axes = site.shape.length - 2;
  const lists = { stride: axes, dilation: axes, pads: 2 * axes, input_size: axes, output_size: axes };
  for (const [name, count] of Object.entries(lists)) {
    if (site[name as keyof typeof lists].length !== count) {
      yield `${where}.${name} must have ${plural(count, 'entry', 'entries')}, as its kernel has ${plural(axes, 'axis', 'axes')}`;
    }
  }
  if (product(site.shape) > LIMITS.kernelNumbers) {
    yield `${where}.shape is a kernel of more than ${LIMITS.kernelNumbers} numbers`;
  }
  if (site.shape[0]! % site.groups) {
    yield `${where}.groups is ${site.groups}, and must divide its ${site.shape[0]} output channels`;
  }
}

function* classes(manifest: Manifest): Generator<string> {
  const seen = new Set<string>();
  for (const name of manifest.classes) {
    if (!isPlain(name)) yield `a class is called ${quoted(name)}, which is no plain text`;
    if (seen.has(name)) yield `two classes are called ${quoted(name)}`;
    seen.add(name);
  }
}

const OF_DOMAINS = [
  ...[DOMAIN_SCALE, DOMAIN_SHIFT, DOMAIN_MEAN, DOMAIN_DEVIATION],
  ...[CHANNEL_MEAN, CHANNEL_VARIANCE],
];

/** Sites, their kernels, and what goes into and comes out of the graphs: nothing may take another's place. */
function* names({ head, sites, domain_channels }: Manifest): Generator<string> {
  const ends = [
    ...['image', 'label', 'label_smoothing', 'class_mask', 'loss', 'logits', 'features', 'prefix'],
    ...(domain_channels ? OF_DOMAINS : []),
    ...[head.weight, head.bias, head.weight_gradient, head.bias_gradient],
    ...sites.flatMap((site) => [site.delta, site.indices, site.gradient, site.moment]),
  ];
  const kinds = {
    sites: sites.map((site) => site.name),
    "sites' kernels": sites.map((site) => site.weight),
    'inputs or outputs of the graphs': ends,
  };
  for (const [what, used] of Object.entries(kinds)) {
    const seen = new Set<string>();
    for (const name of used) {
      if (seen.has(name)) yield `two ${what} are called ${quoted(name)}`;
      seen.add(name);
    }
  }
}

/** What an export in int8 rounds is there, and once. */
function* quantised({ quantised: layers, weights_in_export, sites, head }: Manifest): Generator<string> {
  const there = new Set([...weights_in_export, ...sites.map((site) => site.weight), head.weight, head.bias]);
  for (const [index, layer] of layers.entries()) {
    for (const name of [layer.weight, ...(layer.bias ? [layer.bias] : [])]) {
      if (!there.delete(name)) {
        yield `quantised[${index}] has ${quoted(name)}, which is no tensor of an export, or another layer's`;
      }
    }
  }
}

function* kernels(manifest: Manifest): Generator<string> {
  const weights = new Set(manifest.sites.map((site) => site.weight));
  for (const name of [...graphFiles(manifest), EXPORT_TEMPLATE]) {
    const read = Object.hasOwn(manifest.kernels, name) ? manifest.kernels[name] : undefined;
    if (!read) yield `kernels[${quoted(name)}] is missing`;
    for (const weight of read ?? []) {
      if (!weights.has(weight)) {
        yield `kernels[${quoted(name)}] has ${quoted(weight)}, which is no site's weight`;
      }
    }
  }
}

function product(shape: readonly number[]): number {
  return shape.reduce((found, size) => found * size, 1);
}
