/**
 * The files of contributions, `ledger/SHA256.safetensors`: never changed, and named by what is in them.
 *
 * A generation lists those that it needs, and a commit writes only new ones. One that no stored generation lists is removed.
 */

import { reasonOf, StateError } from '../errors.js';
import { sha256OfMany } from '../formats/bytes.js';
import { decode, encode } from '../formats/safetensors.js';
import type { StoredTensor, Tensors } from '../formats/tensors.js';
import type { Storage } from './storage.js';

export const LEDGER = 'ledger';
const NAMED = /^([0-9a-f]{64})\.safetensors$/;

/** `ledger/` of a state. Locking is the business of `State`. */
export class LedgerFiles {
  constructor(private readonly storage: Storage) {}

  /** Keep `tensors`; the name that they have now. Throws StorageError. */
  async write(tensors: Tensors): Promise<string> {
    const data = encode(tensors);
    const name = await sha256OfMany(data);
    if (!(await this.intact(name))) await this.storage.replace(pathOf(name), data);
    return name;
  }

  /** The tensors of this name. Throws StateError where they are missing or damaged. */
  async read(name: string): Promise<Map<string, StoredTensor>> {
    if (!NAMED.test(`${name}.safetensors`)) {
      throw new StateError(`'${name.slice(0, 80)}' names no contribution.`);
    }
    const where = `${this.storage.name}/${pathOf(name)}`;
    const data = await this.intact(name);
    if (!data) throw new StateError(`${where} is missing or damaged.`);
    try {
      return decode(data).tensors;
    } catch (error) {
      throw new StateError(`${where} cannot be read (${reasonOf(error)}).`, { cause: error });
    }
  }

  /** Remove all others, and what crashed commits left. Call it only with the lock held. */
  async keep(wanted: ReadonlySet<string>): Promise<void> {
    await this.storage.clean?.(LEDGER);
    for (const file of await this.storage.list(LEDGER)) {
      const name = NAMED.exec(file)?.[1];
      if (name && !wanted.has(name)) await this.storage.remove(pathOf(name));
    }
  }

  /** The content of a file that is there, and what its name says. */
  private async intact(name: string): Promise<Uint8Array | undefined> {
    const data = await this.storage.read(pathOf(name));
    return data && (await sha256OfMany(data)) === name ? data : undefined;
  }
}

function pathOf(name: string): string {
  return `${LEDGER}/${name}.safetensors`;
}
