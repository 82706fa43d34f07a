/**
 * What a commit that forgets removes from a state: as a whole, or else when something is written the next time.
 *
 * Such a commit lists in its record the generations that hold what is to be forgotten. What they alone need goes first, and
 * they themselves last: as long as something of them is left, the forgetting is not finished.
 */

import { SENTENCES } from '../contract/sentences.js';
import { StorageError } from '../errors.js';
import { filled } from '../formats/sentences.js';
import { BLOCKS } from './blocks.js';
import { LEDGER, type LedgerFiles } from './ledger.js';
import { PROGRESS, readProgress } from './progress.js';
import { contributionsOf, listedIn } from './pruning.js';
import type { RecordFile } from './record.js';
import { type GenerationStore, recordPath, tensorsPath } from './store.js';

/**
 * Remove what `record`, the current one, was committed for to be forgotten; nothing happens once it is gone. Throws
 * StorageError where something cannot be removed: what is to be forgotten must not stay unnoticed.
 */
export async function finishForgetting(
  store: GenerationStore,
  ledger: LedgerFiles,
  record: RecordFile,
): Promise<void> {
  const left = await unforgotten(store, record);
  if (!left.length) return;
  await forgetProgress(store, record.number);
  await forgetShared(store, ledger, new Set(record.purged));
  for (const number of left) await forgetGeneration(store, number);
}

/** The generations that were to go with the commit of `record`, and of which something is left. */
async function unforgotten(store: GenerationStore, record: RecordFile): Promise<number[]> {
  const left: number[] = [];
  for (const number of record.purged ?? []) {
    if (number < record.number && (await isLeft(store, number))) left.push(number);
  }
  return left;
}

async function isLeft(store: GenerationStore, number: number): Promise<boolean> {
  for (const path of [tensorsPath(number), scoresPath(number)]) {
    if ((await store.storage.size(path)) !== undefined) return true;
  }
  const record = await store.readableFile(number);
  if (!record) return (await store.storage.size(recordPath(number))) !== undefined;
  return tells(record);
}

/** Remove the progress checkpoint of a lesson that began before `head` was committed: nothing goes on from it. */
async function forgetProgress(store: GenerationStore, head: number): Promise<void> {
  const saved = await readProgress(store.storage);
  if (saved?.meta.generation !== head) await gone(store, PROGRESS);
}

/** Remove contributions and blocks that no generation but those `purged` lists. */
async function forgetShared(
  store: GenerationStore,
  ledger: LedgerFiles,
  purged: ReadonlySet<number>,
): Promise<void> {
  // Of what has no readable record the tensors are of no use, and neither is what it needs.
  const kept = new Map([...(await store.files())].filter(([number]) => !purged.has(number)));
  const stored = [...(await store.committed('safetensors'))].filter((number) => kept.has(number));
  const left = [
    ...(await ledger.keep(await contributionsOf(store, stored))),
    ...(await store.blocks.keep(listedIn(kept))),
  ];
  for (const path of left) throw notRemoved(store, path);
  for (const folder of ['', LEDGER, BLOCKS]) await store.storage.settle?.(folder);
}

/** Remove all of a generation but that it was there: tensors, scores, and what its record tells of tasks. */
async function forgetGeneration(store: GenerationStore, number: number): Promise<void> {
  for (const path of [tensorsPath(number), scoresPath(number)]) await gone(store, path);
  const record = await store.readableFile(number);
  // Unreadable, and so of no use; its names must go, too.
  if (!record) await gone(store, recordPath(number));
  else if (tells(record)) {
    await store.writeRecord({ ...record, tasks: [], hidden: [], blocks: [] }, { forgets: true });
  }
}

function tells({ tasks, hidden, blocks }: RecordFile): boolean {
  return tasks.length > 0 || !!hidden?.length || !!blocks?.length;
}

async function gone(store: GenerationStore, path: string): Promise<void> {
  if ((await store.storage.size(path)) === undefined || (await store.storage.remove(path))) return;
  throw notRemoved(store, path);
}

function notRemoved(store: GenerationStore, path: string): StorageError {
  return new StorageError(filled(SENTENCES.notRemoved, { path: `${store.storage.name}/${path}` }));
}

function scoresPath(number: number): string {
  return `scores/${String(number).padStart(6, '0')}.json`;
}
