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
import { type Draws, Spread, WIDTH } from './forgetting.js';
import type { ClassStatistics } from './heads.js';
import type { JudgedImages, LeftOut } from './leftOut.js';
import { argmax, dot, rowsAt, scaled, timesTransposed } from './matrix.js';

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
 * same; and what the old classes lose to it, `lost`: the share of their images, all of these classes alike, that are named
 * right without the new classes and not with them; undefined without any old ones, or any new ones.
 */
export interface Judgement {
  readonly expected: ReadonlyMap<string, ExpectedClass>;
  readonly twins: ReadonlyMap<string, Twin>;
  readonly rivals: ReadonlyMap<string, Twin>;
  readonly lost?: number;
  /** Pairs of the task's new classes that cannot be told from each other. */
  readonly alike: readonly (readonly [string, string])[];
}

/** A judgement with the twins that are `apart`, which decisions over all classes leave out; `then` is of what is left. */
export function judgedApart(
  judgement: Judgement,
  apart: readonly string[],
  then: Judgement | undefined,
): Judgement {
  const { expected, twins, alike } = judgement;
  const of = (name: string, one: ExpectedClass): ExpectedClass => {
    if (!apart.includes(name)) return then?.expected.get(name) ?? one;
    const { old, back } = twins.get(name)!;
    return { ...one, allClasses: 0, confused: old, share: back };
  };
  const now = new Map([...expected].map(([name, one]) => [name, of(name, one)]));
  const lost = then ? then.lost : judgement.lost === undefined ? undefined : 0;
  return {
    ...{ expected: now, twins, rivals: then?.rivals ?? new Map(), alike },
    ...(lost === undefined ? {} : { lost }),
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
  random: Pick<Draws, 'permutation' | 'normals'>,
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
  // What they lose to more images of known classes would be asked of these images alone, and is not told.
  const lost = madeUp && old.length < all.length ? { lost: madeUp.lost(old) } : {};
  return { expected, twins, rivals, alike, ...lost };
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
  /** What normal numbers `(k,)` add to the logits of all classes: `(C, k)`. */
  private readonly draws: Float64Array;
  private readonly k: number;
  private readonly closer: Float64Array;

  constructor(
    private readonly statistics: ClassStatistics,
    private readonly discriminant: LeftOut,
    base: readonly string[],
    private readonly random: Pick<Draws, 'permutation' | 'normals'>,
  ) {
    const { counts, classes } = statistics;
    // What is given back is a quarter of `t / n`.
    const noise = counts.map((_, c) => 4 * discriminant.given(c));
    const most = noise.reduce((largest, one, c) => Math.max(largest, one * counts[c]!), 0);
    const used = Math.min(most / freedomOf(counts), TWINS.mostUsed);
    const { draws, k } = new Spread(statistics).of(discriminant.ahead, classes.length);
    this.draws = scaled(draws, WIDTH / (1 - used));
    this.k = k;
    const known = new Set(base);
    this.closer = noise.map((one, c) => (known.has(classes[c]!) ? 0 : one / (1 - used)));
  }

  /** What makes images' logits differ from those at their class's mean, `(count, k)`. */
  normals(count: number): Float64Array {
    return this.random.normals(count * this.k);
  }

  /** The logits of images of class `row`, one for each row of `normals`, for the classes `among`. */
  ofClass(row: number, normals: Float64Array, among: readonly number[]): Float64Array[] {
    return this.logits(Array<number>(normals.length / this.k).fill(row), normals, among);
  }

  /**
   * The share of images of the `old` classes that are named right among these alone, and not among all. Of most images it is
   * enough that none of the other classes stands above their own.
   */
  lost(old: readonly number[]): number {
    const among = new Set(old);
    const others = [...this.statistics.classes.keys()].filter((c) => !among.has(c));
    if (!others.length) return 0;
    const order = this.random.permutation(old.length);
    const rows = Array.from({ length: TWINS.madeUp }, (_, i) => old[order[i % old.length]!]!);
    const there = [...new Set(rows)];
    const place = new Map(there.map((row, at) => [row, at]));
    const [ownDraws, otherDraws] = [this.drawsOf(there), this.drawsOf(others)];
    const atMeans = this.discriminant.atMeans(there, others);
    const [doubtful, theirs]: [number[], Float64Array[]] = [[], []];
    for (const row of rows) {
      const normals = this.normals(1);
      const at = place.get(row)!;
      const own = this.discriminant.atOwnMean(row) - this.closer[row]! + product(normals, ownDraws, at);
      if (others.every((_, c) => atMeans[at * others.length + c]! + product(normals, otherDraws, c) <= own))
        continue;
      doubtful.push(row);
      theirs.push(normals);
    }
    const normals = new Float64Array(doubtful.length * this.k);
    for (const [at, one] of theirs.entries()) normals.set(one, at * this.k);
    const right = this.logits(doubtful, normals, old).filter((one, i) => old[argmax(one)] === doubtful[i]);
    return right.length / rows.length;
  }

  /** Those for the classes `among` of an image of each class in `rows`, by its `normals`. */
  private logits(rows: readonly number[], normals: Float64Array, among: readonly number[]): Float64Array[] {
    if (!rows.length) return [];
    const count = among.length;
    const there = [...new Set(rows)];
    const place = new Map(there.map((row, at) => [row, at]));
    const atMeans = this.discriminant.atMeans(there, among);
    const logits = timesTransposed(normals, this.drawsOf(among), rows.length, count, this.k);
    return rows.map((row, i) => {
      const own = logits.subarray(i * count, (i + 1) * count);
      const mean = place.get(row)! * count;
      for (const [at, c] of among.entries()) {
        own[at] = own[at]! + atMeans[mean + at]! - (c === row ? this.closer[c]! : 0);
      }
      return own;
    });
  }

  /** What normals add to the logits of these classes, `(among.length, k)`. */
  private drawsOf(among: readonly number[]): Float64Array {
    return rowsAt(this.draws, among, this.k);
  }
}

/** `a`, and row `row` of `b`, as long as it is. */
function product(a: Float64Array, b: Float64Array, row: number): number {
  return dot(a, b.subarray(row * a.length, (row + 1) * a.length));
}

/** Of `places` in `values` that of the largest; of equals the first. */
function largest(values: Float64Array, places: readonly number[]): number {
  return places[argmax(places.map((at) => values[at]!))]!;
}
