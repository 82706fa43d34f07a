/**
 * Do devices agree on what they call by one name? What one of them sends must not spoil what all of them know.
 *
 * Of each class that several devices hold, their means are compared, where the covariance within classes is that of one image,
 * and noise of few images is taken off. A device whose mean lies far from those of most others, and of two at least, has shown
 * something else under that name. How far is far is told by what lies between two classes as a rule. A spread or a number of
 * images that is out of all measure is seen in any. csk_sdk/method/consensus.py; docs/decisions/0034-fleet.md.
 */

import { FLEET } from '../contract/thresholds.js';
import { byCodePoint } from '../formats/json.js';
import { freedomOf } from './covariance.js';
import { type ClassStatistics, shrunkCovariance } from './heads.js';
import { shareUsed } from './knownClasses.js';
import { dot, identity, timesTransposed, transposed } from './matrix.js';
import { choleskyFactor } from './symmetric.js';

/** What a device holds of a class: `count` images, their mean and each feature's variance, `(f,)`. */
export interface Part {
  readonly device: string;
  readonly name: string;
  readonly count: number;
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

/**
 * Where classes are told apart: features, such that the covariance within classes is that of independent ones.
 *
 * The covariance is that of `statistics`. It fits the images that it is made of too closely, so others lie farther apart than it
 * says (knownClasses.ts): distances between means are by so much too large.
 */
export class Space {
  private constructor(
    /** The transpose of what means are multiplied by, `(f, f)`. */
    private readonly root: Float64Array,
    /** By how much the squared distance of a mean of one image is too large. */
    readonly noise: number,
  ) {}

  /** Undefined where no class has any spread. */
  static of(statistics: ClassStatistics, priorPictures: number): Space | undefined {
    const shrunk = shrunkCovariance(statistics, priorPictures);
    if (!shrunk) return undefined;
    const f = statistics.features;
    const lower = choleskyFactor(shrunk.system.solveRows(identity(f), f), f);
    if (!lower) return undefined;
    const used = shareUsed(shrunk, freedomOf(statistics.counts));
    const root = transposed(lower, f, f).map((value) => (1 - used) * value);
    return new Space(root, shrunk.noise() * (1 - used) ** 2);
  }

  /** Where means `(n, f)` lie. */
  points(means: Float64Array): Float64Array {
    const f = Math.sqrt(this.root.length);
    return timesTransposed(means, this.root, means.length / f, f, f);
  }
}

/** The devices with a spread or a number of images that no other has, of parts in any order. */
export function outOfMeasure(parts: readonly Part[]): Set<string> {
  const found = new Set<string>();
  if (!parts.length) return found;
  const usual = usualVariance(parts);
  const many = FLEET.many * median(parts.map(({ count }) => count));
  for (const { device, count, variance } of parts) {
    const wide = median(Array.from(variance, (value, j) => value / usual[j]!));
    if (wide > FLEET.wide || count > many) found.add(device);
  }
  return found;
}

/** The devices whose mean of a class lies far from those of most others, of parts in any order. */
export function apart(parts: readonly Part[], space: Space): Set<string> {
  const held = new Map<string, Part[]>();
  for (const one of inOrder(parts)) held.set(one.name, [...(held.get(one.name) ?? []), one]);
  const classes = [...held.values()].map((some) => {
    const each = byDevice(some);
    const f = each[0]!.mean.length;
    const means = new Float64Array(each.length * f);
    for (const [row, { mean }] of each.entries()) means.set(mean, row * f);
    return { each, f, points: space.points(means) };
  });
  const middles = classes.map(({ each, f, points }) =>
    Float64Array.from({ length: f }, (_, j) => median(each.map((_, row) => points[row * f + j]!))),
  );
  const limit = FLEET.far * between(middles);
  const found = new Set<string>();
  for (const { each, f, points } of classes) {
    if (each.length < FLEET.holders) continue;
    const noise = each.map(({ count }) => space.noise / count);
    for (const [row, far] of farFrom(points, noise, limit, f).entries()) {
      if (far >= 2 && 2 * far > each.length - 1) found.add(each[row]!.device);
    }
  }
  return found;
}

/** Pairs of classes of two names that look like one thing: squared distances of their means, over the median of all pairs'. */
export function alike(statistics: ClassStatistics, priorPictures: number): (readonly [string, string])[] {
  const { classes, counts, sums, features: f } = statistics;
  const seen = classes.flatMap((_, row) => (counts[row]! > 1 ? [row] : []));
  const space = seen.length > 2 ? Space.of(statistics, priorPictures) : undefined;
  if (!space) return [];
  const means = new Float64Array(seen.length * f);
  for (const [at, row] of seen.entries()) {
    for (let j = 0; j < f; j++) means[at * f + j] = sums[row * f + j]! / counts[row]!;
  }
  const all = space.points(means);
  const points = seen.map((_, at) => all.subarray(at * f, (at + 1) * f));
  const usual = between(points) || 1;
  const noise = seen.map((row) => space.noise / counts[row]!);
  return pairsOf(points.length).flatMap(([a, b]) => {
    const ratio = (squared(points[a]!, points[b]!) - noise[a]! - noise[b]!) / usual;
    return ratio < FLEET.alike ? [[classes[seen[a]!]!, classes[seen[b]!]!] as const] : [];
  });
}

/** Where each class of `same` ends, along chains of names that lead in no circle. */
export function renamed(same: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...same.keys()].map((name) => [name, endOf(name, same)!]));
}

/** A class of `same` that is another one, which is the same again; undefined where there is none. */
export function circleIn(same: ReadonlyMap<string, string>): string | undefined {
  return [...same.keys()].find((name) => endOf(name, same) === undefined);
}

function endOf(name: string, same: ReadonlyMap<string, string>): string | undefined {
  const seen = new Set([name]);
  let at = same.get(name)!;
  while (same.has(at) && !seen.has(at)) {
    seen.add(at);
    at = same.get(at)!;
  }
  return seen.has(at) ? undefined : at;
}

function inOrder(parts: readonly Part[]): Part[] {
  return [...parts].sort((a, b) => byCodePoint(a.name, b.name) || byCodePoint(a.device, b.device));
}

/** Of each feature, the median of what it varies by; never nothing. */
function usualVariance(parts: readonly Part[]): Float64Array {
  const f = parts[0]!.mean.length;
  const told = parts.filter(({ count }) => count > 1);
  if (!told.length) return new Float64Array(f).fill(1);
  const usual = Float64Array.from({ length: f }, (_, j) => median(told.map(({ variance }) => variance[j]!)));
  const floor = FLEET.leastVariance * (usual.reduce((sum, value) => sum + value, 0) / f);
  return usual.map((value) => Math.max(value, floor > 0 ? floor : 1));
}

/** One part for each device: of several lessons, their mean. */
function byDevice(parts: readonly Part[]): Part[] {
  const held = new Map<string, Part[]>();
  for (const one of parts) held.set(one.device, [...(held.get(one.device) ?? []), one]);
  return [...held.values()].map((some) => {
    if (some.length === 1) return some[0]!;
    const count = some.reduce((sum, one) => sum + one.count, 0);
    const mean = some[0]!.mean.map((_, j) =>
      some.reduce((sum, one) => sum + (one.count / count) * one.mean[j]!, 0),
    );
    return { ...some[0]!, count, mean };
  });
}

/** The squared distance that lies between two classes, as a rule; with one class, no distance is too far. */
function between(points: readonly Float64Array[]): number {
  if (points.length < 2) return Number.POSITIVE_INFINITY;
  return median(pairsOf(points.length).map(([a, b]) => squared(points[a]!, points[b]!)));
}

/** From how many others each point lies farther than it may, beyond what few images make of it. */
function farFrom(points: Float64Array, noise: readonly number[], limit: number, f: number): number[] {
  const n = noise.length;
  const norms = noise.map((_, row) =>
    dot(points.subarray(row * f, (row + 1) * f), points.subarray(row * f, (row + 1) * f)),
  );
  const counts: number[] = [];
  for (let start = 0; start < n; start += FLEET.meansAtOnce) {
    const end = Math.min(start + FLEET.meansAtOnce, n);
    const products = timesTransposed(points.subarray(start * f, end * f), points, end - start, n, f);
    for (let a = start; a < end; a++) {
      const far = noise.filter((own, b) => {
        const square = Math.max(norms[a]! + norms[b]! - 2 * products[(a - start) * n + b]!, 0);
        return square - noise[a]! - own > limit;
      });
      counts.push(far.length);
    }
  }
  return counts;
}

function pairsOf(count: number): [number, number][] {
  return Array.from({ length: count }, (_, a) => a).flatMap((a) =>
    Array.from({ length: count - a - 1 }, (_, i): [number, number] => [a, a + 1 + i]),
  );
}

function squared(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, j) => sum + (value - b[j]!) ** 2, 0);
}

/** Of an even number, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
