/**
 * What a device says of its contributions: which there are, of which classes, and which it has taken back.
 *
 * A device says it anew with each export, and the newest counts: so a correction, or what was forgotten, travels. The device
 * is named by its key; one without a key by a number drawn once, which nobody can prove.
 */

import { isSignature, type Signed, type SigningKey } from '../bundle/signing.js';
import { SENTENCES } from '../contract/sentences.js';
import { STATEMENT_SCHEMA } from '../contract/statementSchema.js';
import { FleetError, reasonOf } from '../errors.js';
import { sha256 } from '../formats/bytes.js';
import { dumps, type Json, JsonNumber, plain, pythonFloat } from '../formats/json.js';
import { isPlain } from '../formats/names.js';
import { parseShallow, violation } from '../formats/schema.js';
import { filled } from '../formats/sentences.js';

const PURPOSE = 'fleet statement';

/** One contribution: of which class, the name of its bytes, how many images, and what was measured of the lesson. */
export interface Entry {
  readonly name: string;
  readonly id: string;
  readonly count: number;
  readonly temperature: number | undefined;
}

/** What a device says; `sketches` names by class the bytes of what is usual for its images. */
export interface Said {
  readonly bundle: string;
  readonly device: string;
  readonly name: string;
  readonly sequence: number;
  readonly entries: readonly Entry[];
  readonly sketches: ReadonlyMap<string, string>;
  /** Contributions that count no more. */
  readonly withdrawn: readonly string[];
}

/** The same with `text`, which is what `signature` is of, by `key`; both are empty where nobody signed. */
export interface Statement extends Said, Signed {
  readonly text: string;
}

/** An entry as a statement has it. */
export function entryJson({ name, id, count, temperature }: Entry): Json {
  const measured = temperature === undefined ? null : pythonFloat(temperature);
  return { class: name, id, count: pythonFloat(count), temperature: measured };
}

/** Say it, and sign it with the device's key, where it has one. */
export async function stated(said: Said, key: SigningKey | undefined): Promise<Statement> {
  const { bundle, device, name, withdrawn } = said;
  const content = {
    ...{ bundle, device, name },
    sequence: new JsonNumber(String(said.sequence)),
    entries: said.entries.map(entryJson),
    sketches: Object.fromEntries(said.sketches),
    withdrawn: [...withdrawn],
  };
  const text = dumps(content, { sorted: true, compact: true, unescaped: true });
  const signed = key ? await key.sign(PURPOSE, text) : { key: '', signature: '' };
  return { ...said, text, ...signed };
}

/** The names of all bytes that belong to a statement. */
export function blobsOf({ entries, sketches }: Said): string[] {
  return [...entries.map(({ id }) => id), ...sketches.values()];
}

interface Raw {
  readonly bundle: string;
  readonly device: string;
  readonly name: string;
  readonly sequence: number;
  readonly entries: readonly { class: string; id: string; count: number; temperature: number | null }[];
  readonly sketches: Readonly<Record<string, string>>;
  readonly withdrawn: readonly string[];
}

/**
 * Of a file. Throws FleetError, the end of a sentence about it, for what is none, or not signed as it says; ConfigError where
 * this engine cannot tell.
 */
export async function readStatement(given: Signed & { readonly text: string }): Promise<Statement> {
  const { text, key, signature } = given;
  let json: Json;
  try {
    // A surrogate without its other half, of which UTF-8 has none.
    if (/[\ud800-\udfff]/u.test(text)) throw new SyntaxError('it is no text');
    json = parseShallow(text);
  } catch (error) {
    throw new FleetError(filled(SENTENCES.statementNoJson, { reason: reasonOf(error) }));
  }
  const wrong = violation(json, STATEMENT_SCHEMA);
  if (wrong !== undefined) throw new FleetError(filled(SENTENCES.statementNone, { wrong }));
  const said = plain(json) as Raw;
  const names = [said.name, ...said.entries.map((one) => one.class), ...Object.keys(said.sketches)];
  if (!names.every(isPlain)) throw new FleetError(SENTENCES.statementNoName);
  if (Boolean(key) !== Boolean(signature)) throw new FleetError(SENTENCES.statementHalf);
  if (key && said.device !== deviceOf(key)) throw new FleetError(SENTENCES.statementOtherDevice);
  if (key && !(await isSignature(PURPOSE, text, given))) {
    throw new FleetError(filled(SENTENCES.statementUnsigned, { device: said.device.slice(0, 8) }));
  }
  const entries = said.entries.map(({ class: name, id, count, temperature }) => ({
    ...{ name, id, count },
    temperature: temperature ?? undefined,
  }));
  const { bundle, device, name, sequence, withdrawn } = said;
  const sketches = new Map(Object.entries(said.sketches));
  return { bundle, device, name, sequence, entries, sketches, withdrawn, text, key, signature };
}

/** The device that has the public key `key`, 64 hexadecimal digits: its fingerprint. */
export function deviceOf(key: string): string {
  return sha256(Uint8Array.from(key.match(/../g)!, (pair) => Number.parseInt(pair, 16)));
}
