/**
 * Which csk-sdk may read a state, and which may write to it: `min_reader` and `min_writer` of its records.
 *
 * Both are versions of the state's schema. What an older csk-sdk does not know in a record, it keeps and carries on; what
 * it would misread raises `min_reader`, and what it would make stale by writing raises `min_writer` (docs/state.md).
 */

import { StateError } from '../errors.js';
import { type Json, JsonNumber } from '../formats/json.js';
import { VERSION } from '../version.js';

/** The newest schema of states that this csk-sdk knows. */
export const STATE_SCHEMA_VERSION = 3;

/** A newer csk-sdk wrote it. That is no damage: nothing is mended, and nothing rolled back. */
export class NewerStateError extends StateError {}

/** The lowest versions of the schema that may read, and write, what a record belongs to. */
export interface Needs {
  readonly reader: number;
  readonly writer: number;
}

/** What every csk-sdk may read and write; what this one writes is. */
export const FIRST: Needs = { reader: 1, writer: 1 };
/** What a record that lists blocks needs. */
export const WITH_BLOCKS: Needs = { reader: 2, writer: 2 };
/** What a generation that knows domains needs: who does not see through these sees other features. */
export const WITH_DOMAINS: Needs = { reader: 3, writer: 3 };

/** What sealed JSON says of itself; what is absent is 1. Throws RangeError where that is no version. */
export function needsOf(raw: { readonly [key: string]: Json }): Needs {
  const [reader, writer] = [version(raw, 'min_reader'), version(raw, 'min_writer')];
  // Who cannot read a state cannot know what it would do to it.
  return { reader, writer: Math.max(reader, writer) };
}

function version(raw: { readonly [key: string]: Json }, name: string): number {
  if (!Object.hasOwn(raw, name)) return 1;
  const given = raw[name];
  if (given instanceof JsonNumber && /^[1-9]\d*$/.test(given.text)) return given.value;
  throw new RangeError(`'${name}' must be a version of the schema`);
}

/** What fulfils the two of them. */
export function bothOf(one: Needs, other: Needs): Needs {
  return { reader: Math.max(one.reader, other.reader), writer: Math.max(one.writer, other.writer) };
}

/** The fields of a record. None where they are 1: a csk-sdk of before they were known reads it, too. */
export function needsRecord({ reader, writer }: Needs): { [name: string]: number } {
  return { ...(reader > 1 ? { min_reader: reader } : {}), ...(writer > 1 ? { min_writer: writer } : {}) };
}

/** Throws NewerStateError where this csk-sdk may not read `what`. */
export function requireReader({ reader }: Needs, what: string): void {
  if (reader > STATE_SCHEMA_VERSION) {
    throw new NewerStateError(sentence(what, 'reading it', reader, 'update csk-sdk on this device.'));
  }
}

/** Throws NewerStateError where this csk-sdk may not write to `what`. */
export function requireWriter(needs: Needs, what: string): void {
  requireReader(needs, what);
  if (needs.writer > STATE_SCHEMA_VERSION) {
    const rest = 'update csk-sdk on this device; until then it predicts and exports.';
    throw new NewerStateError(sentence(what, 'writing to it', needs.writer, rest));
  }
}

function sentence(what: string, doing: string, needed: number, rest: string): string {
  return (
    `${what} was written by a newer csk-sdk, and ${doing} takes one that knows schema ${needed} of states ` +
    `(csk-sdk ${VERSION} knows ${STATE_SCHEMA_VERSION}): ${rest}`
  );
}
