/**
 * The files of contributions, `ledger/SHA256.safetensors`: never changed, and named by what is in them.
 *
 * A generation lists those that it needs, and a commit writes only new ones. One that no stored generation lists is removed.
 */

import { reasonOf, StateError } from '../errors.js';
import { decode, encode } from '../formats/safetensors.js';
import type { StoredTensor, Tensors } from '../formats/tensors.js';
import { isName, NamedFiles } from './named.js';
import type { Storage } from './storage.js';

export const LEDGER = 'ledger';

/** `ledger/` of a state. Locking is the business of `State`. */
export class LedgerFiles {
  private readonly files: NamedFiles;

  constructor(storage: Storage) {
    this.files = new NamedFiles(storage, LEDGER);
  }

  /** Keep `tensors`; the name that they have now. Throws StorageError. */
  async write(tensors: Tensors): Promise<string> {
    return this.files.write(encode(tensors));
  }

  /** The tensors of this name. Throws StateError where they are missing or damaged. */
  async read(name: string): Promise<Map<string, StoredTensor>> {
    if (!isName(name)) throw new StateError(`'${name.slice(0, 80)}' names no contribution.`);
    const where = this.files.where(name);
    const data = await this.files.read(name);
    if (!data) throw new StateError(`${where} is missing or damaged.`);
    try {
      return decode(data).tensors;
    } catch (error) {
      throw new StateError(`${where} cannot be read (${reasonOf(error)}).`, { cause: error });
    }
  }

  /**
   * Remove all others, and what crashed commits left; the paths of those that could not be removed. Call it only with the
   * lock held.
   */
  async keep(wanted: ReadonlySet<string>): Promise<string[]> {
    return this.files.keep(wanted);
  }
}
