/**
 * What a fleet knows, of a file that keeps devices apart: of each class one contribution, made of those of all devices that can
 * be believed. As csk_sdk/fleet/reducing.py does it, in one order for all.
 */

import { FLEET } from '../contract/thresholds.js';
import { FleetError } from '../errors.js';
import { byCodePoint, pythonFloat } from '../formats/json.js';
import { apart, median, outOfMeasure, type Part, renamed, Space } from '../method/consensus.js';
import { type Contribution, ContributionSum, Lesson } from '../method/contributions.js';
import { ClassStatistics } from '../method/heads.js';
import { columnSquares } from '../method/matrix.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import type { Content, FleetFile, Merged, MergedClass } from './files.js';
import { contentId, odd, pack, packSketch, type SketchRow, unpack, unpackSketch } from './packing.js';
import type { Entry, Statement } from './statement.js';

/** Merged knowledge: what a file says of it, and the bytes. */
export interface Reduced {
  readonly content: Content & { readonly merged: Merged };
  blob(name: string): Uint8Array;
}

/** A contribution that counts: of which device, and what it says of it; `name` is the class that it belongs to. */
interface Held {
  readonly statement: Statement;
  readonly entry: Entry;
  readonly name: string;
}

/** What a file comes to; as it is where it is merged. Throws FleetError where it is damaged. */
export function reducedOf(file: FleetFile): Reduced {
  const { content } = file;
  const { merged } = content;
  if (merged) return { content: { ...content, merged }, blob: (name) => file.blob(name) };
  const held = heldIn(content);
  const { parts, doubted } = partsOf(file, held);
  for (const device of outOfMeasure(parts)) doubted.add(device);
  const believed = (): Held[] => held.filter(({ statement }) => !doubted.has(statement.device));
  const space = spaceOf(file, believed());
  if (space) for (const device of apart(parts, space)) doubted.add(device);
  const kept = believed();
  const blobs = new Map<string, Uint8Array>();
  const keep = (blob: Uint8Array): string => {
    const id = contentId(blob);
    blobs.set(id, blob);
    return id;
  };
  const devices = new Set(kept.map(({ statement }) => statement.device));
  const sketches = sketchesOf(file, devices);
  const classes = [...byClass(kept)].map(([name, ofClass]): MergedClass => {
    const holders = new Set(ofClass.map(({ statement }) => statement.device)).size;
    const count = ofClass.reduce((sum, { entry }) => sum + entry.count, 0);
    const sketch = sketches.get(name);
    const id = keep(together(file, ofClass));
    return { name, id, count, devices: holders, sketch: sketch ? keep(packSketch(sketch)) : '' };
  });
  const ids = [...new Set(kept.map(({ entry }) => entry.id))].sort(byCodePoint).join('');
  const included = keep(Uint8Array.from(ids.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)));
  const told = kept.flatMap(({ entry }) => entry.temperature ?? []);
  const temperature = told.length ? pythonFloat(median(told)) : undefined;
  return {
    content: {
      ...content,
      statements: [],
      merged: { classes, temperature, included, devices: devices.size },
    },
    blob: (name) => blobs.get(name)!,
  };
}

/**
 * The contributions that count, in one order for all: by class and name of their bytes. The same bytes count once for a class,
 * whoever has sent them: they are of the same images.
 */
function heldIn(content: Content): Held[] {
  const ends = renamed(content.same);
  const found = new Map<string, Held>();
  for (const statement of inOrder(content.statements)) {
    for (const entry of statement.entries) {
      const name = ends.get(entry.name) ?? entry.name;
      const key = `${entry.id}${name}`;
      if (!found.has(key)) found.set(key, { statement, entry, name });
    }
  }
  return [...found.values()].sort(
    (a, b) => byCodePoint(a.name, b.name) || byCodePoint(a.entry.id, b.entry.id),
  );
}

function inOrder(statements: readonly Statement[]): Statement[] {
  return [...statements].sort((a, b) => byCodePoint(a.device, b.device));
}

/** What devices are compared by; and those that sent what no contribution can be. */
function partsOf(file: FleetFile, held: readonly Held[]): { parts: Part[]; doubted: Set<string> } {
  const f = file.content.features;
  const parts: Part[] = [];
  const doubted = new Set<string>();
  for (const { statement, entry, name } of held) {
    const blob = file.blob(entry.id);
    const found = believable(blob, f);
    if (!found || found.count !== entry.count) {
      doubted.add(statement.device);
      continue;
    }
    const freedom = Math.max(found.count - 1, 1);
    const spread = columnSquares(Float64Array.from(found.factor), f);
    const variance = Float32Array.from(spread, (value) => value / freedom);
    parts.push({ device: statement.device, name, count: found.count, mean: found.mean, variance });
  }
  return { parts: parts.filter(({ device }) => !doubted.has(device)), doubted };
}

function believable(blob: Uint8Array, features: number): Contribution | undefined {
  try {
    const found = unpack(blob, features);
    return odd(found) === undefined ? found : undefined;
  } catch (error) {
    if (error instanceof FleetError) return undefined;
    throw error;
  }
}

/** Where means are compared: of some contributions of each class, as many of one as of another. */
function spaceOf(file: FleetFile, held: readonly Held[]): Space | undefined {
  const f = file.content.features;
  let waiting = [...byClass(held).values()];
  const sample: Contribution[] = [];
  for (let round = 0; waiting.length && sample.length < FLEET.sampled; round++) {
    for (const some of waiting.slice(0, FLEET.sampled - sample.length)) {
      sample.push(unpack(file.blob(some[round]!.entry.id), f));
    }
    waiting = waiting.filter((some) => some.length > round + 1);
  }
  const lesson = new Map(sample.map((one, number) => [String(number), one]));
  const known = new Lesson([...lesson.keys()], lesson).after(ClassStatistics.empty(f));
  return Space.of(known, PRIOR_IMAGES);
}

function byClass(held: readonly Held[]): Map<string, Held[]> {
  const found = new Map<string, Held[]>();
  for (const one of held) {
    const some = found.get(one.name);
    if (some) some.push(one);
    else found.set(one.name, [one]);
  }
  return found;
}

/** The images of all contributions to a class, packed; one alone stays as it is. */
function together(file: FleetFile, ofClass: readonly Held[]): Uint8Array {
  const blobs = ofClass.map(({ entry }) => file.blob(entry.id));
  if (blobs.length === 1) return blobs[0]!;
  const f = file.content.features;
  const total = new ContributionSum(f, { wait: FLEET.atOnce });
  for (const blob of blobs) total.addContribution(unpack(blob, f));
  return pack(total.total());
}

/** By class, what is usual for its images: the median of what devices measured. */
function sketchesOf(file: FleetFile, devices: ReadonlySet<string>): Map<string, SketchRow> {
  const ends = renamed(file.content.same);
  const told = new Map<string, SketchRow[]>();
  for (const { device, sketches } of inOrder(file.content.statements)) {
    for (const [name, id] of devices.has(device) ? sketches : []) {
      const row = unpackSketch(file.blob(id));
      const end = ends.get(name) ?? name;
      if (row) told.set(end, [...(told.get(end) ?? []), row]);
    }
  }
  const middle = (rows: readonly Float32Array[]): Float32Array =>
    rows[0]!.map((_, j) => median(rows.map((row) => row[j]!)));
  return new Map(
    [...told].map(([name, rows]) => [
      name,
      { margins: middle(rows.map((row) => row.margins)), oddness: middle(rows.map((row) => row.oddness)) },
    ]),
  );
}
