/**
 * A state in a folder, as the Python SDK keeps it: each opens what the other wrote.
 *
 * Every change writes a temporary file in the same folder, fsyncs it, renames it over its name, and fsyncs the folder.
 */

import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { reasonOf, StateError } from '../errors.js';
import type { Storage, StorageLock } from '../state/storage.js';
import { codeOf, storageError } from './failures.js';
import { lockFolder } from './lock.js';
import { readFileAt } from './opening.js';

// Leading dot and suffix together: no file that a user or csk-sdk keeps is ever named so.
const TEMPORARY = '.csk-tmp';
const MISSING = new Set(['ENOENT', 'ENOTDIR']);
// What file systems answer that cannot fsync a folder, or may not open it.
const NO_FOLDER_SYNC = new Set(['EINVAL', 'ENOTSUP', 'EBADF', 'EACCES', 'EPERM', 'EISDIR']);

export class FolderStorage implements Storage {
  constructor(readonly name: string) {}

  async read(path: string): Promise<Uint8Array | undefined> {
    return this.ask(path, (file) => readFileAt(file));
  }

  async size(path: string): Promise<number | undefined> {
    return (await this.ask(path, (file) => stat(file)))?.size;
  }

  async list(folder: string): Promise<string[]> {
    return (await this.ask(folder, (path) => readdir(path))) ?? [];
  }

  async replace(path: string, data: Uint8Array, { durable = true } = {}): Promise<void> {
    const target = join(this.name, path);
    await makeFolder(dirname(target));
    const unique = `${process.pid}-${randomBytes(4).toString('hex')}`;
    const temporary = join(dirname(target), `.${path.split('/').at(-1)}.${unique}${TEMPORARY}`);
    try {
      await writeSynced(temporary, data);
      await rename(temporary, target);
      if (durable) await syncFolder(dirname(target));
    } catch (error) {
      await unlink(temporary).catch(() => undefined);
      throw storageError(error, `write ${data.length} bytes to ${target}`);
    }
  }

  async remove(path: string): Promise<boolean> {
    try {
      await unlink(join(this.name, path));
      return true;
    } catch (error) {
      return codeOf(error) === 'ENOENT';
    }
  }

  async settle(folder: string): Promise<void> {
    const path = join(this.name, folder);
    if (!(await this.ask(folder, () => stat(path)))) return;
    try {
      await syncFolder(path);
    } catch (error) {
      throw storageError(error, `remove files in ${path}`);
    }
  }

  async lock(): Promise<StorageLock> {
    await makeFolder(this.name);
    return lockFolder(this.name);
  }

  async clean(folder: string): Promise<void> {
    for (const name of await this.list(folder)) {
      if (name.startsWith('.') && name.endsWith(TEMPORARY)) await this.remove(join(folder, name));
    }
  }

  /** What `look` finds at a path; undefined where there is nothing. Throws StateError where it cannot be read. */
  private async ask<T>(path: string, look: (path: string) => Promise<T>): Promise<T | undefined> {
    const whole = join(this.name, path);
    try {
      return await look(whole);
    } catch (error) {
      if (MISSING.has(codeOf(error))) return undefined;
      throw new StateError(
        `${whole} cannot be read (${reasonOf(error)}): check the disk and the permissions, and try again.`,
        { cause: error },
      );
    }
  }
}

/** Create a folder and its parents, durably. Throws StorageError. */
async function makeFolder(path: string): Promise<void> {
  try {
    const first = await mkdir(path, { recursive: true });
    if (first === undefined) return;
    for (let made = path; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made));
  } catch (error) {
    throw storageError(error, `create the folder ${path}`);
  }
}

async function writeSynced(path: string, data: Uint8Array): Promise<void> {
  const file = await open(path, 'wx');
  try {
    for (let done = 0; done < data.length; ) done += (await file.write(data, done)).bytesWritten;
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncFolder(path: string): Promise<void> {
  // Windows has no such call; NTFS journals the rename itself.
  if (process.platform === 'win32') return;
  let folder: FileHandle | undefined;
  try {
    folder = await open(path, 'r');
    await folder.sync();
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(codeOf(error))) throw error;
  } finally {
    await folder?.close();
  }
}
