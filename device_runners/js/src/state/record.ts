/** What a state remembers: learned tasks, generations, and the small JSON records in its files. */

import { RECORD_SCHEMA } from '../contract/recordSchema.js';
import { reasonOf, StateError } from '../errors.js';
import { sha256, textOf, utf8 } from '../formats/bytes.js';
import { dumps, isObject, type Json, jsonOf, parseJson, plain } from '../formats/json.js';
import { violation } from '../formats/schema.js';
import type { Tensors } from '../formats/tensors.js';
import type { Storage } from './storage.js';
import { FIRST, type Needs, needsOf, needsRecord, requireReader } from './versions.js';

/**
 * A task that was learned, and what it took: `images` is the number of training images, `seconds` wall time, `loss` the
 * mean loss of the last epoch, `peakRssBytes` the process's peak memory (0 where it is not known), `config` the settings
 * used, under the names that they have in Python. `protected` says for each site how many of the selected channels'
 * directions were kept for older knowledge, as "r/k", and `notes` what the user was warned of; what an older csk-sdk did
 * not record is empty. `contributions` names by class the file in `ledger/` of what the task contributed under the bundle's
 * untouched network, "" where a later lesson replaced it; `carried` the same as it is counted now, where centers have moved.
 * `temperature` is what was measured on the task, where the bundle brings none, `expected` how often decisions were
 * expected to be right, as Python's LearnReport has it.
 */
export interface LearnedTask {
  readonly name: string;
  readonly classes: readonly string[];
  readonly epochs: number;
  readonly images: number;
  readonly seconds: number;
  readonly loss: number;
  readonly peakRssBytes: number;
  readonly config: { readonly [name: string]: Json };
  readonly protected: Readonly<Record<string, string>>;
  readonly notes: readonly string[];
  readonly contributions: ReadonlyMap<string, string>;
  readonly carried: ReadonlyMap<string, string>;
  readonly temperature?: number;
  readonly expected?: { readonly [name: string]: Json };
  /** Fields of a newer csk-sdk, which are kept as they are. */
  readonly more?: { readonly [name: string]: Json };
}

/** Everything learned up to one commit; `parent` is undefined for generation 0, the bundle's own checkpoint. */
export interface Generation {
  readonly number: number;
  readonly parent: number | undefined;
  /** All tasks learned so far, oldest first. */
  readonly tasks: readonly LearnedTask[];
  readonly tensors: Tensors;
  /** ISO 8601, UTC; empty for generation 0. */
  readonly created: string;
  /** Classes of the base that are not to be counted. */
  readonly hidden: readonly string[];
}

/** A generation without its tensors; `sha256` and `size` are those of the tensors' file. */
export interface GenerationRecord {
  readonly number: number;
  readonly parent: number;
  readonly created: string;
  readonly tasks: readonly LearnedTask[];
  readonly sha256: string;
  readonly size: number;
  readonly hidden?: readonly string[];
  /** Generations that went when this one was committed, since they held what was to be forgotten. */
  readonly purged?: readonly number[];
  /** Who may read and write it; every csk-sdk where it is missing. */
  readonly needs?: Needs;
  /** Fields of a newer csk-sdk, which the generations learned from this one carry on. */
  readonly more?: { readonly [name: string]: Json };
}

/** The name of the task learned last. */
export function taskOf(found: GenerationRecord): string {
  return found.tasks.at(-1)?.name ?? '';
}

/** The files in `ledger/` that a task needs. */
export function filesOf({ contributions, carried }: LearnedTask): string[] {
  return [...contributions.values(), ...carried.values()].filter(Boolean);
}

/** `values` as JSON with a checksum in its field `check`, so that damage is noticed, not believed. */
export function seal(values: object): Uint8Array {
  const json = jsonOf(values) as { [key: string]: Json };
  return utf8(`${dumps({ ...json, check: checkOf(json) }, { indent: 1 })}\n`);
}

/** Read what `seal` wrote. Throws StateError, naming the file, when it is missing, unreadable or damaged. */
export async function unseal(storage: Storage, path: string): Promise<{ [key: string]: Json }> {
  const where = `${storage.name}/${path}`;
  const content = await storage.read(path);
  if (!content) throw new StateError(`${where} is missing.`);
  let raw: Json;
  try {
    raw = parseJson(textOf(content));
  } catch (error) {
    throw new StateError(`${where} cannot be read (${reasonOf(error)}).`);
  }
  const { check, ...rest } = isObject(raw) ? raw : {};
  if (check === undefined || check !== checkOf(rest)) {
    throw new StateError(`${where} is damaged: its checksum does not match.`);
  }
  return rest;
}

function checkOf(values: { [key: string]: Json }): string {
  return sha256(dumps(values, { sorted: true }));
}

const { properties: OF_RECORD } = RECORD_SCHEMA;
const TASK_FIELDS: ReadonlySet<string> = new Set(Object.keys(OF_RECORD!.tasks!.items!.properties!));
const RECORD_FIELDS: ReadonlySet<string> = new Set(Object.keys(OF_RECORD!));

/**
 * Read a generation's record. Throws StateError, naming the file, when it is missing or damaged; NewerStateError where
 * only a newer csk-sdk may read it.
 */
export async function readRecord(storage: Storage, path: string): Promise<GenerationRecord> {
  const raw = await unseal(storage, path);
  const needs = readNeeds(raw, `${storage.name}/${path}`);
  const values = plain(raw) as Record<string, unknown>;
  const where = `${storage.name}/${path}`;
  const wrong = violation(raw, RECORD_SCHEMA);
  if (wrong !== undefined) throw new StateError(`${where}: ${wrong}.`);
  const { number: own, parent } = values as { number: number; parent: number };
  if (!(parent >= 0 && parent < own)) {
    // A parent that is no older would lead the way back in a circle.
    throw new StateError(`${where} says that generation ${own} was learned from ${parent}.`);
  }
  const found = values as unknown as GenerationRecord;
  const tasks = (raw.tasks as { [key: string]: Json }[]).map(taskFrom);
  const { created, sha256: sum, size, hidden = [], purged = [] } = found;
  const known = { number: own, parent, created, tasks, sha256: sum, size, hidden, purged };
  return { ...known, needs, ...moreOf(raw, RECORD_FIELDS) };
}

function readNeeds(raw: { [key: string]: Json }, where: string): Needs {
  let needs: Needs;
  try {
    needs = needsOf(raw);
  } catch (error) {
    throw new StateError(`${where} has a value of a wrong type (${reasonOf(error)}).`);
  }
  requireReader(needs, where);
  return needs;
}

/** The fields that are not among the known ones, as `more`, and as they were spelled. */
function moreOf(
  raw: { [key: string]: Json },
  known: ReadonlySet<string>,
): { more?: { [key: string]: Json } } {
  const more = Object.entries(raw).filter(([key]) => !known.has(key));
  return more.length ? { more: Object.fromEntries(more) } : {};
}

function taskFrom(raw: { [key: string]: Json }): LearnedTask {
  const values = plain(raw) as LearnedTask & { peak_rss_bytes: number };
  const { name, classes, epochs, images, seconds, loss, peak_rss_bytes, temperature } = values;
  const files = (one: unknown): Map<string, string> => new Map(Object.entries((one ?? {}) as object));
  return {
    ...{ name, classes, epochs, images, seconds, loss, peakRssBytes: peak_rss_bytes },
    // As it was spelled: Python's 1.0 must stay 1.0 when the task is written again into the next record.
    config: raw.config as { [key: string]: Json },
    protected: values.protected ?? {},
    notes: values.notes ?? [],
    contributions: files(values.contributions),
    carried: files(values.carried),
    ...(temperature === undefined ? {} : { temperature }),
    ...(raw.expected === undefined ? {} : { expected: raw.expected as { [key: string]: Json } }),
    ...moreOf(raw, TASK_FIELDS),
  };
}

/** A record as its file's content. */
export function recordBytes(found: GenerationRecord): Uint8Array {
  const tasks = found.tasks.map(({ peakRssBytes, more, ...task }) => ({
    ...more,
    name: task.name,
    classes: task.classes,
    epochs: task.epochs,
    images: task.images,
    seconds: task.seconds,
    loss: task.loss,
    peak_rss_bytes: peakRssBytes,
    config: task.config,
    protected: task.protected,
    notes: task.notes,
    ...(task.contributions.size ? { contributions: Object.fromEntries(task.contributions) } : {}),
    ...(task.carried.size ? { carried: Object.fromEntries(task.carried) } : {}),
    ...(task.temperature === undefined ? {} : { temperature: task.temperature }),
    ...(task.expected === undefined ? {} : { expected: task.expected }),
  }));
  const { number: own, parent, created, size, hidden, purged, more, needs = FIRST } = found;
  const known = { number: own, parent, created, tasks, sha256: found.sha256, size };
  const later = { ...(hidden?.length ? { hidden } : {}), ...(purged?.length ? { purged } : {}) };
  return seal({ ...more, ...known, ...later, ...needsRecord(needs) });
}
