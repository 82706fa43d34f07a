/**
 * A state in files of a system that cannot replace one atomically, nor fsync it, as on phones.
 *
 * No file is ever overwritten. The content of NAME is written to a temporary file and renamed to NAME@1, the next one to
 * NAME@2, each with its sha256 behind it; what counts is the newest whose sha256 is right, and the one before it is kept
 * until there is a third. So whatever a crash or an empty battery leaves, the old or the new content is there, whole.
 */

import { reasonOf, StateError, StateLockedError, StorageError } from '../errors.js';
import { concatenate, sha256, textOf, utf8 } from '../formats/bytes.js';
import type { Storage, StorageLock } from '../state/storage.js';

/** What is asked of a file system; paths have slashes. Every method may throw. */
export interface FileSystem {
  /** The files in a folder, with their sizes in bytes; none where there is no such folder. */
  list(folder: string): Promise<{ readonly name: string; readonly size: number }[]>;
  read(path: string): Promise<Uint8Array>;
  /** Write a file that does not exist, making its folders. */
  write(path: string, data: Uint8Array): Promise<void>;
  /** Rename a file to a name that does not exist. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
}

const DIGEST = 64;
const VERSIONED = /^(.*)@(\d{1,15})$/s;
const TEMPORARY = '.csk-tmp';
// An app is one process, with one of these for each folder at most.
const locked = new Set<string>();

export class VersionedStorage implements Storage {
  /** `folder` is where the files lie in `files`; messages call it so. */
  constructor(
    private readonly files: FileSystem,
    readonly name: string,
  ) {}

  async read(path: string): Promise<Uint8Array | undefined> {
    for (const version of await this.versions(path)) {
      const content = await this.ask(path, () => this.files.read(this.at(path, version.number)));
      const data = content.subarray(0, Math.max(0, content.length - DIGEST));
      if (textOf(content.subarray(data.length)) === sha256(data)) return data;
    }
    return undefined;
  }

  async size(path: string): Promise<number | undefined> {
    const newest = (await this.versions(path))[0];
    return newest && Math.max(0, newest.size - DIGEST);
  }

  async list(folder: string): Promise<string[]> {
    const names = (await this.entries(folder)).map(({ name }) => VERSIONED.exec(name)?.[1]);
    return [...new Set(names.filter((name): name is string => name !== undefined))];
  }

  async replace(path: string, data: Uint8Array, { forgets = false } = {}): Promise<void> {
    await this.put(path, data);
    // The version before is kept: then it is the same.
    if (forgets) await this.put(path, data);
  }

  private async put(path: string, data: Uint8Array): Promise<void> {
    const versions = await this.versions(path);
    const next = (versions[0]?.number ?? 0) + 1;
    const temporary = `${this.at(path, next)}${TEMPORARY}`;
    try {
      await this.files.remove(temporary).catch(() => undefined);
      await this.files.write(temporary, concatenate([data, utf8(sha256(data))]));
      await this.files.rename(temporary, this.at(path, next));
    } catch (error) {
      await this.files.remove(temporary).catch(() => undefined);
      throw new StorageError(
        `The phone refused (${reasonOf(error)}): could not write ${data.length} bytes to ${this.name}/${path}. ` +
          'Free some space and try again; nothing that was learned is lost.',
        { cause: error },
      );
    }
    for (const old of versions.slice(1)) {
      await this.files.remove(this.at(path, old.number)).catch(() => undefined);
    }
  }

  async remove(path: string): Promise<boolean> {
    let gone = true;
    // The oldest first: what is left must never be an older content than was there.
    for (const version of (await this.versions(path)).reverse()) {
      gone &&= await this.files.remove(this.at(path, version.number)).then(
        () => true,
        () => false,
      );
    }
    return gone;
  }

  async clean(folder: string): Promise<void> {
    for (const { name } of await this.entries(folder)) {
      const path = folder ? `${folder}/${name}` : name;
      if (name.endsWith(TEMPORARY)) await this.files.remove(`${this.name}/${path}`).catch(() => undefined);
    }
  }

  async lock(): Promise<StorageLock> {
    if (locked.has(this.name)) {
      throw new StateLockedError(
        `Another learner of this app is writing to ${this.name}. Wait for it to finish; nothing was changed.`,
      );
    }
    locked.add(this.name);
    return {
      release: async () => {
        locked.delete(this.name);
      },
    };
  }

  private at(path: string, version: number): string {
    return `${this.name}/${path}@${version}`;
  }

  /** The versions of a file, newest first. */
  private async versions(path: string): Promise<{ number: number; size: number }[]> {
    const slash = path.lastIndexOf('/');
    const entries = await this.entries(path.slice(0, Math.max(slash, 0)));
    const own = entries.flatMap(({ name, size }) => {
      const match = VERSIONED.exec(name);
      return match?.[1] === path.slice(slash + 1) ? [{ number: Number(match[2]), size }] : [];
    });
    return own.sort((a, b) => b.number - a.number);
  }

  private entries(folder: string): Promise<{ readonly name: string; readonly size: number }[]> {
    return this.ask(folder, () => this.files.list(folder ? `${this.name}/${folder}` : this.name));
  }

  private async ask<T>(path: string, look: () => Promise<T>): Promise<T> {
    try {
      return await look();
    } catch (error) {
      throw new StateError(
        `${this.name}/${path} cannot be read (${reasonOf(error)}): restart the app and try again.`,
        { cause: error },
      );
    }
  }
}
