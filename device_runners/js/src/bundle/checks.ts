/**
 * What a bundle from outside must fulfil before anything in it is used: it is data, and it may be hostile.
 *
 * What the manifest says about a file is compared with the file; the manifest itself is held against its schema
 * (`manifest.ts`) and its parts against each other (`manifestChecks.ts`).
 */

import { LIMITS } from '../contract/thresholds.js';
import { BundleError, reasonOf } from '../errors.js';
import { sha256OfMany } from '../formats/bytes.js';
import { allFinite } from '../formats/finite.js';
import { byCodePoint } from '../formats/json.js';
import { readHeader } from '../formats/safetensors.js';
import { quoted } from '../formats/schema.js';
import type { Tensors } from '../formats/tensors.js';
import { STATISTICS } from '../method/heads.js';
import { FAMILIARITY, QUANTILES } from '../method/unknown.js';
import { interfaceOf, misfit } from './graphInterface.js';
import { type Manifest, widthOf } from './manifest.js';
import { readOnnx } from './onnxFile.js';

const AGAIN = 'Copy the bundle again.';

/** Throw BundleError unless a file is what the manifest says, and safe to open. */
export async function checkFile(
  manifest: Manifest,
  name: string,
  content: Uint8Array,
  where: string,
): Promise<void> {
  const entry = manifest.files[name]!;
  if (content.length !== entry.size || (await sha256OfMany(content)) !== entry.sha256) {
    throw new BundleError(
      `${where} is not the file that was built: its content differs from the manifest's sha256. ${AGAIN}`,
    );
  }
  try {
    if (name.endsWith('.onnx')) checkGraph(content, manifest, name);
    else if (name.endsWith('.safetensors')) readHeader(content);
  } catch (error) {
    throw new BundleError(
      `${where} is damaged or hostile: ${reasonOf(error)}. Do not use this bundle; build it again.`,
    );
  }
}

function checkGraph(content: Uint8Array, manifest: Manifest, name: string): void {
  const found = readOnnx(content);
  if (found.functions) throw new Error(`it defines ${found.functions} functions of its own`);
  const [branching] = [...found.branching].sort(byCodePoint);
  if (branching !== undefined) {
    throw new Error(`it has op ${quoted(branching)}, which runs a graph of its own`);
  }
  if (found.numbers > LIMITS.tensorNumbers) {
    throw new Error(`its tensors claim more than ${LIMITS.tensorNumbers} numbers together`);
  }
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
  const ends = interfaceOf(manifest, name);
  const problem =
    ends && (misfit(ends.inputs, found.inputs, 'input') ?? misfit(ends.outputs, found.outputs, 'output'));
  if (problem !== undefined) throw new Error(problem);
}

/** The class statistics, which are there as a whole or not at all. */
function wantedStatistics(tensors: Tensors, features: number): [string, number[]][] {
  if (!STATISTICS.some((name) => tensors.has(`statistics.${name}`))) return [];
  // Earlier bundles have sums in place of means.
  const [square, rows] = tensors.has('statistics.sums') ? ['gram', 'sums'] : ['scatter', 'means'];
  const classes = tensors.get('statistics.counts')?.shape[0] ?? 0;
  return [
    ['statistics.classes', [tensors.get('statistics.classes')?.shape[0] ?? 0]],
    ['statistics.counts', [classes]],
    [`statistics.${rows}`, [classes, features]],
    // Of no class yet, it takes no room.
    ...(classes ? [[`statistics.${square}`, [features, features]] as [string, number[]]] : []),
  ];
}

/** The sketch of known images, which is there as a whole or not at all. */
function wantedFamiliarity(tensors: Tensors): [string, number[]][] {
  if (!FAMILIARITY.some((name) => tensors.has(`familiarity.${name}`))) return [];
  const rowsOf = (name: string): number => tensors.get(`familiarity.${name}`)?.shape[0] ?? 0;
  const rows = Math.max(rowsOf('margins'), rowsOf('oddness'));
  return [
    ['familiarity.classes', [rowsOf('classes')]],
    ['familiarity.margins', [rows, QUANTILES]],
    ['familiarity.oddness', [rows, QUANTILES]],
  ];
}

/** Throw BundleError unless the checkpoint has the tensors that the manifest's sites and head ask for. */
export function checkCheckpoint(manifest: Manifest, tensors: Tensors, where: string): void {
  const { features } = manifest.head;
  const classes = manifest.classes.length;
  const wanted: [string, number[]][] = [
    ['head/base/weight', [classes, features]],
    ['head/base/bias', [classes]],
  ];
  wanted.push(...wantedStatistics(tensors, features), ...wantedFamiliarity(tensors));
  for (const site of manifest.sites) {
    const width = widthOf(site);
    wanted.push([`center/${site.name}`, [site.shape[0]!, width]]);
    wanted.push([`moment/${site.name}`, [site.groups, width, width]]);
  }
  checkTensors(wanted, tensors, where);
}

/** Throw BundleError unless mean and deviation of the manifest's channels are there, and finite. */
export function checkChannels({ domain_channels }: Manifest, tensors: Tensors, where: string): void {
  checkTensors(
    ['mean', 'deviation'].map((name) => [name, [domain_channels]]),
    tensors,
    where,
  );
}

function checkTensors(wanted: readonly [string, number[]][], tensors: Tensors, where: string): void {
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
    if (real && !allFinite(data)) {
      throw new BundleError(`${where}: tensor '${name}' holds numbers that are not finite. ${AGAIN}`);
    }
  }
}
