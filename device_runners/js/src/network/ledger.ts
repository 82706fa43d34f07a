/**
 * Class statistics made anew of what each task contributed: the bundle's, and then lesson by lesson.
 *
 * Contributions are of the bundle's untouched network. Once centers have moved, what counts is a second set, `carried`: the
 * same images as the network of their lesson saw them, led back by `ledger.map`, the product of all drift maps so far
 * (method/drift.ts). So a lesson carries one matrix along, and not each known class.
 */

import type { Bundle } from '../bundle/bundle.js';
import { reasonOf, StateError } from '../errors.js';
import { concatenate, Sha256, textOf, utf8 } from '../formats/bytes.js';
import { byCodePoint } from '../formats/json.js';
import {
  bytesOf,
  type Float32Tensor,
  float32Of,
  type StoredTensor,
  type Tensors,
  type Uint8Tensor,
  uint8,
} from '../formats/tensors.js';
import { Contribution, derived, Lesson } from '../method/contributions.js';
import { ClassStatistics, jsonOfNames } from '../method/heads.js';
import { around, timesTransposed } from '../method/matrix.js';
import type { Generation, LearnedTask } from '../state/record.js';

export const MAP = 'ledger.map';
export const MAPPED = 'ledger.centers';
/** The tensors of a state that belong to the ledger. */
export const LEDGER = [MAP, MAPPED] as const;

/** Not all that is known is in the ledger, or not as the network is now. */
export class UnledgeredError extends StateError {}

/** The tensors of a contribution, by its name. */
export type ReadContribution = (name: string) => Promise<Tensors>;

/** The bytes of all centers, one after the other. */
function bytesOfCenters(tensors: Tensors): Uint8Array[] {
  const names = [...tensors.keys()].filter((one) => one.startsWith('center/')).sort(byCodePoint);
  return names.map((name) => bytesOf(tensors.get(name)!));
}

/** sha256 of all centers, `(32,)`: which network the map leads to. */
export function digestOfCenters(tensors: Tensors): Uint8Tensor {
  const digest = new Sha256();
  for (const bytes of bytesOfCenters(tensors)) digest.update(bytes);
  const pairs = digest.hex().match(/../g)!;
  return uint8(Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16)));
}

/** Whether two generations have the same centers. */
export function sameCenters(one: Tensors, other: Tensors): boolean {
  const [mine, theirs] = [one, other].map((tensors) => concatenate(bytesOfCenters(tensors)));
  return mine!.length === theirs!.length && mine!.every((byte, at) => byte === theirs![at]);
}

/** Whether nothing leads from the untouched network's features to those of `tensors`: they are the same. */
export function isUntouched(tensors: Tensors, untouched: Tensors): boolean {
  return !float32Of(tensors, MAP) && sameCenters(tensors, untouched);
}

/**
 * What leads from the untouched network's features to those of `tensors`, `(f, f)`; undefined where no center moved. Throws
 * UnledgeredError where a csk-sdk that knows no such map has trained centers.
 */
export function mapOf(tensors: Tensors, untouched: Tensors): Float64Array | undefined {
  if (isUntouched(tensors, untouched)) return undefined;
  const map = float32Of(tensors, MAP);
  if (!map || String(tensors.get(MAPPED)?.data) !== String(digestOfCenters(tensors).data)) {
    throw new UnledgeredError('a csk-sdk that keeps no contributions has trained the network');
  }
  return new Float64Array(map.data);
}

/** The tensors of a map, which leads to the centers in `tensors`. */
export function mapTensors(map: Float64Array, tensors: Tensors): [string, Float32Tensor | Uint8Tensor][] {
  const f = Math.sqrt(map.length);
  return [
    [MAP, { dtype: 'float32', shape: [f, f], data: new Float32Array(map) }],
    [MAPPED, digestOfCenters(tensors)],
  ];
}

/** Give classes other names in `tensors`; no number changes. */
export function renamedStatistics(
  tensors: Map<string, StoredTensor>,
  names: ReadonlyMap<string, string>,
): void {
  const old = JSON.parse(textOf(tensors.get('statistics.classes')!.data as Uint8Array)) as string[];
  tensors.set('statistics.classes', uint8(utf8(jsonOfNames(old.map((name) => names.get(name) ?? name)))));
}

/**
 * What a device would know that had learned only `tasks`, on a base without the classes `hidden`. Where no center was ever
 * trained, the numbers are to the bit those of such a device. Throws UnledgeredError where something that is known is in no
 * contribution.
 */
export async function statisticsOf(
  bundle: Bundle,
  generation: Generation,
  tasks: readonly LearnedTask[],
  hidden: readonly string[],
  read: ReadContribution,
): Promise<ClassStatistics> {
  const f = bundle.manifest.head.features;
  const map = mapOf(generation.tensors, bundle.checkpoint);
  let known = ClassStatistics.from(bundle.checkpoint, f).without(hidden);
  // One lesson at a time: all contributions together may be larger than what is in memory.
  for (const task of tasks) known = derived(known, [await lessonOf(task, map !== undefined, f, read)]);
  if (!map || !known.classes.length) return known;
  const scatter = around(map, known.scatter, f);
  const sums = timesTransposed(known.sums, map, known.classes.length, f, f);
  return new ClassStatistics(f, known.classes, { scatter }, sums, known.counts, known.temperature);
}

async function lessonOf(
  task: LearnedTask,
  moved: boolean,
  features: number,
  read: ReadContribution,
): Promise<Lesson> {
  if (task.config.class_statistics === false) return new Lesson([], new Map());
  // Of a network that is as it was, both are the same, and only one is kept.
  const files = new Map([...task.contributions, ...(moved ? task.carried : [])]);
  if (task.classes.some((name) => !files.has(name))) {
    throw new UnledgeredError(`of task '${task.name}' no contributions were kept`);
  }
  const classes = task.classes.filter((name) => files.get(name) && !task.shared.includes(name));
  const kept = new Map<string, Contribution>();
  for (const name of classes) {
    try {
      kept.set(name, Contribution.from(await read(files.get(name)!), features));
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      throw new UnledgeredError(`of task '${task.name}' ${reasonOf(error).replace(/\.$/, '')}`);
    }
  }
  // Of a task all of which a fleet's knowledge counts, the temperature does, too.
  const counts = classes.length > 0 || !task.shared.length;
  return new Lesson(classes, kept, counts ? task.temperature : undefined);
}
