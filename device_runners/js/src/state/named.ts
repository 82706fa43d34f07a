/** A folder of files that never change, each named by what is in it: `SHA256.safetensors`. */

import { StateError } from '../errors.js';
import { sha256OfMany } from '../formats/bytes.js';
import type { Storage } from './storage.js';

const NAMED = /^([0-9a-f]{64})(?:\.copy)?\.safetensors$/;
const FIRST = ['.safetensors'];
const TWICE = [...FIRST, '.copy.safetensors'];

/**
 * Such a folder of a state; where it is `twice`, a file that is kept a second time has a copy. Locking is the business of
 * `State`.
 */
export class NamedFiles {
  private readonly endings: readonly string[];
  // Of which it is known that they are what their names say.
  private readonly seen = new Set<string>();

  constructor(
    private readonly storage: Storage,
    private readonly folder: string,
    { twice = false } = {},
  ) {
    this.endings = twice ? TWICE : FIRST;
  }

  /**
   * Keep `data`; the name that it has now. What is there and intact is not written again; where that is the first file, the
   * copy follows. Throws StorageError.
   */
  async write(data: Uint8Array): Promise<string> {
    const name = await sha256OfMany(data);
    for (const path of this.paths(name)) {
      if (this.seen.has(path) && (await this.storage.size(path)) === data.length) continue;
      // What the disk does not give back any more is written again.
      const kept = await this.intact(path, name).catch(orStateError);
      const lost = !kept || kept instanceof StateError;
      if (lost) await this.storage.replace(path, data);
      this.seen.add(path);
      if (lost && path === this.paths(name)[0]) break;
    }
    return name;
  }

  /** What has this name; undefined where it is missing or damaged. Throws StateError where it cannot be read. */
  async read(name: string): Promise<Uint8Array | undefined> {
    let refused: StateError | undefined;
    for (const path of this.paths(name)) {
      const found = await this.intact(path, name).catch(orStateError);
      if (found && !(found instanceof StateError)) return found;
      refused ??= found;
    }
    if (refused) throw refused;
    return undefined;
  }

  /**
   * Remove all others, and what crashed commits left; the paths of those that could not be removed. Call it only with the
   * lock held.
   */
  async keep(wanted: ReadonlySet<string>): Promise<string[]> {
    await this.storage.clean?.(this.folder);
    const left: string[] = [];
    for (const file of await this.storage.list(this.folder)) {
      const name = NAMED.exec(file)?.[1];
      if (!name || wanted.has(name)) continue;
      const path = `${this.folder}/${file}`;
      this.seen.delete(path);
      if (!(await this.storage.remove(path))) left.push(path);
    }
    return left;
  }

  /** Where a file of this name lies, for messages. */
  where(name: string): string {
    return `${this.storage.name}/${this.paths(name)[0]}`;
  }

  private paths(name: string): string[] {
    return this.endings.map((ending) => `${this.folder}/${name}${ending}`);
  }

  /** The content of a file that is there, and what its name says. */
  private async intact(path: string, name: string): Promise<Uint8Array | undefined> {
    const data = await this.storage.read(path);
    return data && (await sha256OfMany(data)) === name ? data : undefined;
  }
}

/** Whether this is a name of such a file. */
export function isName(name: string): boolean {
  return NAMED.test(`${name}.safetensors`) && name.length === 64;
}

function orStateError(error: unknown): undefined | StateError {
  if (error instanceof StateError) return error;
  throw error;
}
