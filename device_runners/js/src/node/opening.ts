/**
 * Opening files that others may have put there: the one way in which csk-sdk opens a file by its name to read it.
 *
 * A pipe would be waited for, and a device may never end: only ordinary files are read, bounded, and with `within` only
 * such as lie in that folder, links or not. Mirrors csk_sdk/formats/opening.py.
 */

import { constants } from 'node:fs';
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { sep } from 'node:path';

/** The largest file that is read, in bytes: an ONNX file, and all its weights, have less. */
export const LARGEST_FILE = 2 ** 31;

// Windows has none of these; there a pipe or a device is not a name in a folder.
const NO_WAIT = (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);
const NO_LINK = constants.O_NOFOLLOW ?? 0;

/** How to open a file of one's own to write into it: never what a link leads to, never waiting for a pipe's reader. */
export const OWN_FILE = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | NO_LINK | NO_WAIT;

/**
 * The bytes of an ordinary file; of a longer one than `most`, the first `most` + 1. Throws an Error, or the system's where
 * there is none, or it cannot be opened.
 */
export async function readFileAt(
  path: string,
  { most = LARGEST_FILE, within }: { most?: number; within?: string } = {},
): Promise<Uint8Array> {
  const target = within === undefined ? path : await inside(path, within);
  // Before it is opened: some devices act on that.
  if (!(await stat(target)).isFile()) throw notOrdinary();
  const file = await open(target, constants.O_RDONLY | NO_WAIT | (within === undefined ? 0 : NO_LINK));
  try {
    const status = await file.stat();
    if (!status.isFile()) throw notOrdinary();
    if (within !== undefined && target !== (await inside(path, within))) throw outside(within);
    if (status.size > LARGEST_FILE) throw new Error(`it has ${status.size} bytes`);
    return await readUpTo(file, Math.min(status.size, most + 1));
  } finally {
    await file.close();
  }
}

export function notOrdinary(): Error {
  return new Error('not an ordinary file');
}

async function inside(path: string, within: string): Promise<string> {
  const target = await realpath(path);
  if (!target.startsWith((await realpath(within)) + sep)) throw outside(within);
  return target;
}

function outside(within: string): Error {
  return new Error(`it is a link that leads out of ${within}`);
}

async function readUpTo(file: FileHandle, size: number): Promise<Uint8Array> {
  const content = new Uint8Array(size);
  let done = 0;
  while (done < size) {
    const { bytesRead } = await file.read(content, done, size - done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return content.subarray(0, done);
}
