/** `export`: what a device has learned, as a file that says as little as merging needs. */

import { SigningKey } from '../bundle/signing.js';
import { SENTENCES } from '../contract/sentences.js';
import { FLEET } from '../contract/thresholds.js';
import { drawn } from '../engine.js';
import { FleetError, reasonOf, StateError } from '../errors.js';
import { hexOf, sha256 } from '../formats/bytes.js';
import { byCodePoint, dumps, type Json } from '../formats/json.js';
import { isPlain } from '../formats/names.js';
import { filled, general, plural } from '../formats/sentences.js';
import type { Learner } from '../learner.js';
import { Contribution, ContributionSum, DIRECTIONS, MIXTURES } from '../method/contributions.js';
import { Familiarity, QUANTILES } from '../method/unknown.js';
import type { Generation, LearnedTask } from '../state/record.js';
import { Remembered } from '../state/said.js';
import type { State } from '../state/state.js';
import { fileOf } from './files.js';
import { contentId, FEW_BITS, MANY_BITS, pack, packSketch } from './packing.js';
import { deviceOf, type Entry, entryJson, type Statement, stated } from './statement.js';

export interface ExportOptions {
  /** What people call the device. */
  readonly name: string;
  /** What fewer images of a class in a lesson contributed stays here (20). */
  readonly least?: number;
  /** Of a number: 8, or 4, which makes the file little more than half as large and costs up to 0.2 points of accuracy. */
  readonly bits?: 4 | 8;
  /**
   * The text of the PEM file of the device's private ed25519 key. Without one, nobody can tell whether a file is this
   * device's.
   */
  readonly sign?: string;
}

/** A device's file, and what is in it. */
export interface FleetExport {
  /** The `.cskc` file. */
  readonly bytes: Uint8Array;
  /** The number that names this device. */
  readonly device: string;
  readonly name: string;
  /** Of the device's statement: the larger is the newer one. */
  readonly sequence: number;
  /** How many images of each class the contributions are of. */
  readonly classes: ReadonlyMap<string, number>;
  /** Sentences about what stays on the device. */
  readonly leftOut: readonly string[];
}

/** What a device has learned itself, by task and class; `lacking` says what has none. */
export interface Own {
  readonly contributions: readonly OwnContribution[];
  readonly lacking: readonly string[];
}

export interface OwnContribution {
  readonly task: LearnedTask;
  readonly name: string;
  readonly contribution: Contribution;
}

/**
 * What the device of `learner` has learned itself, as a `.cskc` file for `csk-sdk fleet merge`. No image is in it. Exporting
 * again without having learned gives the same file.
 *
 * Throws FleetError where nothing can be exported, ConfigError for a key that is none, StorageError where what was said cannot
 * be remembered, StateLockedError while something learns.
 */
export async function exportFleet(learner: Learner, options: ExportOptions): Promise<FleetExport> {
  const { name, least = FLEET.leastImages, bits = MANY_BITS, sign } = options;
  if (typeof name !== 'string' || !isPlain(name)) {
    const shown = JSON.stringify(String(name).slice(0, 40)).slice(1, -1);
    throw new FleetError(filled(SENTENCES.fleetName, { name: shown }));
  }
  if (!(Number.isSafeInteger(least) && least >= 1)) {
    throw new FleetError(filled(SENTENCES.fleetLeast, { given: shownOf(least) }));
  }
  if (bits !== FEW_BITS && bits !== MANY_BITS) {
    throw new FleetError(
      filled(SENTENCES.fleetBits, { given: shownOf(bits), few: FEW_BITS, many: MANY_BITS }),
    );
  }
  const key = sign === undefined ? undefined : await SigningKey.of(sign);
  return learner.state.locked(async () => {
    await learner.state.requireWritable();
    return new Exporting(learner, await learner.state.load(), name, bits, key).run(least);
  });
}

function shownOf(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 40);
}

/** One generation on its way into a file. */
class Exporting {
  private readonly blobs = new Map<string, Uint8Array>();

  constructor(
    private readonly learner: Learner,
    private readonly generation: Generation,
    private readonly name: string,
    private readonly bits: number,
    private readonly key: SigningKey | undefined,
  ) {}

  async run(least: number): Promise<FleetExport> {
    const { manifest, id } = this.learner.bundle;
    const { features } = manifest.head;
    const { contributions, lacking } = await ownOf(this.learner.state, this.generation.tasks, features);
    const few = contributions.filter((one) => one.contribution.count < least);
    const shared = contributions.filter((one) => !few.includes(one));
    const leftOut = [
      ...lacking,
      ...few.map(({ task, name, contribution: { count } }) =>
        filled(SENTENCES.fleetFew, { name, task: task.name, images: plural(general(count), 'image'), least }),
      ),
    ];
    if (!shared.length) throw new FleetError(filled(SENTENCES.fleetNothing, { why: this.nothing(leftOut) }));
    const entries = this.entries(shared);
    const statement = await this.said(entries, this.sketches(new Set(shared.map(({ name }) => name))));
    const classes = new Map<string, number>();
    for (const { name, count } of entries) classes.set(name, (classes.get(name) ?? 0) + count);
    const { device, name, sequence } = statement;
    return { bytes: fileOf(id, features, statement, this.blobs), device, name, sequence, classes, leftOut };
  }

  private nothing(leftOut: readonly string[]): string {
    if (this.generation.tasks.every(({ fleet }) => fleet !== undefined)) return SENTENCES.fleetNoTask;
    return leftOut[0] ?? SENTENCES.fleetElsewhere;
  }

  private kept(blob: Uint8Array): string {
    const id = contentId(blob);
    this.blobs.set(id, blob);
    return id;
  }

  private entries(shared: readonly OwnContribution[]): Entry[] {
    // The same images twice are the same bytes.
    const found = new Map<string, Entry>();
    for (const { task, name, contribution } of shared) {
      const id = this.kept(pack(contribution, this.bits));
      found.set(`${id}${name}`, { name, id, count: contribution.count, temperature: task.temperature });
    }
    return [...found.values()].sort((a, b) => byCodePoint(a.name, b.name) || byCodePoint(a.id, b.id));
  }

  /** The names of what is usual for images of these classes. */
  private sketches(names: ReadonlySet<string>): Map<string, string> {
    const { classes = [], margins, oddness } = Familiarity.from(this.generation.tensors) ?? {};
    const row = (table: Float32Array, at: number): Float32Array =>
      table.subarray(at * QUANTILES, (at + 1) * QUANTILES);
    const found = classes.flatMap((name, at) =>
      names.has(name)
        ? [[name, this.kept(packSketch({ margins: row(margins!, at), oddness: row(oddness!, at) }))] as const]
        : [],
    );
    return new Map(found.sort(([a], [b]) => byCodePoint(a, b)));
  }

  /** The device's statement: the last one, where nothing has changed since; and remember it. */
  private async said(entries: readonly Entry[], sketches: ReadonlyMap<string, string>): Promise<Statement> {
    const { bundle, state } = this.learner;
    const remembered = await Remembered.in(state.storage);
    const device = this.key ? deviceOf(this.key.hex) : (remembered.unsigned ?? hexOf(drawn(32)));
    const last = remembered.last(device);
    const ids = [...new Set(entries.map(({ id }) => id))].sort(byCodePoint);
    const before = new Set([...(last.withdrawn ?? []), ...(last.ids ?? [])]);
    const withdrawn = [...before].filter((id) => !ids.includes(id)).sort(byCodePoint);
    const digest = digestOf([
      bundle.id,
      this.name,
      entries.map(entryJson),
      Object.fromEntries(sketches),
      withdrawn,
    ]);
    let { sequence = 0 } = last;
    if (digest !== last.digest) sequence = Math.max(sequence + 1, Math.floor(Date.now() / 1000));
    const said = { bundle: bundle.id, device, name: this.name, sequence, entries, sketches, withdrawn };
    const statement = await stated(said, this.key);
    await remembered.keep(device, { sequence, digest, ids, withdrawn }, !this.key);
    return statement;
  }
}

/** sha256 of what a statement is about, as Python seals it. */
function digestOf(about: readonly [Json, Json, Json[], { [key: string]: Json }, Json[]]): string {
  const [bundle, name, entries, sketches, withdrawn] = about;
  const short = [bundle, name, entries].map((one) => dumps(one, { compact: true }));
  const rest = [dumps(sketches, { sorted: true, compact: true }), dumps(withdrawn, { compact: true })];
  const check = sha256(dumps({ about: [...about] }, { sorted: true }));
  return sha256(`{"about":[${[...short, ...rest].join(',')}],"check":"${check}"}\n`);
}

/** What a device has learned itself, and not from its fleet. */
export async function ownOf(state: State, tasks: readonly LearnedTask[], features: number): Promise<Own> {
  const contributions: OwnContribution[] = [];
  const lacking: string[] = [];
  const kept = new Set(
    tasks.flatMap((task) => [...task.contributions].flatMap(([name, file]) => (file ? [name] : []))),
  );
  for (const task of tasks) {
    if (task.fleet !== undefined) continue;
    for (const name of task.classes) {
      const file = task.contributions.get(name);
      if (file === '') {
        // Where something is kept of the class, a later lesson replaced this one.
        if (!kept.has(name)) lacking.push(filled(SENTENCES.fleetApart, { name, task: task.name }));
        continue;
      }
      try {
        if (file === undefined) throw new StateError('none was kept.');
        const found = Contribution.from(await state.contribution(file), features);
        contributions.push({ task, name, contribution: short(found) });
      } catch (error) {
        if (!(error instanceof StateError)) throw error;
        const reason = reasonOf(error).replace(/\.$/, '');
        lacking.push(filled(SENTENCES.fleetLacking, { name, task: task.name, reason }));
      }
    }
  }
  return { contributions, lacking };
}

/** The same in as few rows as one lesson leaves: of classes that were merged on the device there are more. */
function short(one: Contribution): Contribution {
  const features = one.mean.length;
  if (one.factor.length / features <= DIRECTIONS + MIXTURES) return one;
  const total = new ContributionSum(features);
  total.addContribution(one);
  return total.total();
}
