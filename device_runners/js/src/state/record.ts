/** What a state remembers: learned tasks, generations, and the small JSON records in its files. */

import { RECORD_SCHEMA, type RecordedTask, TASK_NAMES } from '../contract/recordSchema.js';
import { reasonOf, StateError } from '../errors.js';
import { sha256, textOf, utf8 } from '../formats/bytes.js';
import { dumps, isObject, type Json, jsonOf, parseJson, plain } from '../formats/json.js';
import { violation } from '../formats/schema.js';
import type { Tensors } from '../formats/tensors.js';
import type { Storage } from './storage.js';
import { FIRST, type Needs, needsOf, needsRecord, requireReader } from './versions.js';

/**
 * A task that was learned, and what it took: what its record says (docs/state.md). What an older csk-sdk did not record is
 * empty.
 */
export interface LearnedTask extends Omit<RecordedTask, 'contributions' | 'carried'> {
  readonly contributions: ReadonlyMap<string, string>;
  readonly carried: ReadonlyMap<string, string>;
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

/** How many of a generation's tasks, and of its rows, lie in a block. */
export interface Extent {
  readonly tasks: number;
  readonly rows: number;
}

/** A block by its name, and what of a generation lies in it. */
export interface Block extends Extent {
  readonly name: string;
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
  /** Where the first of its tasks lie, and rows of its tensors. */
  readonly blocks?: readonly Block[];
  /** Who may read and write it; every csk-sdk where it is missing. */
  readonly needs?: Needs;
  /** Fields of a newer csk-sdk, which the generations learned from this one carry on. */
  readonly more?: { readonly [name: string]: Json };
}

/** A record as its file has it: `tasks` are those behind the ones in its blocks, which it names. */
export interface RecordFile extends Omit<GenerationRecord, 'blocks'> {
  readonly blocks?: readonly string[];
}

/** The name of the task learned last. */
export function taskOf(found: GenerationRecord): string {
  return found.tasks.at(-1)?.name ?? '';
}

/** What tells a task's lesson from others, also of its name: it stays whatever the classes are called later. */
export function lessonOf(task: LearnedTask): string {
  const { name, fleet = '', epochs, images, seconds, loss, peakRssBytes } = task;
  return JSON.stringify([name, fleet, epochs, images, seconds, loss, peakRssBytes]);
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
const TASKS = OF_RECORD!.tasks!;
const OF_TASK = TASKS.items!.properties!;
const TASK_FIELDS: ReadonlySet<string> = new Set(Object.keys(OF_TASK));
const RECORD_FIELDS: ReadonlySet<string> = new Set(Object.keys(OF_RECORD!));

/**
 * Read a generation's record. Throws StateError, naming the file, when it is missing or damaged; NewerStateError where
 * only a newer csk-sdk may read it.
 */
export async function readRecord(storage: Storage, path: string): Promise<RecordFile> {
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
  const found = values as unknown as RecordFile;
  const tasks = (raw.tasks as { [key: string]: Json }[]).map(taskFrom);
  const { created, sha256: sum, size, hidden = [], purged = [], blocks = [] } = found;
  const known = { number: own, parent, created, tasks, sha256: sum, size, hidden, purged, blocks };
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

/** A list of tasks as a record has it. Throws StateError, naming the file `where` it lies, for anything else. */
export function tasksFrom(raw: Json, where: string): LearnedTask[] {
  const wrong = violation(raw, TASKS, 'tasks');
  if (wrong !== undefined) throw new StateError(`${where}: ${wrong}.`);
  return (raw as { [key: string]: Json }[]).map(taskFrom);
}

function taskFrom(raw: { [key: string]: Json }): LearnedTask {
  const values = Object.entries(TASK_NAMES).flatMap(([own, name]) => {
    const { additionalProperties, default: unset } = OF_TASK[name]!;
    if (!Object.hasOwn(raw, name)) return unset === undefined ? [] : [[own, unset] as const];
    // What may hold anything, as it was spelled: Python's 1.0 must stay 1.0 when it is written into the next record.
    return [[own, additionalProperties === true ? raw[name]! : plain(raw[name]!)] as const];
  });
  const { contributions, carried, ...task } = Object.fromEntries(values) as unknown as RecordedTask;
  const files = {
    contributions: new Map(Object.entries(contributions)),
    carried: new Map(Object.entries(carried)),
  };
  return { ...task, ...files, ...moreOf(raw, TASK_FIELDS) };
}

/** Fields that older states have not, written where they say something. */
const LATER: ReadonlySet<string> = new Set([
  'contributions',
  'carried',
  'temperature',
  'expected',
  'shared',
  'fleet',
]);

function isEmpty(value: unknown): boolean {
  return value === undefined || (typeof value === 'object' && value !== null && !Object.keys(value).length);
}

/** A task as a record has it. */
export function taskJson(task: LearnedTask): Json {
  const named = Object.entries(TASK_NAMES) as [keyof RecordedTask, string][];
  const fields = named.flatMap(([own, name]) => {
    const value = task[own];
    const said = value instanceof Map ? Object.fromEntries(value) : value;
    return LATER.has(own) && isEmpty(said) ? [] : [[name, said] as const];
  });
  return jsonOf({ ...task.more, ...Object.fromEntries(fields) });
}

/** A record as its file has it. */
export function inFile({ tasks, blocks = [], ...record }: GenerationRecord): RecordFile {
  const within = blocks.reduce((sum, block) => sum + block.tasks, 0);
  return { ...record, tasks: tasks.slice(within), blocks: blocks.map(({ name }) => name) };
}

/** The content of a record's file. */
export function recordBytes(found: RecordFile): Uint8Array {
  const { number: own, parent, created, size, more, needs = FIRST } = found;
  const known = {
    number: own,
    parent,
    created,
    tasks: found.tasks.map(taskJson),
    sha256: found.sha256,
    size,
  };
  const { hidden, purged, blocks } = found;
  const later = Object.entries({ hidden, purged, blocks }).filter(([, value]) => value?.length);
  return seal({ ...more, ...known, ...Object.fromEntries(later), ...needsRecord(needs) });
}
