/**
 * One writer at a time, the Python SDK included: the operating system's lock (flock) on the file `lock`.
 *
 * Node cannot ask for it, so the program `flock` does (util-linux or busybox, on about every Linux): it locks a file that
 * this process opened and passed on, and ends. The lock belongs to the open file, so it stays, and is dropped when this
 * process closes the file or dies. Where there is no such program (macOS, Windows), a file `lock.node` that names the
 * process takes its place, which excludes other Node processes only.
 */

import { spawn } from 'node:child_process';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { StateError, StateLockedError } from '../errors.js';
import { textOf } from '../formats/bytes.js';
import type { StorageLock } from '../state/storage.js';
import { codeOf, storageError } from './failures.js';
import { OWN_FILE, readFileAt } from './opening.js';

// Of what is read in a file that says who holds a lock.
const LONGEST = 1 << 12;
// What a link and a socket answer when they are opened as a file of one's own.
const ODD = new Set(['ELOOP', 'ENXIO']);

// Folders that this process writes to, or is about to: what the lock's file says takes a moment to be there.
const ours = new Set<string>();

/** Lock a folder, which must exist. Throws StateLockedError at once where somebody else writes, or StorageError. */
export async function lockFolder(folder: string): Promise<StorageLock> {
  const place = resolve(folder);
  if (ours.has(place)) throw busy(folder, String(process.pid));
  ours.add(place);
  try {
    const { release } = await lockedFolder(folder);
    return { release: () => release().finally(() => ours.delete(place)) };
  } catch (error) {
    ours.delete(place);
    throw error;
  }
}

async function lockedFolder(folder: string): Promise<StorageLock> {
  const path = join(folder, 'lock');
  const file = await opened(path);
  const status = await flock(file.fd);
  if (status === 'held') {
    await sign(file, `pid ${process.pid}\n${process.argv.join(' ')}\n`);
    return {
      release: async () => {
        // Emptied, never deleted: a process that has just opened the file would lock a name that is gone.
        await sign(file, '');
        await file.close();
      },
    };
  }
  const holder = /^pid (\d+)/.exec(await textAt(path))?.[1];
  await file.close();
  if (status === 'busy') throw busy(folder, holder);
  return lockByFile(folder);
}

function flock(descriptor: number): Promise<'held' | 'busy' | 'unknown'> {
  return new Promise((done) => {
    const child = spawn('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', descriptor] });
    child.on('error', () => done('unknown'));
    child.on('exit', (code) => done(code === 0 ? 'held' : code === 1 ? 'busy' : 'unknown'));
  });
}

/** Only for humans: a full disk must not keep anyone from taking the lock. */
async function sign(file: FileHandle, text: string): Promise<void> {
  try {
    await file.truncate(0);
    await file.write(text);
  } catch {
    // See above.
  }
}

async function lockByFile(folder: string): Promise<StorageLock> {
  const path = join(folder, 'lock.node');
  const holder = Number(await textAt(path));
  if (holder && isAlive(holder)) throw busy(folder, String(holder));
  if (holder) await unlink(path).catch(() => undefined);
  let file: FileHandle;
  try {
    file = await open(path, 'wx');
  } catch (error) {
    if (codeOf(error) === 'EEXIST') throw busy(folder);
    throw storageError(error, `create ${path}`);
  }
  await file.write(String(process.pid));
  await file.close();
  return { release: () => unlink(path) };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

function busy(folder: string, pid?: string): StateLockedError {
  const who =
    pid === undefined
      ? 'Another process'
      : `${pid === String(process.pid) ? 'This' : 'Another'} process (pid ${pid})`;
  return new StateLockedError(
    `${who} is writing to ${folder}. Wait for it to finish, or stop it; nothing was changed.`,
  );
}

async function opened(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    file = await open(path, OWN_FILE, 0o666);
  } catch (error) {
    if (ODD.has(codeOf(error))) throw odd(path);
    throw storageError(error, `create ${path}`);
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw odd(path);
}

function odd(path: string): StateError {
  return new StateError(`${path} is not an ordinary file: remove it, and run the command again.`);
}

/** What a file of a lock says, or nothing. */
async function textAt(path: string): Promise<string> {
  try {
    return textOf(await readFileAt(path, { most: LONGEST }));
  } catch {
    return '';
  }
}
