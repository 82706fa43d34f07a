/** What is known, changed without a lesson: classes forgotten, renamed, merged. All under the state's lock. */

import type { Bundle } from '../bundle/bundle.js';
import { SENTENCES } from '../contract/sentences.js';
import { TaskError } from '../errors.js';
import { type Json, JsonNumber, jsonOf } from '../formats/json.js';
import { firstTwin, isPlain, LONGEST } from '../formats/names.js';
import { filled, grouped } from '../formats/sentences.js';
import { float32, require32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { Contribution } from '../method/contributions.js';
import { shareOf } from '../method/decisions.js';
import { ClassStatistics } from '../method/heads.js';
import { Familiarity, replaceSketch } from '../method/unknown.js';
import { domainTensors } from '../network/domains.js';
import { renamedStatistics, sameCenters } from '../network/ledger.js';
import type { Generation, LearnedTask } from '../state/record.js';
import type { State } from '../state/state.js';
import { BASE } from '../state/store.js';
import { refit, type TaskClasses, without } from './revision.js';

/** The logit of a class of the base that is hidden: never the largest, and still a number. */
const NEVER = -1e12;

/**
 * What `Learner.forget` did. `classes` were forgotten, `hidden` are classes of the base, which the bundle still holds. `tasks`
 * are gone with their classes, `refitted` have a head made anew. `remains` are sentences about what images of the forgotten
 * still have a share in, `removed` how many older generations held it and are gone.
 */
export interface Forgotten {
  readonly generation: number;
  readonly classes: readonly string[];
  readonly hidden: readonly string[];
  readonly tasks: readonly string[];
  readonly refitted: readonly string[];
  readonly remains: readonly string[];
  readonly removed: number;
}

/**
 * Forget classes, or one task: everything that it alone contributed. Commits a generation, and removes older ones. Throws
 * TaskError for a class or a task that is not known.
 */
export async function forget(
  bundle: Bundle,
  state: State,
  names: readonly string[],
  task?: string,
): Promise<Forgotten> {
  // Who asks again, since it was interrupted, is told that the class is not known; then it is gone, too.
  await state.finishForgetting();
  const generation = await state.load();
  const base = bundle.manifest.classes;
  requireKnown(generation, bundle, names, task);
  const hidden = base.filter((name) => names.includes(name) && !generation.hidden.includes(name));
  const shortened = generation.tasks.flatMap((one) => (one.name === task ? [] : (less(one, names) ?? [])));
  const tasks = unshared(withoutOrphans(shortened, generation.tasks, base));
  const kept = new Map(tasks.map((one) => [one.name, one.classes]));
  const changed = generation.tasks.filter((one) => kept.get(one.name)?.length !== one.classes.length);
  const known = new Set([...[...kept.values()].flat(), ...base]);
  const lost = [...new Set(changed.flatMap((one) => one.classes).filter((name) => !known.has(name)))];
  const allHidden = [...generation.hidden, ...hidden];
  if (base.length && !tasks.length && allHidden.length === base.length) {
    throw new TaskError(SENTENCES.forgetLast);
  }
  const gone = [...lost, ...hidden];
  let { statistics, exact } = await without(bundle, state, generation, tasks, allHidden, gone);
  let tensors = new Map(generation.tensors);
  if (changed.length && !tasks.length) {
    // Nothing learned is left, so nothing that learning has moved need stay.
    tensors = new Map([...bundle.checkpoint, ...domainTensors(generation.tensors)]);
    statistics = ClassStatistics.from(tensors, bundle.manifest.head.features).without(allHidden);
    exact = true;
  }
  statistics.replaceIn(tensors);
  const sketch = Familiarity.from(tensors);
  replaceSketch(tensors, sketch?.without(lost));
  hide(tensors, base, allHidden);
  shortenHeads(tensors, changed, kept, bundle.manifest.head.features);
  const later = generation.tasks.indexOf(changed[0]!) < generation.tasks.length - 1;
  const remains = [
    ...remaining(bundle, tensors, changed.length > 0 && tasks.length > 0, exact, hidden),
    ...(sketch && changed.length && tasks.length && later ? [SENTENCES.remainsSketch] : []),
    ...(inFleet(changed, kept, tasks) ? [SENTENCES.remainsFleet] : []),
  ];
  const unchanged = generation.tasks.filter((one) => !changed.includes(one));
  const purged = await state.numbersWith(changed, unchanged, [...lost, ...names]);
  const committed = await state.commit(generation.number, tasks, tensors, { hidden: allHidden, purged });
  await state.clearProgress();
  const named = (there: boolean): string[] =>
    changed.map(({ name }) => name).filter((name) => kept.has(name) === there);
  return {
    ...{ generation: committed.number, classes: lost, hidden, tasks: named(false), refitted: named(true) },
    ...{ remains, removed: purged.length },
  };
}

/**
 * Give a learned class another name. Commits a generation; older ones keep the old name. Throws TaskError for a class that is
 * not learned or the base's, and a name that is taken or cannot be used.
 */
export async function rename(bundle: Bundle, state: State, old: string, name: string): Promise<Generation> {
  const generation = await state.load();
  requireLearned(generation, bundle, old, 'renamed');
  if (classesOf(generation, bundle.manifest.classes).includes(name)) {
    throw new TaskError(filled(SENTENCES.classKnownAlready, { name, merge: 'merge()' }));
  }
  requireName(name);
  const others = classesOf(generation, bundle.manifest.classes).filter((one) => one !== old);
  const twins = firstTwin([name], others);
  if (twins) {
    const [mine, other] = twins.map((one) => one.slice(0, 40));
    throw new TaskError(filled(SENTENCES.classTwin, { name: mine!, other: other!, merge: 'merge()' }));
  }
  const tensors = new Map(generation.tensors);
  renamedStatistics(tensors, new Map([[old, name]]));
  renameSketch(tensors, new Map([[old, name]]));
  const tasks = generation.tasks.map((one) => named(one, old, name));
  return state.commit(generation.number, tasks, tensors);
}

/**
 * Make one class of two: what was learned of `other` is learned of `into`. Commits a generation. Throws TaskError for a class
 * that is not known, and for `other` of the base.
 */
export async function merge(bundle: Bundle, state: State, into: string, other: string): Promise<Generation> {
  const generation = await state.load();
  const { features } = bundle.manifest.head;
  if (into === other) throw new TaskError(filled(SENTENCES.mergeItself, { name: into }));
  requireKnown(generation, bundle, [into]);
  requireLearned(generation, bundle, other, 'merged into another; the other way round they can be');
  const tasks: LearnedTask[] = [];
  for (const one of generation.tasks) tasks.push(await mergedIn(state, one, into, other, features));
  const names = new Map([[other, into]]);
  const found = await without(bundle, state, generation, tasks, generation.hidden, []);
  const tensors = new Map(generation.tensors);
  const statistics = found.exact ? found.statistics : ClassStatistics.from(tensors, features).named(names);
  statistics.replaceIn(tensors);
  renameSketch(tensors, names);
  const both = generation.tasks.filter(({ classes }) => classes.includes(into) && classes.includes(other));
  shortenHeads(tensors, both, new Map(tasks.map((one) => [one.name, one.classes])), features);
  return state.commit(generation.number, tasks, tensors);
}

function renameSketch(tensors: Map<string, StoredTensor>, names: ReadonlyMap<string, string>): void {
  replaceSketch(tensors, Familiarity.from(tensors)?.named(names));
}

/** A task without these classes, and without sentences that name them; undefined where none is left. */
function less(task: LearnedTask, names: readonly string[]): LearnedTask | undefined {
  const classes = task.classes.filter((name) => !names.includes(name));
  if (classes.length === task.classes.length) return task;
  if (!classes.length) return undefined;
  const left = (files: ReadonlyMap<string, string>): Map<string, string> =>
    new Map([...files].filter(([name]) => classes.includes(name)));
  return {
    ...task,
    classes,
    contributions: left(task.contributions),
    carried: left(task.carried),
    notes: task.notes.filter((note) => !names.some((name) => note.includes(name))),
    shared: task.shared.filter((name) => !names.includes(name)),
    ...expectedOf(task, new Map(names.map((name) => [name, undefined]))),
  };
}

/** What was expected of a task's classes, under other names; undefined for those that are to be left out. */
function expectedOf(
  { expected }: LearnedTask,
  names: ReadonlyMap<string, string | undefined>,
): Pick<LearnedTask, 'expected'> {
  if (!Object.keys(expected).length) return { expected };
  const now = (name: string): string | undefined => (names.has(name) ? names.get(name) : name);
  const classes = Object.entries((expected.classes ?? {}) as Record<string, Record<string, Json>>);
  const kept = classes.flatMap(([name, one]) => {
    const [own, confused] = [now(name), now(String(one.confused ?? ''))];
    if (own === undefined) return [];
    const sure = { ...one, confused: '', share: new JsonNumber('0.0') };
    if (confused === undefined) return [[own, sure] as const];
    if (confused !== own) return [[own, { ...one, confused }] as const];
    // What was taken for the other class of a merged one is right.
    const right = Math.min(1, (shareOf(one.all_classes) ?? 0) + (shareOf(one.share) ?? 0));
    return [[own, { ...sure, all_classes: jsonOf(Math.round(1e4 * right) / 1e4) }] as const];
  });
  return { expected: { ...expected, classes: Object.fromEntries(kept) } };
}

/**
 * Tasks without classes of which nothing is known any more, and was `before`: a lesson had replaced it, and is gone itself.
 */
function withoutOrphans(
  tasks: readonly LearnedTask[],
  before: readonly LearnedTask[],
  base: readonly string[],
): LearnedTask[] {
  const told = ({ contributions, classes }: LearnedTask): string[] =>
    classes.filter((name) => contributions.get(name) !== '');
  const known = new Set([...base, ...tasks.flatMap(told)]);
  const orphans = before.flatMap(told).filter((name) => !known.has(name));
  return tasks.flatMap((task) => less(task, orphans) ?? []);
}

/** The classes that the fleet knows. */
function ofFleet(tasks: readonly LearnedTask[]): Set<string> {
  return new Set(tasks.filter(({ fleet }) => fleet !== undefined).flatMap(({ classes }) => classes));
}

/** Tasks of which counts again what the fleet does not know any more. */
function unshared(tasks: readonly LearnedTask[]): LearnedTask[] {
  const known = ofFleet(tasks);
  return tasks.map((task) => ({ ...task, shared: task.shared.filter((name) => known.has(name)) }));
}

/** Whether what is gone still has a share in what the fleet knows. */
function inFleet(changed: readonly LearnedTask[], kept: TaskClasses, tasks: readonly LearnedTask[]): boolean {
  const known = ofFleet(tasks);
  return changed.some(({ name, shared }) =>
    shared.some((one) => known.has(one) && !kept.get(name)?.includes(one)),
  );
}

/** The heads of changed tasks for the classes that they have now: without those that are gone, and made anew. */
function shortenHeads(
  tensors: Map<string, StoredTensor>,
  changed: readonly LearnedTask[],
  kept: TaskClasses,
  features: number,
): void {
  const anew = new Map<string, readonly string[]>();
  for (const { name, classes } of changed) {
    const left = kept.get(name);
    for (const [part, width] of [
      ['weight', features],
      ['bias', 1],
    ] as const) {
      const key = `head/${name}/${part}`;
      if (!left) {
        tensors.delete(key);
        continue;
      }
      const { data } = require32(tensors, key);
      const rows = new Float32Array(left.length * width);
      for (const [at, one] of left.entries()) {
        const from = classes.indexOf(one);
        rows.set(data.subarray(from * width, (from + 1) * width), at * width);
      }
      tensors.set(key, float32(part === 'bias' ? [left.length] : [left.length, width], rows));
    }
    if (left) anew.set(name, left);
  }
  refit(tensors, anew, features);
}

/** Make the base's own head never name these of its classes. */
export function hide(
  tensors: Map<string, StoredTensor>,
  base: readonly string[],
  hidden: readonly string[],
): void {
  if (!hidden.length) return;
  const [weight, bias] = ['weight', 'bias'].map((part) => require32(tensors, `head/base/${part}`));
  const [rows, biases] = [weight!.data.slice(), bias!.data.slice()];
  const width = rows.length / biases.length;
  for (const name of hidden) {
    const row = base.indexOf(name);
    rows.fill(0, row * width, (row + 1) * width);
    biases[row] = NEVER;
  }
  tensors.set('head/base/weight', float32(weight!.shape, rows));
  tensors.set('head/base/bias', float32(bias!.shape, biases));
}

/** What images of the forgotten classes still have a share in, one sentence each. */
function remaining(
  bundle: Bundle,
  tensors: Tensors,
  othersLeft: boolean,
  exact: boolean,
  hidden: readonly string[],
): string[] {
  const moved = othersLeft && !sameCenters(tensors, bundle.checkpoint);
  return [
    ...(othersLeft && bundle.manifest.sites.length ? [SENTENCES.remainsMoments] : []),
    ...(moved ? [SENTENCES.remainsCenters] : []),
    ...(exact ? [] : [SENTENCES.remainsSpread]),
    ...(hidden.length ? [SENTENCES.remainsBase] : []),
  ];
}

function named(task: LearnedTask, old: string, name: string): LearnedTask {
  const now = (one: string): string => (one === old ? name : one);
  const by = (files: ReadonlyMap<string, string>): Map<string, string> =>
    new Map([...files].map(([one, file]) => [now(one), file]));
  return {
    ...task,
    classes: task.classes.map(now),
    contributions: by(task.contributions),
    carried: by(task.carried),
    notes: task.notes.filter((note) => !note.includes(`'${old}'`)),
    shared: task.shared.map(now),
    ...expectedOf(task, new Map([[old, name]])),
  };
}

/** A task of which `other` is `into`; where it has both, their contributions become one. */
export async function mergedIn(
  state: State,
  task: LearnedTask,
  into: string,
  other: string,
  features: number,
): Promise<LearnedTask> {
  if (!task.classes.includes(into) || !task.classes.includes(other)) return named(task, other, into);
  const read = async (file: string): Promise<Contribution> =>
    Contribution.from(await state.contribution(file), features);
  const both = async (files: ReadonlyMap<string, string>): Promise<Map<string, string>> => {
    const pair = [into, other].flatMap((name) => files.get(name) || []);
    const rest = new Map([...files].filter(([name]) => name !== other));
    if (pair.length === 1) rest.set(into, pair[0]!);
    if (pair.length < 2) return rest;
    const [one, two] = [await read(pair[0]!), await read(pair[1]!)];
    return rest.set(into, await state.keepContribution(one.with(two).tensors()));
  };
  return {
    ...task,
    classes: task.classes.filter((name) => name !== other),
    contributions: await both(task.contributions),
    carried: await both(task.carried),
    // One that a fleet counts in part is counted here: twice, until the next merge.
    shared: task.shared.filter((name) => name !== other && (name !== into || task.shared.includes(other))),
    ...expectedOf(task, new Map([other, into].map((name) => [name, undefined]))),
  };
}

function classesOf(generation: Generation, base: readonly string[]): string[] {
  return [...new Set([...base, ...generation.tasks.flatMap(({ classes }) => classes)])];
}

function requireKnown(
  generation: Generation,
  { manifest }: Bundle,
  names: readonly string[],
  task?: string,
): void {
  const visible = manifest.classes.filter((name) => !generation.hidden.includes(name));
  const known = classesOf(generation, visible);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    // What can be changed first: the base's classes may be a thousand.
    const learnedFirst = [...known.filter((one) => !visible.includes(one)), ...visible];
    throw new TaskError(filled(SENTENCES.classNotKnown, { name: unknown, known: some(learnedFirst) }));
  }
  if (task === BASE) throw new TaskError(SENTENCES.baseStays);
  const learned = generation.tasks.map(({ name }) => name);
  if (task !== undefined && !learned.includes(task)) {
    throw new TaskError(filled(SENTENCES.taskNotLearned, { task, learned: some(learned) }));
  }
}

function requireLearned(generation: Generation, bundle: Bundle, name: string, done: string): void {
  if (bundle.manifest.classes.includes(name)) {
    throw new TaskError(filled(SENTENCES.classOfBase, { name, done }));
  }
  requireKnown(generation, bundle, [name]);
}

function requireName(name: string): void {
  if (isPlain(name)) return;
  // A control character is shown, and not written.
  const shown = JSON.stringify(name.slice(0, 40)).slice(1, -1);
  throw new TaskError(filled(SENTENCES.className, { name: shown, longest: LONGEST }));
}

function some(names: readonly string[], most = 20): string {
  const more = names.length > most ? ` and ${grouped(names.length - most)} more` : '';
  return `${names.slice(0, most).join(', ')}${more}` || 'none';
}
