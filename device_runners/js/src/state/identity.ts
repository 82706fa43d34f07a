/** Whether a place may become a state: nobody looks for one among other things, or keeps it when these are cleared away. */

import { StateError } from '../errors.js';
import { listed } from '../formats/sentences.js';
import type { Storage } from './storage.js';

/** Which bundle a state belongs to. */
export const IDENTITY = 'state.json';
// What may be there before state.json is: a lock, what bundles were accepted, and what is left of a state.
const PARTS = new Set([
  IDENTITY,
  'HEAD',
  'generations',
  'blocks',
  'ledger',
  'scores',
  'progress.safetensors',
  'accepted.json',
  'field.json',
  'field.lock',
  'lock',
  'lock.node',
]);
// Hidden files, and kernels of a run of Python's that was killed.
const OUR_SCRATCH = /^(\.|kernels-)/;
// What systems put into folders, or onto disks, by themselves.
const NOBODYS = new Set(['lost+found', 'system volume information', 'thumbs.db', 'desktop.ini']);

/** Throws StateError where a storage that holds no state yet holds other things. */
export async function requireOwnFolder(storage: Storage): Promise<void> {
  const found = (await storage.list(''))
    .filter((name) => !(OUR_SCRATCH.test(name) || PARTS.has(name) || NOBODYS.has(name.toLowerCase())))
    .sort();
  // Asked again: another process may be writing the first files just now.
  if (!found.length || (await storage.size(IDENTITY)) !== undefined) return;
  throw new StateError(
    `${storage.name} is no state and holds other things (${listed(found, 3)}): a state needs a folder of its own. Give one that is ` +
      'empty, or that is not there yet.',
  );
}
