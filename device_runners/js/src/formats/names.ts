/** Names that come from outside: of tasks and of classes, in any script. */

/** Characters of a class's name at most: every state keeps all of them. */
export const LONGEST = 1024;

/** Whether a name is not blank or overlong, has no control character, and can be written as UTF-8. */
export function isPlain(name: string): boolean {
  const points = Array.from(name, (one) => one.codePointAt(0)!);
  // As Python's str.strip: not what String.trim takes for blank.
  return /\P{White_Space}/u.test(name) && points.length <= LONGEST && !points.some(isControlOrSurrogate);
}

function isControlOrSurrogate(point: number): boolean {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0xd800 && point < 0xe000);
}
