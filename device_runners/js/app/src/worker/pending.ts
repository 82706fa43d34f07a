/** The task being learned, kept in IndexedDB until it is, so that a closed tab costs nothing. */

import { StorageError } from 'csk-sdk';

/** A task: images to learn from and images to test with, each with the number of its class. */
export interface Pending {
  readonly task: string;
  readonly classes: readonly string[];
  readonly train: readonly Shown[];
  readonly test: readonly Shown[];
  /** Whether its labels looked wrong, or did and are to be believed all the same. */
  readonly labels?: 'refused' | 'believed';
  /** Whether it contradicts what is known, or did and is to be put in the place of that, or beside it. */
  readonly contradicts?: 'refused' | 'replaces' | 'adds';
  /** The known class that its only one cannot be told from; or that it is to be learned all the same. */
  readonly twin?: { readonly old: string } | 'counted';
}

export interface Shown {
  readonly picture: Blob;
  readonly label: number;
}

// As it was called when the first app was installed: tasks that wait there stay.
const STORE = 'lessons';
const KEY = 'pending';

export class PendingTask {
  private constructor(private readonly database: IDBDatabase) {}

  static async open(): Promise<PendingTask> {
    return new PendingTask(await opened());
  }

  async load(): Promise<Pending | undefined> {
    return read(this.database, KEY) as Promise<Pending | undefined>;
  }

  /** Throws StorageError where there is no room for the images. */
  async save(task: Pending): Promise<void> {
    await write(this.database, (store) => store.put(task, KEY));
  }

  async clear(): Promise<void> {
    await write(this.database, (store) => store.delete(KEY));
  }
}

/** What was remembered of this device under a name, beside the task; undefined where nothing was. */
export async function recall(key: string): Promise<unknown> {
  const database = await opened();
  try {
    return await read(database, key);
  } finally {
    database.close();
  }
}

export async function remember(key: string, value: unknown): Promise<void> {
  const database = await opened();
  try {
    await write(database, (store) => store.put(value, key));
  } finally {
    database.close();
  }
}

function read(database: IDBDatabase, key: string): Promise<unknown> {
  return done(database.transaction(STORE).objectStore(STORE).get(key));
}

/** Resolves when what `change` asks for is on the disk. */
function write(database: IDBDatabase, change: (store: IDBObjectStore) => unknown): Promise<void> {
  const transaction = database.transaction(STORE, 'readwrite');
  change(transaction.objectStore(STORE));
  return finished(transaction);
}

function opened(): Promise<IDBDatabase> {
  const request = indexedDB.open('csk-sdk-app', 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return done(request);
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(refused(request.error));
  });
}

function finished(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(refused(transaction.error));
  });
}

function refused(error: DOMException | null): StorageError {
  return new StorageError(
    `The browser could not store the images (${error?.message || 'no reason given'}): free some space on this ` +
      'device, or leave private browsing, and try again. What was learned is kept.',
  );
}
