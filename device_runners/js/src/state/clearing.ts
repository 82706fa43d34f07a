/** A place that held a state, as an empty one: nothing is known there from one write on. */

import { StorageError } from '../errors.js';
import { BLOCKS } from './blocks.js';
import { IDENTITY } from './identity.js';
import { LEDGER } from './ledger.js';
import { PROGRESS } from './progress.js';
import { SAID } from './said.js';
import type { Storage } from './storage.js';
import { GENERATIONS, GenerationStore, HEAD } from './store.js';

const FOLDERS = [GENERATIONS, BLOCKS, LEDGER, 'scores'];

/**
 * Remove what was learned with the bundle of this id; the lock is held by the caller. Which signed bundles were accepted
 * stays known. Interrupted, it holds no generation, and can be called again. Throws StorageError where a file cannot be
 * removed.
 */
export async function clearState(storage: Storage, bundleId: string): Promise<void> {
  if ((await storage.size(IDENTITY)) === undefined) return;
  // From here on no generation counts: all of them are what a crash would leave.
  await new GenerationStore(storage, bundleId).writeHead(0, 0);
  for (const folder of FOLDERS) {
    for (const name of await storage.list(folder)) await gone(storage, `${folder}/${name}`);
  }
  // Whose place it was goes last.
  for (const path of [PROGRESS, 'field.json', SAID, HEAD, IDENTITY]) await gone(storage, path);
}

async function gone(storage: Storage, path: string): Promise<void> {
  if ((await storage.size(path)) === undefined || (await storage.remove(path))) return;
  throw new StorageError(
    `${storage.name}/${path} could not be removed. Nothing is known here any more; call again.`,
  );
}
