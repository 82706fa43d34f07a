/** What is known, without something that was learned: for a lesson that replaces it, and for what is to be forgotten. */

import type { Bundle } from '../bundle/bundle.js';
import { float32, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { ClassStatistics, ldaHead } from '../method/heads.js';
import { Familiarity, replaceSketch } from '../method/unknown.js';
import { statisticsOf, UnledgeredError } from '../network/ledger.js';
import { PRIOR_IMAGES } from '../network/predicting.js';
import type { Generation, LearnedTask } from '../state/record.js';
import type { State } from '../state/state.js';

/** The classes of tasks by their names. */
export type TaskClasses = ReadonlyMap<string, readonly string[]>;

/**
 * A generation as it would be without what tasks contributed to `classes`; and the tasks whose heads said so. What the base
 * knows of them stays. Nothing is written.
 */
export async function replacing(
  bundle: Bundle,
  state: State,
  generation: Generation,
  classes: readonly string[],
): Promise<{ generation: Generation; refitted: TaskClasses }> {
  const touched = generation.tasks.filter((task) => task.classes.some((name) => classes.includes(name)));
  const refitted = new Map(touched.map((task) => [task.name, task.classes]));
  if (!touched.length) return { generation, refitted };
  const tasks = generation.tasks.map((task) => emptied(task, classes));
  const gone = new Set(touched.flatMap((task) => task.classes).filter((name) => classes.includes(name)));
  const { statistics } = await without(bundle, state, generation, tasks, generation.hidden, gone);
  const tensors = new Map(generation.tensors);
  statistics.replaceIn(tensors);
  const ofTasks = [...gone].filter((name) => !bundle.manifest.classes.includes(name));
  replaceSketch(tensors, Familiarity.from(tensors)?.without(ofTasks));
  return { generation: { ...generation, tasks, tensors }, refitted };
}

/** A task of which these classes are counted no more. */
function emptied(task: LearnedTask, classes: readonly string[]): LearnedTask {
  const empty = task.classes.filter((name) => classes.includes(name)).map((name) => [name, ''] as const);
  return {
    ...task,
    contributions: new Map([...task.contributions, ...empty]),
    carried: task.carried.size ? new Map([...task.carried, ...empty]) : task.carried,
    shared: task.shared.filter((name) => !classes.includes(name)),
  };
}

/**
 * What is known of `tasks` alone, and whether it is made of contributions. Where it cannot be, the means and counts of the
 * classes `gone` go, and the spread that all classes share stays.
 */
export async function without(
  bundle: Bundle,
  state: State,
  generation: Generation,
  tasks: readonly LearnedTask[],
  hidden: readonly string[],
  gone: Iterable<string>,
): Promise<{ statistics: ClassStatistics; exact: boolean }> {
  const read = (name: string): Promise<Tensors> => state.contribution(name);
  try {
    return { statistics: await statisticsOf(bundle, generation, tasks, hidden, read), exact: true };
  } catch (error) {
    if (!(error instanceof UnledgeredError)) throw error;
    const known = ClassStatistics.from(generation.tensors, bundle.manifest.head.features);
    return { statistics: known.without(gone), exact: false };
  }
}

/**
 * Make the heads of these tasks anew, of the class statistics in `tensors`. One whose classes have none of some (learned
 * without class statistics) stays.
 */
export function refit(tensors: Map<string, StoredTensor>, tasks: TaskClasses, features: number): void {
  if (!tasks.size) return;
  const known = ClassStatistics.from(tensors, features);
  const counted = new Set(known.classes.filter((_, c) => known.counts[c]! > 0));
  for (const [task, classes] of tasks) {
    if (!classes.every((name) => counted.has(name))) continue;
    const { weight, bias } = ldaHead(known, PRIOR_IMAGES, classes);
    tensors.set(`head/${task}/weight`, float32([classes.length, features], weight));
    tensors.set(`head/${task}/bias`, float32([classes.length], bias));
  }
}
