/**
 * What a bundle from outside must fulfil before anything in it is used: it is data, and it may be hostile.
 *
 * The manifest is trusted no more than any other file: its numbers are bounded before memory is asked for, its names
 * may not lead out of the folder, and what it says about a file is compared with the file.
 */

import { sha256 } from '../bytes.js';
import { BundleError } from '../errors.js';
import { isPlain } from '../names.js';
import { readHeader } from '../safetensors.js';
import { sizeOf, type Tensors } from '../tensors.js';
import {
  CHECKPOINT,
  EVAL_MODEL,
  EXPORT_TEMPLATE,
  type Manifest,
  MEMORY_MODEL,
  PORTABLE,
  TRAINING_MODEL,
  WEIGHTS,
} from './manifest.js';
import { readOnnx, STANDARD_DOMAIN } from './onnxFile.js';

const REQUIRED = [EVAL_MODEL, MEMORY_MODEL, EXPORT_TEMPLATE, WEIGHTS, CHECKPOINT];
// Ops of these domains are part of ONNX Runtime itself; a manifest may allow no others.
const KNOWN_DOMAINS = [STANDARD_DOMAIN, 'com.microsoft'];
const AGAIN = 'Copy the bundle again.';
const MOST_PIXELS = 64 * 2 ** 20;
const LARGEST_BATCH = 2 ** 16;
const MOST_PARAMETERS = 2 ** 31;
const MOST_FEATURES = 2 ** 20;
export const LARGEST_MANIFEST = 32 * 2 ** 20;

/** Throw BundleError unless the manifest's numbers and names are possible and it lists every file that is read. */
export function checkManifest(manifest: Manifest, where: string): void {
  for (const name of Object.keys(manifest.files)) requireInside(name, where);
  checkBounds(manifest, where);
  const names = new Set<string>();
  for (const name of manifest.classes) {
    if (!isPlain(name) || names.has(name)) {
      throw new BundleError(
        `${where} has classes that cannot be told apart or written: '${name.slice(0, 40)}'. ` +
          'Build it again with --classes.',
      );
    }
    names.add(name);
  }
  const foreign = manifest.op_domains.find((domain) => !KNOWN_DOMAINS.includes(domain));
  if (foreign !== undefined) {
    throw new BundleError(
      `${where} wants ops of domain '${foreign.slice(0, 80)}', and this csk-sdk runs only ` +
        `${KNOWN_DOMAINS.join(', ')}: update csk-sdk on this device, or do not use this bundle.`,
    );
  }
  const required = manifest.backends.includes(PORTABLE) ? [TRAINING_MODEL, ...REQUIRED] : REQUIRED;
  const missing = required.find((name) => !Object.hasOwn(manifest.files, name));
  if (missing) {
    throw new BundleError(`${where} does not list ${missing}, so nobody knows what it should be. ${AGAIN}`);
  }
}

function checkBounds(manifest: Manifest, where: string): void {
  const { input, head } = manifest;
  const bounds: [string, number, number][] = [
    ['input.channels', input.channels, 2 ** 16],
    ['the number of axes of an input', input.size.length, 2],
    ['the size of an input', productOf([input.channels, ...input.size]), MOST_PIXELS],
    ['batch_size', manifest.batch_size, LARGEST_BATCH],
    ['head.features', head.features, MOST_FEATURES],
  ];
  for (const site of manifest.sites) {
    const name = site.name.slice(0, 80);
    bounds.push([`the kernel of site '${name}'`, productOf(site.shape), MOST_PARAMETERS]);
    bounds.push([`groups of site '${name}'`, site.groups, MOST_PARAMETERS]);
    if (![3, 4, 5].includes(site.shape.length) || site.shape[0]! % Math.max(site.groups, 1)) {
      throw new BundleError(
        `${where} has a kernel of shape [${site.shape.slice(0, 8)}] in ${site.groups} groups. ${AGAIN}`,
      );
    }
  }
  for (const [what, value, most] of bounds) {
    if (!(value >= 1 && value <= most)) {
      throw new BundleError(`${where}: ${what} is ${value}, and must be from 1 to ${most}. ${AGAIN}`);
    }
  }
  const shares = { channel_ratio: manifest.channel_ratio, scale: manifest.preprocessing.scale };
  for (const [what, share] of Object.entries(shares)) {
    if (!(share > 0 && share <= 1)) {
      throw new BundleError(`${where}: ${what} is ${share}, and must be above 0 and at most 1. ${AGAIN}`);
    }
  }
}

function productOf(shape: readonly number[]): number {
  return shape.every((size) => size > 0) ? sizeOf(shape) : 0;
}

function requireInside(name: string, where: string): void {
  const parts = name.split('/');
  if (!name || /[\\:\0]/.test(name) || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new BundleError(
      `${where} lists a file outside the bundle: '${name.slice(0, 200)}'. Do not use this bundle.`,
    );
  }
}

/** Throw BundleError unless a file is what the manifest says, and safe to open. */
export function checkFile(manifest: Manifest, name: string, content: Uint8Array, where: string): void {
  const entry = manifest.files[name]!;
  if (content.length !== entry.size || sha256(content) !== entry.sha256) {
    throw new BundleError(
      `${where} is not the file that was built: its content differs from the manifest's sha256. ${AGAIN}`,
    );
  }
  try {
    if (name.endsWith('.onnx')) checkGraph(content, manifest, name);
    else if (name.endsWith('.safetensors')) readHeader(content);
  } catch (error) {
    throw new BundleError(
      `${where} is damaged or hostile: ${(error as Error).message}. Do not use this bundle; build it again.`,
    );
  }
}

function checkGraph(content: Uint8Array, manifest: Manifest, name: string): void {
  const found = readOnnx(content);
  if (found.functions) throw new Error(`it defines ${found.functions} functions of its own`);
  const foreign = [...found.domains].sort().find((domain) => !manifest.op_domains.includes(domain));
  if (foreign !== undefined) {
    throw new Error(
      `it has ops of domain '${foreign.slice(0, 80)}', and its manifest allows ${manifest.op_domains.join(', ')}`,
    );
  }
  const folder = name.slice(0, name.lastIndexOf('/') + 1);
  for (const { location, offset, length } of found.external) {
    const odd = location.split('/').some((part) => part === '' || part === '.' || part === '..');
    const entry = Object.hasOwn(manifest.files, folder + location)
      ? manifest.files[folder + location]
      : undefined;
    if (!entry || odd) {
      throw new Error(`it takes data from '${location.slice(0, 200)}', which is no file of the bundle`);
    }
    if (offset + (length ?? 0) > entry.size) {
      throw new Error(`it takes data from behind the end of '${location}'`);
    }
  }
}

/** Throw BundleError unless the checkpoint has the tensors that the manifest's sites and head ask for. */
export function checkCheckpoint(manifest: Manifest, tensors: Tensors, where: string): void {
  const { features } = manifest.head;
  const classes = manifest.classes.length;
  const wanted: [string, number[]][] = [
    ['head/base/weight', [classes, features]],
    ['head/base/bias', [classes]],
  ];
  // Of no class yet, it takes no room.
  if (tensors.get('statistics.counts')?.data.length) {
    // Earlier bundles have sums in place of means.
    const square = tensors.has('statistics.sums') ? 'gram' : 'scatter';
    wanted.push([`statistics.${square}`, [features, features]]);
  }
  for (const { name, shape, groups } of manifest.sites) {
    wanted.push([`center/${name}`, [shape[0]!, shape[1]!]]);
    wanted.push([`moment/${name}`, [groups, shape[1]!, shape[1]!]]);
  }
  for (const [name, shape] of wanted) {
    const found = tensors.get(name);
    if (found?.shape.join() !== shape.join()) {
      const there = found ? `has shape [${found.shape}]` : 'is missing';
      throw new BundleError(
        `${where}: tensor '${name}' ${there}, and the manifest asks for [${shape}]. ${AGAIN}`,
      );
    }
  }
  for (const [name, { data }] of tensors) {
    const real = data instanceof Float32Array || data instanceof Float64Array;
    if (real && !data.every(Number.isFinite)) {
      throw new BundleError(`${where}: tensor '${name}' holds numbers that are not finite. ${AGAIN}`);
    }
  }
}
