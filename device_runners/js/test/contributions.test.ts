/** What a class contributes: its sums made small, added up in one order, and taken out again. */

import { describe, expect, it } from 'vitest';
import { CONTRIBUTIONS, KNOWN_CLASSES } from '../src/contract/thresholds.js';
import { StateError } from '../src/errors.js';
import { float32, float64 } from '../src/formats/tensors.js';
import { Contribution, ContributionSum, derived, Lesson } from '../src/method/contributions.js';
import { ClassStatistics } from '../src/method/heads.js';
import { contradicted } from '../src/method/knownClasses.js';
import { WholeMap } from '../src/method/linearMap.js';
import { norm, timesTransposed, trace, transposed } from '../src/method/matrix.js';
import { Random } from '../src/method/random.js';

const { directions, mixtures } = CONTRIBUTIONS;
const ROWS = directions + mixtures;

/** Features `(count, f)` that are correlated, and around 3. */
function pictures(count: number, f = 24, seed = 0): Float32Array {
  const random = new Random(seed);
  const mixing = Float64Array.from(
    { length: f * f },
    (_, at) => random.normal() * (0.1 + (2 * (at % f)) / f),
  );
  const noise = Float64Array.from({ length: count * f }, () => random.normal());
  return Float32Array.from(
    timesTransposed(noise, transposed(mixing, f, f), count, f, f),
    (value) => value + 3,
  );
}

function contribution(x: Float32Array, f = 24, atOnce = 16, rows = {}): Contribution {
  const sum = new ContributionSum(f, rows);
  for (let start = 0; start < x.length; start += atOnce * f) sum.add(x.subarray(start, start + atOnce * f));
  return sum.total();
}

function spread(factor: Float32Array, f: number): Float64Array {
  const columns = transposed(factor, factor.length / f, f);
  return timesTransposed(columns, columns, f, f, factor.length / f);
}

/** Mean and scatter, in plain sums. */
function exactly(x: Float32Array, f: number): { mean: Float64Array; scatter: Float64Array } {
  const n = x.length / f;
  const mean = new Float64Array(f);
  x.forEach((value, at) => {
    mean[at % f] = mean[at % f]! + value / n;
  });
  const columns = transposed(
    Float64Array.from(x, (value, at) => value - mean[at % f]!),
    n,
    f,
  );
  return { mean, scatter: timesTransposed(columns, columns, f, f, n) };
}

function off(found: ArrayLike<number>, exact: Float64Array): number {
  return norm(exact.map((value, at) => value - found[at]!)) / norm(exact);
}

describe('a contribution', () => {
  it.each([1, 7, 64, 1000])('of few images is exact (%i at once)', (atOnce) => {
    const x = pictures(ROWS - 1);
    const found = contribution(x, 24, atOnce);
    const { mean, scatter } = exactly(x, 24);
    expect(found.count).toBe(ROWS - 1);
    expect(off(found.mean, mean)).toBeLessThan(1e-6);
    expect(off(spread(found.factor, 24), scatter)).toBeLessThan(1e-6);
  });

  it.each([13, 64, 1000])(
    'of many has each feature exactly, and the others nearly (%i at once)',
    (atOnce) => {
      const f = 100;
      const x = pictures(500, f);
      const found = contribution(x, f, atOnce);
      expect(found.factor).toHaveLength(ROWS * f);
      const { mean, scatter } = exactly(x, f);
      const near = spread(found.factor, f);
      const diagonal = (of: Float64Array): Float64Array =>
        Float64Array.from({ length: f }, (_, j) => of[j * f + j]!);
      expect(off(diagonal(near), diagonal(scatter))).toBeLessThan(1e-5);
      expect(off(found.mean, mean)).toBeLessThan(1e-6);
      expect(off(near, scatter)).toBeLessThan(0.4);
    },
  );

  it('errs less over many classes with mixtures than with directions alone', () => {
    const f = 90;
    const parts = Array.from({ length: 20 }, (_, seed) => pictures(150, f, seed));
    const sum = (of: readonly Float64Array[]): Float64Array =>
      of.reduce((total, one) => total.map((value, at) => value + one[at]!));
    const exact = sum(parts.map((x) => exactly(x, f).scatter));
    const error = (rows: object): number =>
      off(sum(parts.map((x) => spread(contribution(x, f, 16, rows).factor, f))), exact);
    expect(error({})).toBeLessThan(0.5 * error({ mixtures: 0 }));
  });

  it('has no row that is an image', () => {
    for (const count of [3, 20, ROWS, 150]) {
      const f = 100;
      const x = pictures(count, f);
      const { mean, factor } = contribution(x, f);
      const rows = Array.from({ length: factor.length / f }, (_, i) => factor.subarray(i * f, (i + 1) * f));
      const largest = Math.max(...rows.map((row) => norm(row)));
      for (const row of rows.filter((one) => norm(one) > 0.03 * largest)) {
        for (const sign of [1, -1]) {
          for (let i = 0; i < count; i++) {
            const apart = row.map((value, j) => x[i * f + j]! - mean[j]! - sign * value);
            expect(norm(apart)).toBeGreaterThan(0.1 * norm(row));
          }
        }
      }
    }
  });

  it('of two classes is that of the images of both', () => {
    const [one, two] = [pictures(20), pictures(30, 24, 1)];
    const found = contribution(one).with(contribution(two));
    const { mean, scatter } = exactly(Float32Array.of(...one, ...two), 24);
    expect(found.count).toBe(50);
    expect(off(found.mean, mean)).toBeLessThan(1e-6);
    expect(off(spread(found.factor, 24), scatter)).toBeLessThan(1e-6);
  });

  it('led back is that of the images before', () => {
    const [f, random] = [24, new Random(3)];
    const map = Float64Array.from(
      { length: f * f },
      (_, at) => (at % (f + 1) ? 0 : 1) + 0.1 * random.normal(),
    );
    const x = pictures(50);
    const moved = Float32Array.from(timesTransposed(Float64Array.from(x), map, 50, f, f));
    const lesson = new Lesson(
      ['a', 'b'],
      new Map([
        ['a', contribution(moved)],
        ['b', contribution(moved)],
      ]),
    );
    const { mean, factor } = lesson.ledBack([new WholeMap(map, f)]).contributions.get('b')!;
    const before = contribution(x);
    expect(off(mean, Float64Array.from(before.mean))).toBeLessThan(1e-4);
    expect(off(spread(factor, f), spread(before.factor, f))).toBeLessThan(1e-4);
  });

  it('is refused where it is none over so many features', () => {
    const good = contribution(pictures(5)).tensors();
    expect(Contribution.from(good, 24).count).toBe(5);
    for (const [name, tensor] of [
      ['mean', float32([3])],
      ['factor', float32([24])],
      ['factor', float32([2, 12])],
      ['count', float64([0])],
      ['count', float64([1], Float64Array.of(Number.NaN))],
    ] as const) {
      const bad = new Map(good).set(name, tensor);
      expect(() => Contribution.from(bad, 24)).toThrow(StateError);
    }
    good.delete('mean');
    expect(() => Contribution.from(good, 24)).toThrow('a contribution is not one over 24 features.');
  });
});

describe('lessons', () => {
  const labels = Array.from({ length: 60 }, (_, i) => i % 2);
  const base = ClassStatistics.empty(24).add(pictures(60, 24, 5), labels, ['x', 'y']);

  function lesson(...names: string[]): Lesson {
    const each = names.map((name) => [name, contribution(pictures(30, 24, name.charCodeAt(0)))] as const);
    return new Lesson(names, new Map(each));
  }

  it('leave, where one is taken out, to the bit the sum of the others', () => {
    const [first, second, third] = [lesson('a', 'b'), lesson('c', 'd'), lesson('e')];
    const less = new Lesson(['d'], new Map([['d', second!.contributions.get('d')!]]));
    let oneByOne = base;
    for (const part of [first!, less, third!]) {
      // As a device learns: from what the generation before has stored.
      oneByOne = ClassStatistics.from(part.after(oneByOne).tensors(), 24);
    }
    const found = derived(base, [first!, less, third!]);
    expect(found.classes).toEqual(['x', 'y', 'a', 'b', 'd', 'e']);
    expect(found).toEqual(oneByOne);
  });

  it('count new images of a known class like the old ones', () => {
    const one = new Lesson(['x'], new Map([['x', contribution(pictures(10))]]));
    expect(one.after(base).counts[0]).toBeCloseTo(60, 9);
    const single = new Lesson(['x'], new Map([['x', contribution(pictures(1))]]));
    expect(single.after(base).counts[0]).toBeCloseTo(30 + KNOWN_CLASSES.most, 9);
  });
});

describe('statistics', () => {
  const labels = Array.from({ length: 90 }, (_, i) => i % 3);
  const all = ClassStatistics.empty(24).add(pictures(90, 24, 5), labels, ['x', 'y', 'z']);

  it('without a class have its mean and its count no more, and keep the spread within classes', () => {
    const found = all.without(['y']);
    expect(found.classes).toEqual(['x', 'z']);
    expect([...found.counts]).toEqual([30, 30]);
    const within = (one: ClassStatistics): number => {
      const scatter = one.tensors().get('statistics.scatter')!.data as Float64Array;
      return trace(scatter, 24) / (one.count(one.classes) - one.classes.length);
    };
    expect(within(found)).toBeCloseTo(within(all), 9);
    expect(all.without(['q'])).toBe(all);
    expect(all.without(['x', 'y', 'z']).gram.every((value) => value === 0)).toBe(true);
  });

  it('with one name for two classes have one of both', () => {
    const found = all.named(new Map([['z', 'x']]));
    expect(found.classes).toEqual(['x', 'y']);
    expect([...found.counts]).toEqual([60, 30]);
    expect(found.sums[0]).toBeCloseTo(all.sums[0]! + all.sums[48]!, 9);
  });
});

describe('a contradiction', () => {
  const f = 6;
  const around = (centre: number, count: number, seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: count * f }, (_, at) => (at % f === centre ? 9 : 0) + random.normal());
  };
  const x = Float32Array.from([...around(0, 40, 1), ...around(1, 40, 2)]);
  const known = ClassStatistics.empty(f).add(x, new Array(80).fill(0).fill(1, 40), ['a', 'b']);
  const asked = (features: number[], labels: number[]): object =>
    Object.fromEntries(contradicted(known, 10, Float32Array.from(features), labels, ['a', 'b', 'new']));

  it('is said of a known class whose images look like another known one', () => {
    const exchanged = [...around(1, 20, 3), ...around(0, 20, 4)];
    const labels = new Array(40).fill(0).fill(1, 20);
    expect(asked(exchanged, labels)).toEqual({ a: { other: 'b', share: 1 }, b: { other: 'a', share: 1 } });
    expect(asked([...around(0, 20, 3), ...around(1, 20, 4)], labels)).toEqual({});
  });

  it('is said of a new class that has changed places with a known one', () => {
    const labels = new Array(40).fill(0).fill(2, 20);
    const exchanged = [...around(1, 20, 3), ...around(0, 20, 4)];
    expect(asked(exchanged, labels)).toEqual({ a: { other: 'b', share: 1 }, new: { other: 'a', share: 1 } });
    expect(asked([...around(0, 20, 3), ...around(0, 20, 4)], labels)).toEqual({});
  });

  it('is not said of few images, of new classes, or of what looks like nothing known', () => {
    expect(asked(around(1, 4, 3), [0, 0, 0, 0])).toEqual({});
    expect(asked(around(1, 20, 3), new Array(20).fill(2))).toEqual({});
    const winter = around(1, 20, 3).map((value, at) => value + (at % f === 4 ? 30 : 0));
    expect(asked(winter, new Array(20).fill(0))).toEqual({});
  });
});
