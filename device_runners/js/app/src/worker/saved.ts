/** What was learned, as one file: a zip of the state, which a folder for the Python SDK is made of too. */

import { copyState, Learner, MemoryStorage, type Runtime, StateError } from 'csk-sdk';
import { HttpBundle, IndexedDbStorage } from 'csk-sdk/browser';
import { unzipSync, zipSync } from 'fflate';
import { reasonOf } from '../wording.js';
import { PendingTask } from './pending.js';
import type { Versions } from './version.js';

// Everything of a state but the progress of an unfinished task, perhaps below the folder that was zipped.
const NAMED = '(?:ledger/[0-9a-f]{64}|blocks/[0-9a-f]{64}(?:\\.copy)?)\\.safetensors';
const FILE = new RegExp(`(?:^|/)(HEAD|state\\.json|generations/\\d{6}\\.(?:json|safetensors)|${NAMED})$`);
// What this device has told its fleet.
const SAID = 'fleet.json';
const MOST_BYTES = 1 << 30;

/** The state in this browser. Throws StateLockedError while a task is learned. */
export async function saved({ storage }: Versions): Promise<Blob> {
  const copy = new MemoryStorage();
  await copyState(await IndexedDbStorage.open(storage), copy);
  // Who opens the file is another device to the fleet.
  copy.files.delete(SAID);
  // Numbers that were learned do not get smaller.
  const zip = zipSync(Object.fromEntries(copy.files), { level: 0 });
  return new Blob([zip as Uint8Array<ArrayBuffer>], { type: 'application/zip' });
}

/**
 * Make a saved state this browser's own, in place of what it knew. It is opened with this app's bundle first.
 * Throws StateError for a file that is none, or is of another bundle, and leaves all as it was.
 */
export async function openSaved(file: Blob, runtime: Runtime, versions: Versions): Promise<void> {
  if (await (await PendingTask.open()).load()) {
    throw new StateError('There is an unfinished task: go on with it or discard it, and open the file then.');
  }
  const name = file instanceof File ? file.name : 'This file';
  const storage = new MemoryStorage(name);
  for (const [path, content] of Object.entries(unpacked(new Uint8Array(await file.arrayBuffer()), name))) {
    storage.files.set(FILE.exec(path)![1]!, content);
  }
  if (!storage.files.has('HEAD')) {
    throw new StateError(`${name} holds nothing that was learned: choose a file that this app saved.`);
  }
  const learner = await Learner.open({ runtime, bundle: new HttpBundle(versions.bundle), storage });
  await learner.close();
  const place = await IndexedDbStorage.open(versions.storage);
  const lock = await place.lock();
  try {
    const said = await place.read(SAID);
    if (said) storage.files.set(SAID, said);
    await place.replaceAll(storage.files);
  } finally {
    await lock.release();
    place.close();
  }
}

function unpacked(bytes: Uint8Array, name: string): Record<string, Uint8Array> {
  let size = 0;
  try {
    return unzipSync(bytes, {
      filter: (entry) => {
        if (!FILE.test(entry.name)) return false;
        size += entry.originalSize;
        if (size > MOST_BYTES) throw new Error('it is too large');
        return true;
      },
    });
  } catch (error) {
    throw new StateError(
      `${name} cannot be opened (${reasonOf(error)}): choose a file that this app saved.`,
      { cause: error },
    );
  }
}
