/** Where a state lives: named files that are replaced as a whole. */

/** A writer's lock; give it back with `release`. The system drops it when its holder dies. */
export interface StorageLock {
  release(): Promise<void>;
}

/**
 * Files by path, such as "generations/000001.json", below a place of the storage's own.
 *
 * Every method throws StateError where the storage cannot be read, and StorageError where it is full or refuses to be
 * written; a file then is as it was.
 */
export interface Storage {
  /** What messages call it, such as its folder. */
  readonly name: string;
  /** The bytes of a file; undefined where there is none. */
  read(path: string): Promise<Uint8Array | undefined>;
  /** The size of a file in bytes; undefined where there is none. */
  size(path: string): Promise<number | undefined>;
  /**
   * Make `data` the content of `path`, atomically: a reader, now or after a crash, sees the old or the new whole. When
   * the promise is kept, the new content survives a power cut, unless `durable` is false. With `forgets`, nothing of the
   * content before is kept anywhere.
   */
  replace(path: string, data: Uint8Array, options?: { durable?: boolean; forgets?: boolean }): Promise<void>;
  /** Remove a file if possible; true when it is gone. Failing is not an error: it only takes space. */
  remove(path: string): Promise<boolean>;
  /** Where files were removed from a folder, they stay so, whatever a power cut does to what is changed next. */
  settle?(folder: string): Promise<void>;
  /** The names of the files in a folder ("" for the top); none where there is no such folder. */
  list(folder: string): Promise<string[]>;
  /** Become the only writer. Throws StateLockedError at once where somebody else is. */
  lock(): Promise<StorageLock>;
  /** Remove what killed writers left half-written in a folder. Called with the lock held. */
  clean?(folder: string): Promise<void>;
}
