/** `apply`: what a fleet knows becomes part of what a device knows, as one task more, in one generation more. */

import type { Bundle } from '../bundle/bundle.js';
import { TrustedKey } from '../bundle/signing.js';
import { UNRECORDED } from '../contract/recordSchema.js';
import { SENTENCES } from '../contract/sentences.js';
import { FleetError, reasonOf } from '../errors.js';
import { hexOf } from '../formats/bytes.js';
import { byCodePoint, dumps, jsonOf } from '../formats/json.js';
import { firstTwin } from '../formats/names.js';
import { filled, plural } from '../formats/sentences.js';
import { float32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import type { Learner } from '../learner.js';
import { mergedIn } from '../learning/forgetting.js';
import { alike, renamed } from '../method/consensus.js';
import type { Contribution } from '../method/contributions.js';
import { ClassStatistics, ldaHead } from '../method/heads.js';
import { roundHalfToEven } from '../method/rounding.js';
import { Familiarity, QUANTILES, replaceSketch } from '../method/unknown.js';
import { MAP, statisticsOf, UnledgeredError } from '../network/ledger.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import type { Generation, LearnedTask } from '../state/record.js';
import type { State } from '../state/state.js';
import { BASE } from '../state/store.js';
import { type OwnContribution, ownOf } from './exporting.js';
import { FleetFile, knowledgeOf } from './files.js';
import {
  contentId,
  FEW_BITS,
  MANY_BITS,
  odd,
  pack,
  type SketchRow,
  unpack,
  unpackSketch,
} from './packing.js';
import { type Reduced, reducedOf } from './reducing.js';

/** The task that holds what a fleet knows. */
const TASK = 'fleet';

export interface ApplyOptions {
  /** The text of the PEM file of a public key: only a file that its holder signed is taken. By default the learner's. */
  readonly trust?: string;
  /** What messages call the file. */
  readonly name?: string;
}

/** What `apply` did. */
export interface FleetApplied {
  /** The current one. */
  readonly generation: number;
  /** False where this very knowledge was applied already. */
  readonly changed: boolean;
  /** The task that holds what the fleet knows. */
  readonly task: string;
  /** All that the fleet knows. */
  readonly classes: readonly string[];
  /** Those that this device had not known. */
  readonly new: readonly string[];
  /** How many of this device's contributions are counted in it. */
  readonly own: number;
  /** Sentences about what is not as one may expect. */
  readonly notes: readonly string[];
}

/**
 * Make what `csk-sdk fleet merge` wrote, `bytes`, part of what the device of `learner` knows: one more generation, or none.
 *
 * What the device has contributed itself is counted there from then on, and not twice. What an earlier file brought is replaced,
 * so applying one again changes nothing. `learner.rollback` leads back.
 *
 * Throws FleetError for a file that is damaged, of another bundle, not signed as it must be, or whose classes do not go together
 * with the device's; ConfigError where a signature cannot be checked here, StateLockedError while something learns, StorageError
 * where there is no room: nothing is changed then.
 */
export async function apply(
  learner: Learner,
  bytes: Uint8Array,
  { trust = learner.trust, name = 'The file' }: ApplyOptions = {},
): Promise<FleetApplied> {
  const { bundle, state } = learner;
  const file = await FleetFile.open(bytes, name);
  if (trust !== undefined) requireSigned(file, TrustedKey.of(trust));
  const found = knowledgeIn(file, bundle);
  const done = await state.locked(async () => {
    await state.requireWritable();
    return new Applying(bundle, state, found, name, await state.load()).run();
  });
  await learner.refresh();
  return done;
}

/** What a fleet knows: by class a contribution, and what is usual for its images. */
interface Knowledge extends Reduced {
  readonly contributions: ReadonlyMap<string, Contribution>;
  readonly sketches: ReadonlyMap<string, SketchRow>;
  /** The names of the contributions that it is made of. */
  readonly included: ReadonlySet<string>;
}

function requireSigned({ path, key }: FleetFile, trusted: TrustedKey): void {
  if (key === trusted.hex) return;
  const says = key ? SENTENCES.fleetSignedOther : SENTENCES.fleetSignedNone;
  throw new FleetError(filled(says, { path, trust: trusted.name }));
}

/** What the file says, merged, and by class what is known of it; checked. */
export function knowledgeIn(file: FleetFile, { id, manifest }: Bundle): Knowledge {
  const { path } = file;
  const { bundle, features } = file.content;
  if (bundle !== id || features !== manifest.head.features) {
    const [theirs, own] = [bundle, id].map((one) => one.slice(0, 8)) as [string, string];
    throw new FleetError(filled(SENTENCES.fleetOtherBundle, { path, theirs, own }));
  }
  const reduced = reducedOf(file);
  const { merged } = reduced.content;
  const contributions = new Map<string, Contribution>();
  const sketches = new Map<string, SketchRow>();
  for (const one of merged.classes) {
    const found = unpack(reduced.blob(one.id), features);
    const wrong = odd(found);
    if (wrong !== undefined) {
      throw new FleetError(filled(SENTENCES.fleetOdd, { path, wrong, name: one.name }));
    }
    contributions.set(one.name, found);
    const row = one.sketch ? unpackSketch(reduced.blob(one.sketch)) : undefined;
    if (row) sketches.set(one.name, row);
  }
  if (!contributions.size) throw new FleetError(filled(SENTENCES.fleetNoClass, { path }));
  const included = new Set(hexOf(reduced.blob(merged.included)).match(/.{64}/g));
  return { ...reduced, contributions, sketches, included };
}

/** One file on its way into one generation. */
class Applying {
  constructor(
    private readonly bundle: Bundle,
    private readonly state: State,
    private readonly found: Knowledge,
    private readonly path: string,
    private readonly before: Generation,
  ) {}

  async run(): Promise<FleetApplied> {
    const { before, state } = this;
    const base = this.bundle.manifest.classes;
    const known = new Set([...base, ...before.tasks.flatMap(({ classes }) => classes)]);
    const own = await this.ownTasks();
    const task = await this.task(own);
    this.requireNames(own, task);
    const tasks = [...own, task];
    const told = {
      ...{ task: task.name, classes: task.classes },
      new: task.classes.filter((name) => !known.has(name)),
      own: own.reduce((sum, { shared }) => sum + shared.length, 0),
    };
    if (same(before.tasks, tasks)) return { generation: before.number, changed: false, ...told, notes: [] };
    const tensors = await this.tensors(tasks, task);
    const notes = this.notes(task, tensors, own);
    const committed = await state.commit(before.number, tasks, tensors);
    await state.clearProgress();
    return { generation: committed.number, changed: true, ...told, notes };
  }

  /** The device's tasks, with the fleet's names, and what of them is counted in what the fleet knows. */
  private async ownTasks(): Promise<LearnedTask[]> {
    const { classes, head } = this.bundle.manifest;
    const { contributions } = await ownOf(this.state, this.before.tasks, head.features);
    let tasks = this.before.tasks
      .filter(({ fleet }) => fleet === undefined)
      .map((task) => {
        const mine = contributions.filter((one) => one.task === task && this.isIncluded(one));
        return { ...task, shared: mine.map(({ name }) => name) };
      });
    for (const [name, other] of renamed(this.found.content.same)) {
      if (classes.includes(name)) {
        throw new FleetError(filled(SENTENCES.fleetBaseName, { path: this.path, name, other }));
      }
      const all: LearnedTask[] = [];
      for (const task of tasks) all.push(await mergedIn(this.state, task, other, name, head.features));
      tasks = all as typeof tasks;
    }
    return tasks;
  }

  /** Whether a contribution is part of what the fleet knows, in however many bits. */
  private isIncluded({ contribution }: OwnContribution): boolean {
    return [FEW_BITS, MANY_BITS].some((bits) => this.found.included.has(contentId(pack(contribution, bits))));
  }

  /** The task of what the fleet knows: as it is where this very knowledge is here. */
  private async task(own: readonly LearnedTask[]): Promise<LearnedTask> {
    const { content, contributions } = this.found;
    const knowledge = knowledgeOf(content);
    const there = this.before.tasks.find(
      ({ fleet, classes }) =>
        fleet === knowledge &&
        classes.length === contributions.size &&
        classes.every((one) => contributions.has(one)),
    );
    if (there) return there;
    const taken = new Set([BASE, ...own.map(({ name }) => name)]);
    let name = TASK;
    for (let n = 2; taken.has(name); n++) name = `${TASK}-${n}`;
    const files = new Map<string, string>();
    for (const [one, found] of contributions)
      files.set(one, await this.state.keepContribution(found.tensors()));
    const images = [...contributions.values()].reduce((sum, { count }) => sum + count, 0);
    const temperature = content.merged.temperature?.value;
    return {
      ...UNRECORDED,
      ...{ name, classes: [...files.keys()], epochs: 0, images: roundHalfToEven(images) },
      ...{ seconds: 0, loss: 0, peakRssBytes: 0, config: { class_statistics: true } },
      ...{ contributions: files, carried: new Map(), fleet: knowledge },
      ...(temperature === undefined ? {} : { temperature }),
    };
  }

  private requireNames(own: readonly LearnedTask[], task: LearnedTask): void {
    const known = [...this.bundle.manifest.classes, ...own.flatMap(({ classes }) => classes)];
    const twins = firstTwin(task.classes, known);
    if (!twins) return;
    const [name, other] = twins;
    throw new FleetError(filled(SENTENCES.fleetTwin, { path: this.path, name, other }));
  }

  private async tensors(
    tasks: readonly LearnedTask[],
    task: LearnedTask,
  ): Promise<Map<string, StoredTensor>> {
    const { before, bundle, state } = this;
    const tensors = new Map(before.tensors);
    for (const old of before.tasks) {
      if (old.fleet === undefined) continue;
      for (const part of ['weight', 'bias']) tensors.delete(`head/${old.name}/${part}`);
    }
    let found: ClassStatistics;
    try {
      found = await statisticsOf(bundle, before, tasks, before.hidden, (name) => state.contribution(name));
    } catch (error) {
      if (!(error instanceof UnledgeredError)) throw error;
      const values = { reason: reasonOf(error).replace(/\.$/, ''), rollback: 'rollback()' };
      throw new FleetError(filled(SENTENCES.fleetUnledgered, values));
    }
    found.replaceIn(tensors);
    const { weight, bias } = ldaHead(found, PRIOR_IMAGES, task.classes);
    const count = bias.length;
    tensors.set(`head/${task.name}/weight`, float32([count, weight.length / count], weight));
    tensors.set(`head/${task.name}/bias`, float32([count], bias));
    replaceSketch(tensors, this.sketch(tasks, found));
    return tensors;
  }

  /** What is usual for images of a class: as this device has measured it, or else as the fleet has. */
  private sketch(tasks: readonly LearnedTask[], known: ClassStatistics): Familiarity | undefined {
    const own = Familiarity.from(this.before.tensors);
    const learned = tasks.filter(({ fleet }) => fleet === undefined).flatMap(({ classes }) => classes);
    const here = new Set([...learned, ...this.bundle.manifest.classes]);
    const kept = own?.without(own.classes.filter((name) => !here.has(name)));
    const more = [...this.found.sketches].filter(
      ([name]) => known.classes.includes(name) && !kept?.classes.includes(name),
    );
    if (!more.length) return kept;
    const table = (rows: readonly Float32Array[]): Float32Array => {
      const out = new Float32Array(rows.length * QUANTILES);
      for (const [at, row] of rows.entries()) out.set(row, at * QUANTILES);
      return out;
    };
    const brought = new Familiarity(
      more.map(([name]) => name),
      table(more.map(([, row]) => row.margins)),
      table(more.map(([, row]) => row.oddness)),
    );
    return kept ? kept.merge(brought) : brought;
  }

  private notes(task: LearnedTask, tensors: Tensors, own: readonly LearnedTask[]): string[] {
    const said: string[] = [];
    if (tensors.has(MAP)) said.push(SENTENCES.fleetLed);
    const waiting = own.flatMap(({ contributions, shared }) =>
      [...contributions].filter(([name, file]) => file && !shared.includes(name)),
    );
    if (waiting.length) {
      const contributions = plural(waiting.length, 'own contribution');
      said.push(filled(SENTENCES.fleetWaiting, { contributions }));
    }
    const theirs = new Set(task.classes);
    const elsewhere = new Set(own.flatMap(({ shared }) => shared).filter((name) => !theirs.has(name)));
    if (elsewhere.size) {
      said.push(filled(SENTENCES.fleetRenamed, { names: [...elsewhere].sort(byCodePoint).join(', ') }));
    }
    const found = ClassStatistics.from(tensors, this.bundle.manifest.head.features);
    for (const [one, other] of alike(found, PRIOR_IMAGES)) {
      if (theirs.has(one) === theirs.has(other)) continue;
      const [mine, brought] = theirs.has(one) ? [other, one] : [one, other];
      said.push(filled(SENTENCES.fleetAlike, { new: brought, mine }));
    }
    return said;
  }
}

/** Whether tasks are known to be the same already. */
function same(before: readonly LearnedTask[], tasks: readonly LearnedTask[]): boolean {
  const spelled = (all: readonly LearnedTask[]): string => dumps(jsonOf(all.map(plainly)), { sorted: true });
  return spelled(before) === spelled(tasks);
}

function plainly(task: LearnedTask): object {
  return {
    ...task,
    contributions: Object.fromEntries(task.contributions),
    carried: Object.fromEntries(task.carried),
  };
}
