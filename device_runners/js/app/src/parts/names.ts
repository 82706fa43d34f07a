/** Names of classes: which there are, and which a person would take for one. */

import type { Known } from '../protocol.js';

/** All classes that are known, each once. */
export function namesIn({ base, tasks }: Known): string[] {
  return [...new Set([...base, ...tasks.flatMap(({ classes }) => classes)])];
}

/** What is the same for names that differ in case or spaces at their ends only. */
export function folded(name: string): string {
  return name.trim().toLocaleLowerCase();
}
