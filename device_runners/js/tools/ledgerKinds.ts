/** The kinds of conformance cases that are the ledger's (docs/conformance.md), each asked of this runner. */

import { type Contribution, ContributionSum, derived, Lesson } from '../src/method/contributions.js';
import { ClassStatistics } from '../src/method/heads.js';
import { contradicted } from '../src/method/knownClasses.js';
import { WholeMap } from '../src/method/linearMap.js';
import { identity, timesTransposed, transposed } from '../src/method/matrix.js';
import { PRIOR_IMAGES } from '../src/network/predicting.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';

/** What a task with features `(n, f)` and labels `(n,)` into `classes` contributes, seen so many images at once. */
export function lessonOf(
  features: Float32Array,
  labels: readonly number[],
  classes: readonly string[],
  atOnce = 16,
): Lesson {
  const f = features.length / labels.length;
  const sums = classes.map(() => new ContributionSum(f));
  for (let start = 0; start < labels.length; start += atOnce) {
    const part = Array.from(labels, (_, i) => i).slice(start, start + atOnce);
    for (const [label, sum] of sums.entries()) {
      const own = part.filter((i) => labels[i] === label);
      sum.add(Float32Array.from(own.flatMap((i) => [...features.subarray(i * f, (i + 1) * f)])));
    }
  }
  const each = sums.map((sum, label) => [classes[label]!, sum.total()] as const);
  return new Lesson(classes, new Map(each.filter(([, { count }]) => count)));
}

async function contribution(given: Given): Promise<Results> {
  const { classes: count, at_once: atOnce } = given.settings as { classes: number; at_once: number };
  const f = tensor(given, 'features').shape[1]!;
  const names = Array.from({ length: count }, (_, i) => String(i));
  const lesson = lessonOf(floats(given, 'features'), numbers(given, 'labels'), names, atOnce);
  const found = names.map((name) => lesson.contributions.get(name)!);
  const scatters = found.map(({ factor }) => {
    const n = factor.length / f;
    const columns = transposed(factor, n, f);
    return timesTransposed(columns, columns, f, f, n);
  });
  const spreads = scatters.flatMap((one) => Array.from({ length: f }, (_, j) => one[j * f + j]!));
  const sum = scatters.reduce((total, one) => total.map((value, at) => value + one[at]!));
  return new Map([
    [
      'counts',
      result(
        [count],
        found.map((one) => one.count),
      ),
    ],
    [
      'means',
      result(
        [count, f],
        found.flatMap((one) => [...one.mean]),
      ),
    ],
    ['spreads', result([count, f], spreads)],
    ['scatter', result([f, f], sum)],
  ]);
}

/** As it is kept: led back by all maps so far; then derived without the forgotten, and the maps' image of the sum. */
async function ledger(given: Given): Promise<Results> {
  const { base, tasks, forgotten, moved } = given.settings as {
    base: string[];
    tasks: string[][];
    forgotten: string[];
    moved: boolean;
  };
  const f = tensor(given, 'gram').shape[0]!;
  let map = identity(f);
  const lessons = tasks.map((classes, task) => {
    let lesson = lessonOf(floats(given, `features/${task}`), numbers(given, `labels/${task}`), classes);
    if (moved) {
      map = timesTransposed(doubles(given, `forward/${task}`), transposed(map, f, f), f, f, f);
      lesson = lesson.ledBack([new WholeMap(map, f)]);
    }
    const left = classes.filter((name) => !forgotten.includes(name));
    const kept = left.map((name): [string, Contribution] => [name, lesson.contributions.get(name)!]);
    return new Lesson(left, new Map(kept));
  });
  const known = derived(statistics(given, base), lessons);
  const half = timesTransposed(map, known.gram, f, f, f);
  const count = known.classes.length;
  return new Map([
    ['gram', result([f, f], timesTransposed(half, map, f, f, f))],
    ['sums', result([count, f], timesTransposed(known.sums, map, count, f, f))],
    ['counts', result([count], known.counts)],
  ]);
}

async function contradiction(given: Given): Promise<Results> {
  const { old, classes } = given.settings as { old: string[]; classes: string[] };
  const [features, labels] = [floats(given, 'features'), numbers(given, 'labels')];
  const found = contradicted(statistics(given, old), PRIOR_IMAGES, features, labels, classes);
  const others = classes.map((name) => old.indexOf(found.get(name)?.other ?? ''));
  const shares = classes.map((name) => found.get(name)?.share ?? 0);
  return new Map([
    ['others', result([classes.length], others)],
    ['shares', result([classes.length], shares)],
  ]);
}

function statistics(given: Given, names: readonly string[]): ClassStatistics {
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  return new ClassStatistics(tensor(given, 'gram').shape[0]!, names, gram!, sums!, counts!);
}

export const LEDGER: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  contribution,
  ledger,
  contradiction,
};
