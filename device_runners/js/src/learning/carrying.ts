/** What was learned on one bundle, carried over to another: a first generation on that one, without any image. */

import type { Bundle } from '../bundle/bundle.js';
import { UPGRADE } from '../bundle/manifest.js';
import { SENTENCES } from '../contract/sentences.js';
import { BundleError, reasonOf, StateError } from '../errors.js';
import { sha256, utf8 } from '../formats/bytes.js';
import { decode } from '../formats/safetensors.js';
import { filled, listed, percent, plural } from '../formats/sentences.js';
import { float32, require32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { CarriedHeads, TELLS } from '../method/carriedHeads.js';
import { Contribution, DIRECTIONS, MIXTURES } from '../method/contributions.js';
import { beforeDrift, type LedBack, ledBack } from '../method/drift.js';
import { FeatureMap } from '../method/featureMap.js';
import { ClassStatistics } from '../method/heads.js';
import { headBehind } from '../method/matrix.js';
import { frozenMoment } from '../method/projection.js';
import { Random } from '../method/random.js';
import { Familiarity, replaceSketch } from '../method/unknown.js';
import { domainNames } from '../network/domains.js';
import { digestOfCenters, MAP, MAPPED, mapOf, statisticsOf, UnledgeredError } from '../network/ledger.js';
import type { Generation, LearnedTask } from '../state/record.js';
import type { State } from '../state/state.js';
import { hide } from './forgetting.js';

/**
 * What an upgrade did. `tasks` were carried; `merged` are learned classes that the new base knows by itself, `lost` those of
 * the old base that it does not know; `notes` are sentences about what is not as it was.
 */
export interface Upgraded {
  readonly generation: number;
  readonly tasks: readonly string[];
  readonly merged: readonly string[];
  readonly lost: readonly string[];
  readonly notes: readonly string[];
}

/**
 * Commit to `into`, an empty state of `to`, what `state` of `from` knows; both are locked by the caller, and `map` is what
 * `openMap` gave. Throws StateError where what is known cannot be read.
 */
export async function carry(
  from: Bundle,
  state: State,
  to: Bundle,
  into: State,
  map: FeatureMap,
): Promise<Upgraded> {
  return new Carrying(from, state, await state.load(), to, into, map).run();
}

/** The map that a bundle brings along for what was learned on another one. Throws BundleError where it brings none. */
export function openMap(from: Bundle, to: Bundle): FeatureMap {
  const about = to.manifest.upgrade;
  if (about?.bundle !== from.id) {
    const told = about
      ? `built to upgrade bundle ${about.bundle.slice(0, 8)}…`
      : 'not built to be upgraded to';
    throw new BundleError(
      `What was learned on bundle ${from.id.slice(0, 8)}… cannot be carried over to ${to.name}, which was ` +
        `${told}. Build it with \`--upgrade-from\` the bundle that is on this device.`,
    );
  }
  try {
    const { tensors } = decode(to.file(UPGRADE));
    return FeatureMap.from(tensors, from.manifest.head.features, to.manifest.head.features);
  } catch (error) {
    throw new BundleError(`${to.name}/${UPGRADE}: ${reasonOf(error)}. Build the bundle again.`);
  }
}

/** One generation on its way from one bundle to another. */
class Carrying {
  private readonly before: Tensors;
  private readonly tensors: Map<string, StoredTensor>;
  /** From the untouched network's features to the present ones; undefined where they are the same, or nobody knows. */
  private readonly drift: Float64Array | undefined;
  /** Sites of the new bundle that are the same kernel of the same network in the old one. */
  private readonly twins: ReadonlySet<string>;
  private readonly moved: boolean;
  /** Whether features are what they were, and all that was trained is there: then nothing changes. */
  private readonly whole: boolean;
  /** What is known of all classes, as the untouched network had it. */
  private totals: ClassStatistics | undefined;
  private ledBack: LedBack | undefined;
  /** How many heads were fitted anew. */
  private anew = 0;
  /** Of how many heads nobody knows what they lost. */
  private untold = 0;

  constructor(
    private readonly from: Bundle,
    private readonly state: State,
    private readonly generation: Generation,
    private readonly to: Bundle,
    private readonly into: State,
    private readonly map: FeatureMap,
  ) {
    this.before = from.checkpoint;
    this.tensors = new Map(to.checkpoint);
    this.drift = this.knownDrift();
    const changed = from.manifest.sites.filter(({ name }) => {
      const key = `center/${name}`;
      return !sameNumbers(generation.tensors.get(key), this.before.get(key));
    });
    const same = (to.manifest.upgrade?.kept ?? 0) > 0;
    const twin = (name: string): boolean =>
      same && sameNumbers(this.before.get(`center/${name}`), this.tensors.get(`center/${name}`));
    this.twins = new Set(to.manifest.sites.map(({ name }) => name).filter(twin));
    this.moved = changed.length > 0;
    this.whole = this.map.same && changed.every(({ name }) => this.twins.has(name));
  }

  async run(): Promise<Upgraded> {
    const { generation, to } = this;
    const base = to.manifest.classes;
    const hidden = generation.hidden.filter((name) => base.includes(name));
    const tasks: LearnedTask[] = [];
    for (const task of generation.tasks) tasks.push(await this.task(task));
    const frozen = tasks.length ? this.sites() : [];
    if (this.whole) this.keepCenters();
    this.heads(tasks);
    await this.statistics(tasks, hidden);
    this.sketch(tasks);
    hide(this.tensors, base, hidden);
    const committed = await this.into.commit(0, tasks, this.tensors, { hidden });
    return this.told(committed.number, tasks, frozen);
  }

  private told(number: number, tasks: readonly LearnedTask[], frozen: readonly string[]): Upgraded {
    const { from, to, generation } = this;
    const learned = new Set(tasks.flatMap(({ classes }) => classes));
    const [old, base] = [from.manifest.classes, to.manifest.classes];
    const lost = old.filter((name) => !base.includes(name) && !learned.has(name));
    const gone = lost.filter((name) => !generation.hidden.includes(name)).sort();
    return {
      generation: number,
      tasks: tasks.map(({ name }) => name),
      merged: [...learned].filter((name) => base.includes(name) && !old.includes(name)).sort(),
      lost: gone,
      notes: [...(tasks.length ? this.notes(tasks.length, frozen, gone) : []), ...leftBehind(generation)],
    };
  }

  private notes(tasks: number, frozen: readonly string[], lost: readonly string[]): string[] {
    const { sites, head, upgrade } = this.to.manifest;
    const { kept, explained } = upgrade!;
    const { features } = this.from.manifest.head;
    const notes: string[] = [];
    if (kept < head.features) {
      notes.push(
        `${head.features - kept} of ${head.features} features are new: what is known of them is what a map of the ` +
          `old ones says, ${percent(explained)} % of their variance.`,
      );
    }
    const gone = features - kept;
    if (kept && gone > 0) {
      notes.push(
        `${gone} of ${features} features are gone, and what heads read of them is told by the others.`,
      );
    }
    if (this.anew) {
      notes.push(
        `The heads of ${this.anew} of ${plural(tasks, 'task')} were made anew, of what is known of their images.`,
      );
    }
    if (this.untold && gone > 0) {
      notes.push(
        `Of the images of ${plural(this.untold, 'task')} nothing is known: what heads read of features that are gone ` +
          'is told as images of the base have it, and may be wrong.',
      );
    }
    if (this.moved && !this.whole && kept) {
      notes.push(
        'What training had moved in the old network is left behind: the new bundle has other features, trains ' +
          'other layers, or kernels as a whole where the old one trained their centers, or the other way round.',
      );
    }
    if (frozen.length) {
      notes.push(
        `${frozen.length} of ${sites.length} trainable layers stay frozen from now on, since nobody knows what the ` +
          `carried tasks need of them: ${listed(frozen, 4)}.`,
      );
    }
    if (lost.length) notes.push(`The new base does not know ${lost.join(', ')}.`);
    return notes;
  }

  /** A task as the new state has it, with what it contributed. */
  private async task(given: LearnedTask): Promise<LearnedTask> {
    const note = `Carried over from the bundle of ${this.from.manifest.model}.`;
    const task = { ...given, notes: [...given.notes.filter((one) => one !== note), note] };
    if (this.whole) {
      return {
        ...task,
        contributions: await this.copied(task.contributions),
        carried: await this.copied(task.carried),
      };
    }
    const none = new Map<string, string>();
    if (task.config.class_statistics === false) return { ...task, contributions: none, carried: none };
    const files = new Map<string, string>();
    for (const name of task.classes) {
      const file = task.contributions.get(name);
      if (file === '') {
        files.set(name, '');
        continue;
      }
      const one = (file && (await this.read(file))) || (await this.fromTotals(name, task));
      files.set(name, one ? await this.mapped(task.name, name, one) : '');
    }
    return { ...task, contributions: files, carried: none };
  }

  /** The same, in the new state; without those that are damaged. */
  private async copied(files: ReadonlyMap<string, string>): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    for (const [name, file] of files) {
      try {
        const kept = file && (await this.into.keepContribution(await this.state.contribution(file)));
        found.set(name, kept);
      } catch (error) {
        if (!(error instanceof StateError)) throw error;
      }
    }
    return found;
  }

  private async read(file: string): Promise<Contribution | undefined> {
    try {
      return Contribution.from(await this.state.contribution(file), this.from.manifest.head.features);
    } catch (error) {
      if (error instanceof StateError) return undefined;
      throw error;
    }
  }

  private async mapped(task: string, name: string, one: Contribution): Promise<string> {
    const seed = Number.parseInt(sha256(utf8(`${task}\0${name}`)).slice(0, 13), 16);
    return this.into.keepContribution(this.map.contribution(one, new Random(seed)).tensors());
  }

  /**
   * Of a class that left no contribution, or a damaged one: its mean and count, and the spread that all classes share.
   * Undefined where another task says what is known of it.
   */
  private async fromTotals(name: string, task: LearnedTask): Promise<Contribution | undefined> {
    const { tasks, tensors } = this.generation;
    const last = tasks.filter(({ classes }) => classes.includes(name)).at(-1);
    if (last?.name !== task.name) return undefined;
    for (const { contributions } of tasks) {
      const file = contributions.get(name);
      if (file && (await this.read(file))) return undefined;
    }
    const f = this.from.manifest.head.features;
    this.totals ??= beforeDrift(ClassStatistics.from(tensors, f), this.drift);
    const row = this.totals.classes.indexOf(name);
    const count = this.totals.counts[row] ?? 0;
    if (count <= 0) return undefined;
    this.ledBack ??= ledBack(this.totals);
    const { means, values, vectors } = this.ledBack;
    const rows = Math.min(DIRECTIONS + MIXTURES, f);
    const factor = Float32Array.from({ length: rows * f }, (_, at) => {
      const which = f - rows + Math.floor(at / f);
      return Math.sqrt(Math.max(values[which]!, 0) * Math.max(count - 1, 0)) * vectors[which * f + (at % f)]!;
    });
    return new Contribution(count, Float32Array.from(means.subarray(row * f, (row + 1) * f)), factor);
  }

  private async statistics(tasks: readonly LearnedTask[], hidden: readonly string[]): Promise<void> {
    const { tensors, to } = this;
    const f = to.manifest.head.features;
    const known: Generation = { number: 0, parent: undefined, tasks, tensors, created: '', hidden: [] };
    let found: ClassStatistics;
    try {
      found = await statisticsOf(to, known, tasks, hidden, (name) => this.into.contribution(name));
    } catch (error) {
      if (!(error instanceof UnledgeredError)) throw error;
      const own = ClassStatistics.from(this.generation.tensors, f);
      const fresh = ClassStatistics.from(tensors, f);
      const names = new Set([...tasks.flatMap(({ classes }) => classes), ...this.from.manifest.classes]);
      const others = own.classes.filter((name) => !names.has(name));
      found = own.without(others).merge(fresh.without([...own.classes, ...hidden]));
    }
    found.replaceIn(tensors);
  }

  /** Each behind the way back, or fitted anew where that loses what statistics tell. */
  private heads(tasks: readonly LearnedTask[]): void {
    const { features: old } = this.from.manifest.head;
    const { features } = this.to.manifest.head;
    const known = this.knownOfHeads();
    for (const { name, classes } of tasks) {
      const own = (part: string): Float32Array =>
        require32(this.generation.tensors, `head/${name}/${part}`).data;
      let weight = own('weight');
      if (!this.whole && this.drift) weight = headBehind(weight, this.drift, old);
      const head = { weight, bias: own('bias') };
      const fresh = known !== undefined && known.told(weight, classes) < TELLS;
      if (fresh) this.anew++;
      else if (!known && !this.map.same) this.untold++;
      const made = fresh ? known.head(head, classes) : this.map.head(head);
      this.tensors.set(`head/${name}/weight`, float32([classes.length, features], made.weight));
      this.tensors.set(`head/${name}/bias`, float32([classes.length], made.bias));
    }
  }

  /** Undefined where heads stay as they are, or nothing is known of any class. */
  private knownOfHeads(): CarriedHeads | undefined {
    const f = this.from.manifest.head.features;
    if (this.map.same) return undefined;
    this.totals ??= beforeDrift(ClassStatistics.from(this.generation.tensors, f), this.drift);
    if (!this.totals.counts.some((count) => count > 0)) return undefined;
    return new CarriedHeads(this.map, this.totals);
  }

  private sketch(tasks: readonly LearnedTask[]): void {
    const own = Familiarity.from(this.generation.tensors);
    const learned = new Set(tasks.flatMap(({ classes }) => classes));
    const left = own?.without(own.classes.filter((name) => !learned.has(name)));
    const { features } = this.to.manifest.head;
    if (!left || !ClassStatistics.from(this.tensors, features).classes.length) return;
    const base = Familiarity.from(this.tensors);
    replaceSketch(this.tensors, base ? base.merge(left) : left);
  }

  private knownDrift(): Float64Array | undefined {
    try {
      return mapOf(this.generation.tensors, this.before);
    } catch (error) {
      if (error instanceof UnledgeredError) return undefined;
      throw error;
    }
  }

  /** Second moments of the sites that old tasks left some for; all others are frozen, and named. */
  private sites(): string[] {
    const frozen: string[] = [];
    for (const { name } of this.to.manifest.sites) {
      const key = `moment/${name}`;
      const own = require32(this.tensors, key);
      const then = this.before.get(key);
      if (!this.twins.has(name) || String(then?.shape) !== String(own.shape)) {
        const [groups, channels] = own.shape as [number, number];
        this.tensors.set(key, float32(own.shape, frozenMoment(groups, channels)));
        frozen.push(name);
        continue;
      }
      const now = require32(this.generation.tensors, key);
      if (sameNumbers(then, own)) {
        this.tensors.set(key, now);
      } else {
        const sum = own.data.map((value, at) =>
          Math.fround(value + Math.fround(now.data[at]! - Number(then!.data[at]))),
        );
        this.tensors.set(key, float32(own.shape, sum));
      }
    }
    return frozen;
  }

  private keepCenters(): void {
    const keep = (key: string): void => {
      this.tensors.set(key, this.generation.tensors.get(key)!);
    };
    for (const { name } of this.to.manifest.sites) if (this.twins.has(name)) keep(`center/${name}`);
    const base = ['head/base/weight', 'head/base/bias'];
    // The base's own head has followed the centers.
    if (base.every((key) => sameNumbers(this.before.get(key), this.tensors.get(key)))) base.forEach(keep);
    if (this.drift) {
      keep(MAP);
      this.tensors.set(MAPPED, digestOfCenters(this.tensors));
    }
  }
}

/** What is said of domains: each is of the network that it was learned on. */
function leftBehind({ tensors }: Generation): string[] {
  const domains = domainNames(tensors);
  return domains.length ? [filled(SENTENCES.carriedDomains, { domains: domains.join(', ') })] : [];
}

function sameNumbers(one: StoredTensor | undefined, other: StoredTensor | undefined): boolean {
  if (!one || !other || String(one.shape) !== String(other.shape)) return false;
  return one.data.every((value: number | bigint, at: number) => value === other.data[at]);
}
