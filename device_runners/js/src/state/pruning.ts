/** Which generations keep their tensors, and which only their record; what nobody needs any more goes. */

import { SENTENCES } from '../contract/sentences.js';
import { StateError, StorageError } from '../errors.js';
import { filled } from '../formats/sentences.js';
import type { LedgerFiles } from './ledger.js';
import { filesOf, type RecordFile } from './record.js';
import { type GenerationStore, recordPath, tensorsPath } from './store.js';

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
 * Remove all of these generations but that they were there: tensors, scores, and what their records tell of tasks.
 * Throws StorageError where one cannot be removed: what is to be forgotten must not stay unnoticed.
 */
export async function forgetGenerations(store: GenerationStore, numbers: readonly number[]): Promise<void> {
  const { storage } = store;
  const records = await store.files();
  for (const number of numbers) {
    for (const path of [tensorsPath(number), `scores/${String(number).padStart(6, '0')}.json`]) {
      if ((await storage.size(path)) === undefined || (await storage.remove(path))) continue;
      throw new StorageError(filled(SENTENCES.notRemoved, { path: `${storage.name}/${path}` }));
    }
    const record = records.get(number);
    // Unreadable, and so of no use; its names must go, too.
    if (!record) await storage.remove(recordPath(number));
    else if (record.tasks.length || record.hidden?.length || record.blocks?.length) {
      const nothing = { ...record, tasks: [], hidden: [], blocks: [] };
      records.set(number, nothing);
      await store.writeRecord(nothing, { forgets: true });
    }
  }
  const [left] = await store.blocks.keep(listedIn(records));
  if (left) throw new StorageError(filled(SENTENCES.notRemoved, { path: `${storage.name}/${left}` }));
}

/**
 * Remove the contributions that no generation with tensors lists. Where one of these cannot be read, all stay: they may be
 * what can be rescued.
 */
export async function pruneLedger(store: GenerationStore, ledger: LedgerFiles): Promise<void> {
  const wanted = new Set<string>();
  for (const number of await store.numbers('safetensors')) {
    const record = await store.readable(number);
    if (!record) return;
    for (const name of record.tasks.flatMap(filesOf)) wanted.add(name);
  }
  try {
    await ledger.keep(wanted);
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StateError)) throw error;
  }
}

/**
 * Remove the blocks that none of the `records` lists. Where a generation with tensors is not among these, all stay: they may
 * be what can be rescued.
 */
export async function pruneBlocks(
  store: GenerationStore,
  records: ReadonlyMap<number, RecordFile>,
): Promise<void> {
  for (const number of await store.numbers('safetensors')) if (!records.has(number)) return;
  try {
    await store.blocks.keep(listedIn(records));
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StateError)) throw error;
  }
}

function listedIn(records: ReadonlyMap<number, RecordFile>): Set<string> {
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
