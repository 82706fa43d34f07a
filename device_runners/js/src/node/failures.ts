/** What the file system answered, as a sentence. */

import { reasonOf, StorageError } from '../errors.js';
import { fullError } from '../state/memoryStorage.js';

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

/** The StorageError that tells a user about `error`; `action` completes "could not ...". */
export function storageError(error: unknown, action: string): StorageError {
  const code = codeOf(error);
  if (FULL.has(code)) return fullError(action, error);
  const [what, advice] =
    code === 'EROFS'
      ? ['The file system is read-only', 'Remount it writable, or choose another folder']
      : code === 'EACCES' || code === 'EPERM'
        ? ['Permission denied', 'Give this user the right to write there, or choose another folder']
        : [`The disk refused (${reasonOf(error)})`, 'Check the disk and the path, and try again'];
  return new StorageError(`${what}: could not ${action}. ${advice}; nothing that was learned is lost.`, {
    cause: error,
  });
}

export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException)?.code ?? '';
}
