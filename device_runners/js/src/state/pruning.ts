/** Which generations keep their tensors, and which only their record; what nobody needs any more goes. */

import { StateError, StorageError } from '../errors.js';
import type { LedgerFiles } from './ledger.js';
import { filesOf, type RecordFile } from './record.js';
import { type GenerationStore, tensorsPath } from './store.js';

/**
 * Remove the tensors of all but `keep` generations, and those in `always`. Those on the way from the current one back
 * come first, newest first. What has no record among `records` is left alone: it may be all that can be rescued. A record
 * without tensors keeps the task learned last.
 */
export async function prune(
  store: GenerationStore,
  records: Map<number, RecordFile>,
  keep: number,
  always: ReadonlySet<number>,
): Promise<void> {
  const stored = new Set<number>();
  for (const [number, found] of records) {
    const size = await store.storage.size(tensorsPath(number));
    if (size === found.size) stored.add(number);
    else if (size === undefined) await shorten(store, records, found);
  }
  const way = [(await store.readHead()).head];
  for (let at = records.get(way[0]!); at; at = records.get(at.parent)) way.push(at.parent);
  const others = [...stored].filter((number) => !way.includes(number)).sort((a, b) => b - a);
  const kept = new Set([...way, ...others].filter((number) => stored.has(number)).slice(0, keep));
  for (const number of stored) {
    if (always.has(number) || kept.has(number)) continue;
    if (!(await store.storage.remove(tensorsPath(number)))) continue;
    await shorten(store, records, records.get(number)!);
  }
}

/**
 * Remove the contributions that no generation with tensors lists. Where one of these cannot be read, all stay: they may be
 * what can be rescued.
 */
export async function pruneLedger(store: GenerationStore, ledger: LedgerFiles): Promise<void> {
  const numbers = await store.committed('safetensors');
  for (const number of numbers) if (!(await store.readable(number))) return;
  try {
    await ledger.keep(await contributionsOf(store, numbers));
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StateError)) throw error;
  }
}

/** The contributions that these generations list, as far as they can be read. */
export async function contributionsOf(
  store: GenerationStore,
  numbers: readonly number[],
): Promise<Set<string>> {
  const wanted = new Set<string>();
  for (const number of numbers) {
    const record = await store.readable(number);
    for (const name of record?.tasks.flatMap(filesOf) ?? []) wanted.add(name);
  }
  return wanted;
}

/**
 * Remove the blocks that none of the `records` lists. Where a generation with tensors is not among these, all stay: they may
 * be what can be rescued.
 */
export async function pruneBlocks(
  store: GenerationStore,
  records: ReadonlyMap<number, RecordFile>,
): Promise<void> {
  for (const number of await store.committed('safetensors')) if (!records.has(number)) return;
  try {
    await store.blocks.keep(listedIn(records));
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StateError)) throw error;
  }
}

/** The blocks that these records list. */
export function listedIn(records: ReadonlyMap<number, RecordFile>): Set<string> {
  return new Set([...records.values()].flatMap(({ blocks = [] }) => blocks));
}

async function shorten(
  store: GenerationStore,
  records: Map<number, RecordFile>,
  record: RecordFile,
): Promise<void> {
  if (record.tasks.length < 2 && !record.blocks?.length) return;
  const found = record.tasks.length ? record : await store.readable(record.number);
  // Where its blocks are lost, so is the task's name.
  if (!found) return;
  const short = { ...record, tasks: found.tasks.slice(-1), blocks: [] };
  try {
    await store.writeRecord(short);
    records.set(record.number, short);
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StorageError)) throw error;
  }
}
