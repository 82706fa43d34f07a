/** Names that come from outside: of tasks and of classes, in any script. */

import { LIMITS } from '../contract/thresholds.js';
import { utf8 } from './bytes.js';

/** Characters of a class's name at most: every state keeps all of them. */
export const LONGEST = 1024;

/** Bytes of the name of a task or a domain at most. */
export const LONGEST_FOLDER = LIMITS.nameBytes;

/** Whether a name is not blank or overlong, has no control character, and can be written as UTF-8. */
export function isPlain(name: string): boolean {
  const points = Array.from(name, (one) => one.codePointAt(0)!);
  // As Python's str.strip: not what String.trim takes for blank.
  return /\P{White_Space}/u.test(name) && points.length <= LONGEST && !points.some(isControlOrSurrogate);
}

/** Whether a plain name can be that of a folder, and part of a tensor's name: of a task, or of a domain. */
export function isFolderName(name: string): boolean {
  return isPlain(name) && !/[/\\]/.test(name) && utf8(name).length <= LONGEST_FOLDER;
}

function isControlOrSurrogate(point: number): boolean {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0xd800 && point < 0xe000);
}

/**
 * What is the same for two names that a person takes for one: upper and lower case, spaces at the ends, accents. Unicode's
 * canonical composition (NFC) and case folding, which is what lower case is of upper case; but a dotless i is no other i.
 */
export function likeness(name: string): string {
  const folded = Array.from(name.normalize('NFC'), (one) =>
    one === 'ı' ? one : one.toUpperCase().toLowerCase(),
  );
  return folded.join('').normalize('NFC').trim();
}

/**
 * The first of `names` that differs only so from a known one or an earlier one, and that one. A name that is known as it
 * stands has no twin.
 */
export function firstTwin(
  names: readonly string[],
  known: readonly string[],
): readonly [string, string] | undefined {
  const there = new Set(known);
  const alike = new Map([...there].reverse().map((name) => [likeness(name), name]));
  for (const name of names) {
    const other = alike.get(likeness(name)) ?? name;
    if (other !== name && !there.has(name)) return [name, other];
    alike.set(likeness(name), other);
  }
  return undefined;
}
