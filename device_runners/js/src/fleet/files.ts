/**
 * A `.cskc` file: what devices say, or what was made of it, and the bytes that belong to it.
 *
 * It is a safetensors file whose tensors are bytes, each named by its sha256; `fleet` of its metadata says what they are,
 * `check` is the sha256 of that, `key` and `signature` are of who wrote the file, where somebody signed it. docs/fleet.md.
 */

import { isSignature } from '../bundle/signing.js';
import { FLEET_SCHEMA } from '../contract/fleetSchema.js';
import { SENTENCES } from '../contract/sentences.js';
import { FleetError, reasonOf } from '../errors.js';
import { concatenate, sha256, utf8 } from '../formats/bytes.js';
import { byCodePoint, dumps, isObject, type Json, JsonNumber, plain, pythonFloat } from '../formats/json.js';
import { isPlain } from '../formats/names.js';
import { type Place, readHeader } from '../formats/safetensors.js';
import { isInteger, parseShallow, violation } from '../formats/schema.js';
import { filled, grouped } from '../formats/sentences.js';
import { circleIn } from '../method/consensus.js';
import { contentId, MOST_ROWS, packedBytes } from './packing.js';
import { blobsOf, readStatement, type Statement } from './statement.js';

const SCHEMA = 1;
const PURPOSE = 'fleet file';
// A surrogate without its other half, of which UTF-8 has none.
const HALF = /[\ud800-\udfff]/u;
// The names of all contributions of a fleet, or a contribution of very many features.
const LARGEST_BLOB = 64 << 20;

/** One class of merged knowledge: the bytes of its contribution, how many images, of how many devices. */
export interface MergedClass {
  readonly name: string;
  readonly id: string;
  readonly count: number;
  readonly devices: number;
  /** Empty where nothing was measured. */
  readonly sketch: string;
}

/** What a fleet knows: one contribution for each class; `included` names the bytes that list what it is made of. */
export interface Merged {
  readonly classes: readonly MergedClass[];
  /** As a file spells it: Python's 1.0 is not 1. */
  readonly temperature: JsonNumber | undefined;
  readonly included: string;
  readonly devices: number;
}

/** What a file says: of the bundle with this id, and so many features; `same` are classes that are another one. */
export interface Content {
  readonly bundle: string;
  readonly features: number;
  readonly statements: readonly Statement[];
  readonly same: ReadonlyMap<string, string>;
  readonly merged?: Merged;
}

/** What names merged knowledge: of two files with the same, one is enough. Python's number, too. */
export function knowledgeOf(content: Content): string {
  const { classes, temperature, included, devices } = content.merged!;
  const whole = (value: number): JsonNumber => new JsonNumber(String(value));
  const merged = {
    classes: classes.map((one) => ({ ...one, count: pythonFloat(one.count), devices: whole(one.devices) })),
    temperature: temperature ?? null,
    included,
    devices: whole(devices),
  };
  return sha256(dumps([content.bundle, merged, Object.fromEntries(content.same)], { sorted: true }));
}

/** A file that was read; `key` is the public key of who signed it, empty where nobody did. */
export class FleetFile {
  private constructor(
    private readonly bytes: Uint8Array,
    /** What messages call it. */
    readonly path: string,
    readonly content: Content,
    readonly key: string,
    private readonly places: ReadonlyMap<string, Place>,
  ) {}

  /**
   * Read what a file says. Throws FleetError where it is no such file, damaged, or only for newer readers, ConfigError where
   * it is signed and this engine cannot check that.
   */
  static async open(bytes: Uint8Array, path: string): Promise<FleetFile> {
    let header: ReturnType<typeof readHeader>;
    try {
      header = readHeader(bytes);
    } catch (error) {
      throw new FleetError(filled(SENTENCES.fleetUnreadable, { path, reason: reasonOf(error) }));
    }
    const { places, metadata } = header;
    try {
      const { content, key } = await contentOf(metadata);
      requireBytes(content, places);
      return new FleetFile(bytes, path, content, key, places);
    } catch (error) {
      if (!(error instanceof FleetError)) throw error;
      throw new FleetError(filled(SENTENCES.fleetFile, { path, wrong: error.message }));
    }
  }

  /** The bytes of this name. Throws FleetError where they are other ones. */
  blob(name: string): Uint8Array {
    const { begin, end } = this.places.get(name)!;
    const found = this.bytes.subarray(begin, end);
    if (contentId(found) === name) return found;
    throw new FleetError(filled(SENTENCES.fleetDamaged, { path: this.path }));
  }
}

interface Raw {
  readonly bundle: string;
  readonly features: number;
  readonly statements: readonly { text: string; key: string; signature: string }[];
  readonly same: Readonly<Record<string, string>>;
  readonly merged?: Omit<Merged, 'temperature'> & { readonly temperature: number | null };
}

/** What the metadata say, and who signed it. */
async function contentOf(metadata: ReadonlyMap<string, string>): Promise<{ content: Content; key: string }> {
  const json = await saidIn(metadata);
  const raw = plain(json) as Raw;
  const statements: Statement[] = [];
  for (const one of raw.statements) statements.push(await readStatement(one));
  if (new Set(statements.map(({ device }) => device)).size < statements.length) {
    throw new FleetError(SENTENCES.fleetTwice);
  }
  if (statements.some(({ bundle }) => bundle !== raw.bundle))
    throw new FleetError(SENTENCES.fleetOtherStatement);
  const merged = raw.merged && mergedOf(raw.merged, (json.merged as { temperature: Json }).temperature);
  if (merged && statements.length) throw new FleetError(SENTENCES.fleetBoth);
  const same = new Map(Object.entries(raw.same));
  if (![...same].flat().every(isPlain)) throw new FleetError(SENTENCES.fleetNoName);
  const circle = circleIn(same);
  if (circle !== undefined) throw new FleetError(filled(SENTENCES.fleetCircle, { name: circle }));
  const { bundle, features } = raw;
  const content = { bundle, features, statements, same, ...(merged ? { merged } : {}) };
  return { content, key: metadata.get('key') ?? '' };
}

/** What a file says, held against its checksum, its schema and its signature. */
async function saidIn(metadata: ReadonlyMap<string, string>): Promise<{ readonly [key: string]: Json }> {
  const text = metadata.get('fleet');
  if (text === undefined) throw new FleetError(SENTENCES.fleetNone);
  if (metadata.get('check') !== sha256(text) || HALF.test(text))
    throw new FleetError(SENTENCES.fleetChecksum);
  let json: Json;
  try {
    json = parseShallow(text);
  } catch (error) {
    throw new FleetError(filled(SENTENCES.fleetNoJson, { reason: reasonOf(error) }));
  }
  const least = isObject(json) ? json.min_reader : undefined;
  if (isInteger(least) && least.value > SCHEMA) {
    throw new FleetError(filled(SENTENCES.fleetNewer, { schema: String(BigInt(least.text)), own: SCHEMA }));
  }
  const wrong = violation(json, FLEET_SCHEMA);
  if (wrong !== undefined || !isObject(json)) throw new FleetError(wrong ?? SENTENCES.fleetNone);
  const [key = '', signature = ''] = [metadata.get('key'), metadata.get('signature')];
  if ((key || signature) && !(await isSignature(PURPOSE, text, { key, signature }))) {
    throw new FleetError(SENTENCES.fleetUnsigned);
  }
  return json;
}

function mergedOf(raw: NonNullable<Raw['merged']>, spelled: Json): Merged {
  const classes = raw.classes.map(({ name, id, count, devices, sketch }) => ({
    ...{ name, id, count, devices, sketch },
  }));
  const names = classes.map(({ name }) => name);
  if (new Set(names).size < names.length || !names.every(isPlain)) {
    throw new FleetError(SENTENCES.fleetClassTwice);
  }
  const temperature = spelled instanceof JsonNumber ? asPython(spelled) : undefined;
  return { classes, temperature, included: raw.included, devices: raw.devices };
}

/** A number as Python spells what it has read: a whole one stays one. */
function asPython(number: JsonNumber): JsonNumber {
  return /^-?\d+$/.test(number.text)
    ? new JsonNumber(String(BigInt(number.text)))
    : pythonFloat(number.value);
}

function blobNames({ statements, merged }: Content): string[] {
  const ofMerged = merged
    ? [...merged.classes.flatMap(({ id, sketch }) => (sketch ? [id, sketch] : [id])), merged.included]
    : [];
  return [...new Set([...statements.flatMap(blobsOf), ...ofMerged])].sort(byCodePoint);
}

/** Refuse what lacks bytes, or has more than there can be, before any is read. */
function requireBytes(content: Content, places: ReadonlyMap<string, Place>): void {
  const most = Math.max(LARGEST_BLOB, packedBytes(MOST_ROWS, content.features));
  for (const name of blobNames(content)) {
    const place = places.get(name);
    if (!place) throw new FleetError(SENTENCES.fleetMissing);
    const bytes = place.end - place.begin;
    if (bytes > most) throw new FleetError(filled(SENTENCES.fleetTooLarge, { bytes: grouped(bytes) }));
  }
}

/** The file of what one device says, with the bytes of each name. */
export function fileOf(
  bundle: string,
  features: number,
  statement: Statement,
  blobs: ReadonlyMap<string, Uint8Array>,
): Uint8Array {
  const { text, key, signature } = statement;
  const content = {
    schema: new JsonNumber(String(SCHEMA)),
    min_reader: new JsonNumber(String(SCHEMA)),
    bundle,
    features: new JsonNumber(String(features)),
    statements: [{ text, key, signature }],
    same: {},
  };
  const fleet = dumps(content, { sorted: true, compact: true, unescaped: true });
  const names = [...new Set(blobsOf(statement))].sort(byCodePoint);
  const header: Record<string, unknown> = { __metadata__: { fleet, check: sha256(fleet) } };
  let end = 0;
  for (const name of names) {
    const begin = end;
    end += blobs.get(name)!.length;
    header[name] = { dtype: 'U8', shape: [end - begin], data_offsets: [begin, end] };
  }
  const said = utf8(JSON.stringify(header));
  const padded = new Uint8Array(8 * Math.ceil(said.length / 8)).fill(0x20);
  padded.set(said);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  return concatenate([length, padded, ...names.map((name) => blobs.get(name)!)]);
}
