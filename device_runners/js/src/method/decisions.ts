/**
 * What the decision over all classes makes of a lesson: how often it is right, and what it takes from old classes.
 *
 * Of the task's own images each is left out of the statistics that judge it. Of old classes there are no images: they are
 * made up, around the class's mean with the covariance that all classes share. csk_sdk/method/decisions.py says how wide,
 * and what makes a new class the twin of an old one; docs/decisions/0033-honest-report.md has both measured.
 */

import { TWINS } from '../contract/thresholds.js';
import type { Twin } from '../errors.js';
import { isObject, type Json, plain } from '../formats/json.js';
import { freedomOf } from './covariance.js';
import { type Draws, spreadOf, WIDTH } from './forgetting.js';
import type { ClassStatistics } from './heads.js';
import { AT_ONCE, type JudgedImages, type LeftOut } from './leftOut.js';
import { argmax, rowsAt, timesTransposed } from './matrix.js';

/**
 * How often a class of the task will be recognised, shares of 0 to 1: in the decision over all classes, and among the
 * task's own. `confused` is the class that most of the others are taken for, '' for none, and `share` how many.
 */
export interface ExpectedClass {
  readonly allClasses: number;
  readonly task: number;
  readonly confused: string;
  readonly share: number;
}

/**
 * By class of the task what is `expected` of it; its `twins`, and its `rivals`, which can be told apart and take much all the
 * same; and the accuracy of the old classes, all of them alike, without and with the new ones; undefined without any.
 */
export interface Judgement {
  readonly expected: ReadonlyMap<string, ExpectedClass>;
  readonly twins: ReadonlyMap<string, Twin>;
  readonly rivals: ReadonlyMap<string, Twin>;
  readonly before?: number;
  readonly after?: number;
  /** Pairs of the task's new classes that cannot be told from each other. */
  readonly alike: readonly (readonly [string, string])[];
}

/** A judgement with the twins that are `apart`, which decisions over all classes leave out; `then` is of what is left. */
export function judgedApart(
  judgement: Judgement,
  apart: readonly string[],
  then: Judgement | undefined,
): Judgement {
  const { expected, twins, before, alike } = judgement;
  const of = (name: string, one: ExpectedClass): ExpectedClass => {
    if (!apart.includes(name)) return then?.expected.get(name) ?? one;
    const { old, back } = twins.get(name)!;
    return { ...one, allClasses: 0, confused: old, share: back };
  };
  const now = new Map([...expected].map(([name, one]) => [name, of(name, one)]));
  const after = then ? then.after : before;
  return {
    ...{ expected: now, twins, rivals: then?.rivals ?? new Map(), alike },
    ...(before === undefined ? {} : { before }),
    ...(after === undefined ? {} : { after }),
  };
}

/** By learned class, how often it was expected to be right over all classes: of what tasks expected, oldest first. */
export function recognised(expected: Iterable<Readonly<Record<string, Json>>>): Map<string, number> {
  const found = new Map<string, number>();
  for (const { classes } of expected) {
    if (!isObject(classes)) continue;
    for (const [name, said] of Object.entries(classes)) {
      const share = isObject(said) ? shareOf(said.all_classes) : undefined;
      if (share !== undefined) found.set(name, share);
    }
  }
  return found;
}

/** A share that a record tells; undefined where it is none, as nobody has checked. */
export function shareOf(told: Json | undefined): number | undefined {
  const share = plain(told ?? null);
  return typeof share === 'number' && share >= 0 && share <= 1 ? share : undefined;
}

/**
 * Of a task's images, judged by the discriminant of `statistics`, which `classes` are part of. `known` are those of
 * `classes` that were known before, `base` the classes that the network was trained on, and `right` how often learned ones
 * are, as `recognised` has it.
 */
export function judge(
  statistics: ClassStatistics,
  images: JudgedImages,
  classes: readonly string[],
  known: readonly string[],
  base: readonly string[],
  random: Pick<Draws, 'permutation' | 'normal'>,
  right: ReadonlyMap<string, number> = new Map(),
): Judgement {
  const { classes: all } = statistics;
  const own = classes.map((name) => all.indexOf(name));
  const old = [...all.keys()].filter((row) => !classes.includes(all[row]!) || known.includes(all[row]!));
  const logits = images.labels.map((_, i) => images.logits.subarray(i * all.length, (i + 1) * all.length));
  const expected = new Map<string, ExpectedClass>();
  const [twins, rivals] = [new Map<string, Twin>(), new Map<string, Twin>()];
  const madeUp = old.length ? new MadeUp(statistics, images.discriminant, base, random) : undefined;
  for (const [index, name] of classes.entries()) {
    const mine = logits.filter((_, i) => images.labels[i] === index);
    if (!mine.length) continue;
    expected.set(name, expectedOf(mine, own, index, all));
    if (known.includes(name) || !madeUp || mine.length < TWINS.leastImages) continue;
    const found = rivalOf(mine, own[index]!, old, madeUp, all, right);
    if (found) (found.alike ? twins : rivals).set(name, found.twin);
  }
  const alike = alikeOf(logits, images.labels, own, classes, known);
  return { expected, twins, rivals, alike, ...madeUp?.accuracies(old) };
}

/** Pairs of the task's new classes that are to each other what a twin is to an old class. */
function alikeOf(
  logits: readonly Float64Array[],
  labels: readonly number[],
  own: readonly number[],
  classes: readonly string[],
  known: readonly string[],
): [string, string][] {
  const counts = classes.map(() => 0);
  // Of each class, how many of its images look as much like each other one.
  const looks = classes.map(() => new Float64Array(classes.length));
  for (const [i, row] of logits.entries()) {
    const label = labels[i]!;
    counts[label]! += 1;
    for (const [other, place] of own.entries()) {
      looks[label]![other]! += Number(row[place]! + TWINS.even > row[own[label]!]!);
    }
  }
  const found: [string, string][] = [];
  for (const [one, name] of classes.entries()) {
    for (let other = one + 1; other < classes.length; other++) {
      const least = Math.min(counts[one]!, counts[other]!);
      if (!least || known.includes(name) || known.includes(classes[other]!)) continue;
      const share = looks[one]![other]! / counts[one]! + looks[other]![one]! / counts[other]!;
      if (share > TWINS.confused + TWINS.noise / Math.sqrt(least)) found.push([name, classes[other]!]);
    }
  }
  return found;
}

function expectedOf(
  logits: readonly Float64Array[],
  own: readonly number[],
  index: number,
  names: readonly string[],
): ExpectedClass {
  const said = new Float64Array(names.length);
  let among = 0;
  for (const its of logits) {
    // Where another is as likely, to within rounding, it is not named for sure.
    const row = its.slice();
    row[own[index]!]! -= TWINS.even;
    const best = argmax(row);
    said[best] = said[best]! + 1;
    among += Number(largest(row, own) === own[index]);
  }
  const right = said[own[index]!]!;
  said[own[index]!] = 0;
  const most = argmax(said);
  const n = logits.length;
  return {
    allClasses: right / n,
    task: among / n,
    confused: said[most] ? names[most]! : '',
    share: said[most]! / n,
  };
}

/** The old class that a new one, `own`, with these logits of its images, takes much from, and whether it is its twin. */
function rivalOf(
  logits: readonly Float64Array[],
  own: number,
  old: readonly number[],
  madeUp: MadeUp,
  names: readonly string[],
  recognised: ReadonlyMap<string, number>,
): { readonly twin: Twin; readonly alike: boolean } | undefined {
  const n = logits.length;
  const shares = old.map((row) => logits.filter((one) => one[row]! > one[own]!).length / n);
  const nearest = argmax(shares);
  const row = old[nearest]!;
  const back = shares[nearest]!;
  // Of most classes the two scores say enough, and not all of them are made.
  const normals = madeUp.normals(TWINS.ofClass);
  const pair = madeUp.ofClass(row, normals, [own, row]);
  const lost = pair.filter(([one, other]) => one! + TWINS.even > other!).length / pair.length;
  const alike = lost + back > TWINS.confused + TWINS.noise / Math.sqrt(n);
  if (!alike && lost <= TWINS.taken) return undefined;
  const made = madeUp.ofClass(row, normals, [...names.keys()]);
  for (const one of made) one[own] = one[own]! + TWINS.even;
  const right = made.filter((one) => largest(one, old) === row);
  const taken = right.filter((one) => argmax(one) === own).length / made.length;
  if (taken <= TWINS.taken) return undefined;
  // More of what is made up is right than of images, and what is wrong already is not taken.
  const less = Math.min(1, (recognised.get(names[row]!) ?? 1) / (right.length / made.length));
  return { twin: { old: names[row]!, taken: less * taken, back }, alike };
}

/** Images of old classes that look as others of theirs would, to the discriminant. */
class MadeUp {
  private readonly around: Float64Array;
  private readonly wide: Float64Array;
  private readonly closer: Float64Array;

  constructor(
    private readonly statistics: ClassStatistics,
    discriminant: LeftOut,
    base: readonly string[],
    private readonly random: Pick<Draws, 'permutation' | 'normal'>,
  ) {
    const { counts, classes } = statistics;
    // What is given back is a quarter of `t / n`.
    const noise = counts.map((_, c) => 4 * discriminant.given(c));
    const most = noise.reduce((largest, one, c) => Math.max(largest, one * counts[c]!), 0);
    const used = Math.min(most / freedomOf(counts), TWINS.mostUsed);
    this.around = discriminant.atMeans();
    const width = WIDTH / (1 - used);
    // Only logits are looked at, so the spread is multiplied with the discriminant first.
    this.wide = spreadOf(statistics)
      .times(discriminant.ahead, classes.length)
      .map((value) => width * value);
    this.closer = noise.map((one, c) => (base.includes(classes[c]!) ? 0 : one / (1 - used)));
  }

  /** What makes images differ from their class's mean, `(count, f)`. */
  normals(count: number): Float64Array {
    const found = new Float64Array(count * this.statistics.features);
    for (let at = 0; at < found.length; at++) found[at] = this.random.normal();
    return found;
  }

  /** The logits of images of class `row`, one for each row of `normals`, for the classes `among`. */
  ofClass(row: number, normals: Float64Array, among: readonly number[]): Float64Array[] {
    const { features: f, classes } = this.statistics;
    const n = normals.length / f;
    const logits = timesTransposed(normals, rowsAt(this.wide, among, f), n, among.length, f);
    const mean = among.map(
      (c) => this.around[row * classes.length + c]! - (c === row ? this.closer[row]! : 0),
    );
    return Array.from({ length: n }, (_, i) => {
      const own = logits.subarray(i * among.length, (i + 1) * among.length);
      for (let at = 0; at < own.length; at++) own[at] = own[at]! + mean[at]!;
      return own;
    });
  }

  /** Those of an image of each class in `rows`. */
  logits(rows: readonly number[]): Float64Array[] {
    const { features: f, classes } = this.statistics;
    const count = classes.length;
    const found: Float64Array[] = [];
    for (let start = 0; start < rows.length; start += AT_ONCE) {
      const some = rows.slice(start, start + AT_ONCE);
      const logits = timesTransposed(this.normals(some.length), this.wide, some.length, count, f);
      for (const [at, row] of some.entries()) {
        const own = logits.subarray(at * count, (at + 1) * count);
        for (let c = 0; c < count; c++) own[c] = own[c]! + this.around[row * count + c]!;
        own[row] = own[row]! - this.closer[row]!;
        found.push(own);
      }
    }
    return found;
  }

  /** How many images of the `old` classes are named right, among these alone and among all. */
  accuracies(old: readonly number[]): { before: number; after: number } {
    const order = this.random.permutation(old.length);
    const rows = Array.from({ length: TWINS.madeUp }, (_, i) => old[order[i % old.length]!]!);
    const made = this.logits(rows);
    const right = (said: (one: Float64Array) => number): number =>
      made.filter((one, i) => said(one) === rows[i]).length / made.length;
    return { before: right((one) => largest(one, old)), after: right((one) => argmax(one)) };
  }
}

/** Of `places` in `values` that of the largest; of equals the first. */
function largest(values: Float64Array, places: readonly number[]): number {
  return places[argmax(places.map((at) => values[at]!))]!;
}
