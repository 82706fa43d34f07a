/** A state in memory: for tests, and for learning that need not outlive the process. */

import { StateLockedError, StorageError } from '../errors.js';
import type { Storage, StorageLock } from './storage.js';

export class MemoryStorage implements Storage {
  readonly files = new Map<string, Uint8Array>();
  private locked = false;

  /** With `capacity`, in bytes, it can be full. */
  constructor(
    readonly name = 'the state in memory',
    private readonly capacity = Number.POSITIVE_INFINITY,
  ) {}

  async read(path: string): Promise<Uint8Array | undefined> {
    return this.files.get(path)?.slice();
  }

  async size(path: string): Promise<number | undefined> {
    return this.files.get(path)?.length;
  }

  async replace(path: string, data: Uint8Array): Promise<void> {
    // As on a disk, the old file is there until the new one is.
    const used = [...this.files.values()].reduce((sum, file) => sum + file.length, 0);
    if (used + data.length > this.capacity)
      throw fullError(`write ${data.length} bytes to ${this.name}/${path}`);
    this.files.set(path, data.slice());
  }

  async remove(path: string): Promise<boolean> {
    this.files.delete(path);
    return true;
  }

  async list(folder: string): Promise<string[]> {
    return namesBelow(this.files.keys(), folder);
  }

  async lock(): Promise<StorageLock> {
    if (this.locked) {
      throw new StateLockedError(
        `Another learner is writing to ${this.name}. Wait for it to finish; nothing was changed.`,
      );
    }
    this.locked = true;
    return {
      release: async () => {
        this.locked = false;
      },
    };
  }
}

/** The names of the files that lie directly in `folder`, of all paths. */
export function namesBelow(paths: Iterable<string>, folder: string): string[] {
  const prefix = folder ? `${folder}/` : '';
  return [...paths]
    .filter((path) => path.startsWith(prefix))
    .map((path) => path.slice(prefix.length))
    .filter((name) => !name.includes('/'));
}

/** The StorageError of a storage without room; `action` completes "could not ...". */
export function fullError(action: string, cause?: unknown): StorageError {
  return new StorageError(
    `The storage is full: could not ${action}. Free some space and learn the task again; ` +
      'nothing that was learned is lost.',
    { cause },
  );
}
