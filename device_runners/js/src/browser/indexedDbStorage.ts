/**
 * A state in a browser's IndexedDB: one database for each state, one entry for each file.
 *
 * An entry is written in a transaction, so that a reader, now or after a crash, sees the old or the new whole. Ask the
 * browser once for `navigator.storage.persist()`, or it may drop the database when it needs room.
 */

import { reasonOf, StateError, StateLockedError, StorageError } from '../errors.js';
import { fullError, namesBelow } from '../state/memoryStorage.js';
import type { Storage, StorageLock } from '../state/storage.js';

const FILES = 'files';
const SIZES = 'sizes';
const PREFIX = 'csk-sdk:';

export class IndexedDbStorage implements Storage {
  private constructor(
    readonly name: string,
    private readonly database: IDBDatabase,
  ) {}

  /** Open the state called `name` of this web site; it is made where there is none. Throws StorageError. */
  static async open(name = 'state'): Promise<IndexedDbStorage> {
    const request = indexedDB.open(PREFIX + name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(FILES);
      request.result.createObjectStore(SIZES);
    };
    try {
      const database = await done(request);
      // Another tab with a newer version of the application must not wait for this one.
      database.onversionchange = () => database.close();
      return new IndexedDbStorage(name, database);
    } catch (error) {
      throw new StorageError(
        `The browser refused to open its database for ${name} (${reasonOf(error)}): leave private browsing, or allow ` +
          'this site to store data.',
        { cause: error },
      );
    }
  }

  async read(path: string): Promise<Uint8Array | undefined> {
    return this.ask(path, () => this.store(FILES).get(path) as IDBRequest<Uint8Array | undefined>);
  }

  async size(path: string): Promise<number | undefined> {
    return this.ask(path, () => this.store(SIZES).get(path) as IDBRequest<number | undefined>);
  }

  async list(folder: string): Promise<string[]> {
    const keys = await this.ask(folder, () => this.store(SIZES).getAllKeys());
    return namesBelow(keys.map(String), folder);
  }

  async replace(path: string, data: Uint8Array, { durable = true } = {}): Promise<void> {
    try {
      const options = { durability: durable ? 'strict' : 'relaxed' } as const;
      const transaction = this.database.transaction([FILES, SIZES], 'readwrite', options);
      transaction.objectStore(FILES).put(data.slice(), path);
      transaction.objectStore(SIZES).put(data.length, path);
      await committed(transaction);
    } catch (error) {
      throw refused(error, `write ${data.length} bytes to ${this.name}/${path}`);
    }
  }

  /** Make these files, by path, all that there is: in one transaction, so that a crash leaves the old or the new. */
  async replaceAll(files: ReadonlyMap<string, Uint8Array>): Promise<void> {
    const transaction = this.database.transaction([FILES, SIZES], 'readwrite', { durability: 'strict' });
    const ended = committed(transaction);
    try {
      for (const name of [FILES, SIZES]) transaction.objectStore(name).clear();
      for (const [path, data] of files) {
        transaction.objectStore(FILES).put(data.slice(), path);
        transaction.objectStore(SIZES).put(data.length, path);
      }
    } catch (error) {
      // What was asked for before would be committed all the same.
      transaction.abort();
      await ended.catch(() => undefined);
      throw refused(error, `replace what is in ${this.name}`);
    }
    await ended.catch((error) => {
      throw refused(error, `replace what is in ${this.name}`);
    });
  }

  async remove(path: string): Promise<boolean> {
    try {
      const transaction = this.database.transaction([FILES, SIZES], 'readwrite');
      transaction.objectStore(FILES).delete(path);
      transaction.objectStore(SIZES).delete(path);
      await committed(transaction);
      return true;
    } catch {
      return false;
    }
  }

  /** A lock of the browser, over all tabs and workers of the site, dropped when its holder is closed. */
  async lock(): Promise<StorageLock> {
    return new Promise((resolve, reject) => {
      const held = navigator.locks.request(PREFIX + this.name, { ifAvailable: true }, (lock) => {
        if (!lock) {
          throw new StateLockedError(
            `Another tab or worker is writing to ${this.name}. Wait for it to finish, or close it; nothing was changed.`,
          );
        }
        return new Promise<void>((release) => {
          resolve({
            release: async () => {
              release();
              await held;
            },
          });
        });
      });
      held.catch(reject);
    });
  }

  /** Close the database, so that it can be deleted. */
  close(): void {
    this.database.close();
  }

  /** Delete the state called `name` of this web site, and everything learned in it. */
  static async delete(name = 'state'): Promise<void> {
    await done(indexedDB.deleteDatabase(PREFIX + name));
  }

  private store(name: string): IDBObjectStore {
    return this.database.transaction(name, 'readonly').objectStore(name);
  }

  private async ask<T>(path: string, request: () => IDBRequest<T>): Promise<T> {
    try {
      return await done(request());
    } catch (error) {
      throw new StateError(
        `${this.name}/${path} cannot be read (${reasonOf(error)}): reload the page and try again.`,
        {
          cause: error,
        },
      );
    }
  }
}

/** What a transaction that was not committed means; `action` completes "could not ...". */
function refused(error: unknown, action: string): StorageError {
  // Chromium says of a full disk that an IO error closes the connection.
  const isFull = (error as DOMException)?.name === 'QuotaExceededError' || /NO_SPACE/.test(reasonOf(error));
  if (isFull) return fullError(action, error);
  return new StorageError(
    `The browser refused (${reasonOf(error)}): could not ${action}. Reload the page and try again; ` +
      'nothing that was learned is lost.',
    { cause: error },
  );
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
    transaction.onerror = () => reject(transaction.error);
  });
}
