/** Which generations keep their tensors, and which only their record; what nobody needs any more goes. */

import { SENTENCES } from '../contract/sentences.js';
import { StateError, StorageError } from '../errors.js';
import { filled } from '../formats/sentences.js';
import type { LedgerFiles } from './ledger.js';
import { filesOf, type GenerationRecord } from './record.js';
import { type GenerationStore, recordPath, tensorsPath } from './store.js';

/**
 * Remove the tensors of all but `keep` generations, and those in `always`. Those on the way from the current one back
 * come first, newest first. What has no readable record is left alone: it may be all that can be rescued. A record
 * without tensors keeps the task learned last.
 */
export async function prune(
  store: GenerationStore,
  keep: number,
  always: ReadonlySet<number>,
): Promise<void> {
  const records = new Map<number, GenerationRecord>();
  const stored = new Set<number>();
  for (const number of [...(await store.numbers('json'))].sort((a, b) => a - b)) {
    const found = await store.readable(number);
    if (!found) continue;
    records.set(number, found);
    const size = await store.storage.size(tensorsPath(number));
    if (size === found.size) stored.add(number);
    else if (size === undefined) await shorten(store, found);
  }
  const way = [(await store.readHead()).head];
  for (let at = records.get(way[0]!); at; at = records.get(at.parent)) way.push(at.parent);
  const others = [...stored].filter((number) => !way.includes(number)).sort((a, b) => b - a);
  const kept = new Set([...way, ...others].filter((number) => stored.has(number)).slice(0, keep));
  for (const number of stored) {
    if (always.has(number) || kept.has(number)) continue;
    if (await store.storage.remove(tensorsPath(number))) await shorten(store, records.get(number)!);
  }
}

/**
 * Remove all of these generations but that they were there: tensors, scores, and what their records tell of tasks.
 * Throws StorageError where one cannot be removed: what is to be forgotten must not stay unnoticed.
 */
export async function forgetGenerations(store: GenerationStore, numbers: readonly number[]): Promise<void> {
  const { storage } = store;
  for (const number of numbers) {
    for (const path of [tensorsPath(number), `scores/${String(number).padStart(6, '0')}.json`]) {
      if ((await storage.size(path)) === undefined || (await storage.remove(path))) continue;
      throw new StorageError(filled(SENTENCES.notRemoved, { path: `${storage.name}/${path}` }));
    }
    const record = await store.readable(number);
    // Unreadable, and so of no use; its names must go, too.
    if (!record) await storage.remove(recordPath(number));
    else if (record.tasks.length || record.hidden?.length) {
      await store.writeRecord({ ...record, tasks: [], hidden: [] }, { forgets: true });
    }
  }
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

async function shorten(store: GenerationStore, record: GenerationRecord): Promise<void> {
  if (record.tasks.length < 2) return;
  try {
    await store.writeRecord({ ...record, tasks: record.tasks.slice(-1) });
  } catch (error) {
    // Not worth failing a commit that has succeeded: the next one does it.
    if (!(error instanceof StorageError)) throw error;
  }
}
