/** Names that come from outside: of tasks and of classes, in any script. */

/** Characters of a class's name at most: every state keeps all of them. */
export const LONGEST = 1024;

/** Whether a name is not blank or overlong, has no control character, and can be written as UTF-8. */
export function isPlain(name: string): boolean {
  return name.trim() !== '' && [...name].length <= LONGEST && !/[\p{Cc}\p{Cs}]/u.test(name);
}
