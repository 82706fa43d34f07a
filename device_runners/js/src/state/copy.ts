/** A state from one place to another: from a browser or a phone into a folder that the Python SDK opens, and back. */

import { StateError } from '../errors.js';
import { BLOCKS } from './blocks.js';
import { LEDGER } from './ledger.js';
import { SAID } from './said.js';
import type { Storage } from './storage.js';
import { GENERATIONS, GenerationStore, HEAD } from './store.js';
import { requireWriter } from './versions.js';

/**
 * Copy a state into an empty place. HEAD comes last, so that an interrupted copy is no state yet; `from` is locked
 * meanwhile. Throws StateError where there is nothing to copy, something in the way, or more than a csk-sdk as old as this
 * one knows of.
 */
export async function copyState(from: Storage, to: Storage): Promise<void> {
  if ((await to.list('')).some((name) => name === HEAD || name === 'state.json')) {
    throw new StateError(`${to.name} holds a state already: copy ${from.name} to an empty place.`);
  }
  const lock = await from.lock();
  try {
    requireWriter(await new GenerationStore(from, '').needs(), from.name);
    const below = async (folder: string): Promise<string[]> =>
      (await from.list(folder)).map((name) => `${folder}/${name}`);
    const paths = [...(await below(LEDGER)), ...(await below(BLOCKS)), ...(await below(GENERATIONS))];
    // The copy is the same device to its fleet, and may take back what this one has said.
    if ((await from.size(SAID)) !== undefined) paths.push(SAID);
    for (const path of [...paths, 'state.json', HEAD]) {
      const content = await from.read(path);
      if (!content) throw new StateError(`${from.name}/${path} is missing: there is no state to copy.`);
      await to.replace(path, content);
    }
  } finally {
    await lock.release();
  }
}
