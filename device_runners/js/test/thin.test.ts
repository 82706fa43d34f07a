/** Covariances of few images, and maps that these add to the identity, against the whole matrices. */

import { describe, expect, it, vi } from 'vitest';
import { freedomOf, roundingOf } from '../src/method/covariance.js';
import { Spread } from '../src/method/forgetting.js';
import { ClassStatistics, ldaHead, shrunkCovariance } from '../src/method/heads.js';
import { type LinearMap, ThinMap, WholeMap } from '../src/method/linearMap.js';
import { identity, timesTransposed, transposed } from '../src/method/matrix.js';
import { Random } from '../src/method/random.js';
import * as symmetric from '../src/method/symmetric.js';
import { choleskyFactor, SymmetricSystem } from '../src/method/symmetric.js';
import { thinCovariance } from '../src/method/thin.js';

const F = 96;

function drawn(count: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: count }, () => random.normal());
}

/** Features of very different sizes, one that never fires and one that is always the same. */
function known(images: number, classes = ['a', 'b', 'c']): ClassStatistics {
  // Of a seed by which no feature of four images is nearly the same in all: rounding would be most of its spread.
  const random = new Random(images, 5);
  const features = Float32Array.from({ length: images * F }, (_, at) => {
    const j = at % F;
    return j === 0 ? 0 : j === 1 ? 3 : 10 ** ((j % 7) - 3) * Math.max(random.normal() + 0.5, 0);
  });
  const labels = Array.from({ length: images }, (_, i) => i % classes.length);
  return ClassStatistics.empty(F).add(features, labels, classes);
}

/** What every number is off by, as a share of the largest of its column. */
function off(found: Float64Array, expected: Float64Array, f: number): number {
  let most = 0;
  for (let j = 0; j < f; j++) {
    let [largest, apart] = [0, 0];
    for (let at = j; at < expected.length; at += f) {
      largest = Math.max(largest, Math.abs(expected[at]!));
      apart = Math.max(apart, Math.abs(found[at]! - expected[at]!));
    }
    most = Math.max(most, largest ? apart / largest : apart);
  }
  return most;
}

/** The shrunk covariance as its formula has it, whole. */
function loaded(statistics: ClassStatistics, prior: number): Float64Array {
  const freedom = freedomOf(statistics.counts);
  const share = prior / (freedom + prior);
  const trace = statistics.gram.reduce((sum, value, at) => sum + (at % (F + 1) ? 0 : value), 0);
  return statistics.scatter.map((value, at) => {
    const within = value / freedom;
    const floor = (8 * Number.EPSILON * trace) / freedom;
    return at % (F + 1) ? (1 - share) * within : within + floor;
  });
}

describe.each([4, 9, 24])('a covariance of %i images', (images) => {
  const statistics = known(images);

  it('is a few rows', () => {
    const { rows, n } = thinCovariance(statistics)!;
    // One more for rounding in the feature that never changes.
    expect(n).toBeLessThanOrEqual(images - 3 + 1);
    const columns = transposed(rows, n, F);
    const found = timesTransposed(columns, columns, F, F, n);
    const freedom = freedomOf(statistics.counts);
    const floor = roundingOf(statistics);
    const deviations = Float64Array.from({ length: F }, (_, j) =>
      Math.sqrt(Math.max(statistics.scatter[j * F + j]! / freedom, 0) + floor),
    );
    statistics.scatter.forEach((value, at) => {
      const both = deviations[at % F]! * deviations[Math.floor(at / F)]!;
      expect(Math.abs(found[at]! - value / freedom) / both).toBeLessThan(1e-9);
    });
  });

  it.each([1, 100])('has the inverse of the whole, with %i images before', (prior) => {
    const { system, noise, shrinkage } = shrunkCovariance(statistics, prior)!;
    const whole = new SymmetricSystem(loaded(statistics, prior), F);
    const expected = whole.solveRows(identity(F), F);
    expect(off(system.solveRows(identity(F), F), expected, F)).toBeLessThan(1e-8);
    const within = statistics.scatter.map((value) => value / freedomOf(statistics.counts));
    const trace = expected.reduce((sum, value, at) => sum + value * within[at]!, 0);
    expect(noise() / trace - 1).toBeCloseTo(0, 8);
    expect(shrinkage).toBeCloseTo(prior / (images - 3 + prior), 12);
  });

  it('has a root of that inverse', () => {
    const { system } = shrunkCovariance(statistics, 100)!;
    const whole = new SymmetricSystem(loaded(statistics, 100), F);
    const root = system.whitenRows(identity(F), F);
    expect(off(timesTransposed(root, root, F, F, F), whole.solveRows(identity(F), F), F)).toBeLessThan(1e-8);
    expect(off(system.unwhitenRows(identity(F), F), transposed(root, F, F), F)).toBeLessThan(1e-8);
  });

  it("has the whole one's Cholesky factor", () => {
    const freedom = freedomOf(statistics.counts);
    const trace = statistics.gram.reduce((sum, value, at) => sum + (at % (F + 1) ? 0 : value), 0);
    const whole = statistics.scatter.map((value, at) => {
      const within = value / freedom;
      const more = 1e-6 * Math.max(within, 0) + (8 * Number.EPSILON * trace) / freedom;
      return at % (F + 1) ? within : within + more;
    });
    const lower = choleskyFactor(whole, F)!;
    const found = new Spread(statistics).times(identity(F), F);
    expect(off(transposed(found, F, F), transposed(lower, F, F), F)).toBeLessThan(1e-7);
    expect(found.every((value, at) => at % F <= Math.floor(at / F) || value === 0)).toBe(true);
  });
});

describe('a covariance is whole', () => {
  it('of many images', () => {
    expect(thinCovariance(known(F))).toBeUndefined();
  });

  it('where fewer count than it was made of', () => {
    const { classes, scatter, sums, counts } = known(4 * F);
    const less = new ClassStatistics(
      F,
      classes,
      { scatter },
      sums.map((value) => value / 50),
      counts.map((count) => count / 50),
    );
    expect(thinCovariance(less)).toBeUndefined();
    const { system } = shrunkCovariance(less, 100)!;
    const expected = new SymmetricSystem(loaded(less, 100), F).solveRows(identity(F), F);
    expect(off(system.solveRows(identity(F), F), expected, F)).toBeLessThan(1e-9);
  });

  it('without images before it, as rounding alone then makes it regular', () => {
    const { weight } = ldaHead(known(9), 0);
    expect(weight.every(Number.isFinite)).toBe(true);
  });
});

it('numbers that are none do not become some', () => {
  const { classes, sums, counts, scatter } = known(9);
  const broken = new ClassStatistics(
    F,
    classes,
    { scatter: scatter.map((v, at) => (at === 5 * F + 5 ? Number.NaN : v)) },
    sums,
    counts,
  );
  expect(ldaHead(broken, 100).weight.some(Number.isNaN)).toBe(true);
});

describe('a map of few images', () => {
  const [f, n] = [23, 6];
  const [left, right] = [drawn(f * n, 1), drawn(f * n, 2).map((value) => 0.1 * value)];
  const whole = timesTransposed(left, right, f, f, n).map((value, at) => value + (at % (f + 1) ? 0 : 1));
  const thin: LinearMap = ThinMap.of(left, transposed(right, f, n), n, f);
  const same = new WholeMap(whole, f);
  const rows = drawn(5 * f, 3);
  const other = drawn(f * f, 4);
  const gram = timesTransposed(other, other, f, f, f);

  it.each<[string, (map: LinearMap) => Float64Array]>([
    ['matrix', (map) => map.matrix],
    ['led', (map) => map.led(rows, 5)],
    ['ahead', (map) => map.ahead(rows, 5)],
    ['ledBack', (map) => map.ledBack(rows, 5)],
    ['around', (map) => map.around(gram)],
    ['times', (map) => map.times(other)],
  ])('does as the whole one: %s', (_, of) => {
    expect(off(of(thin), of(same), f)).toBeLessThan(1e-10);
  });

  it('that is only known as a whole leads back as exactly', () => {
    // Two lessons' maps, one behind the other, and as a state keeps them.
    const wide = 64;
    const map = (seed: number, size: number): ThinMap => {
      const some = drawn(wide * 4, seed).map((value) => size * value);
      return ThinMap.of(some, transposed(drawn(wide * 4, seed + 1), wide, 4), 4, wide);
    };
    const product = map(7, 0.1).times(map(9, 0.001).matrix);
    const stored = new Float64Array(new Float32Array(product));
    const asked = drawn(5 * wide, 11);
    const solve = vi.spyOn(symmetric, 'solvedRows');
    for (const matrix of [product, stored]) {
      const whole = new WholeMap(matrix, wide);
      solve.mockClear();
      const found = whole.ledBack(asked, 5);
      expect(off(whole.led(found, 5), asked, wide)).toBeLessThan(1e-11);
      // Of the map's eight directions, and not of its 64.
      expect(solve.mock.calls.length).toBeGreaterThan(0);
      expect(solve.mock.calls.every(([, , , n]) => n < 16)).toBe(true);
    }
    solve.mockRestore();
  });

  it('that it is not near to is solved as any other', () => {
    const whole = new WholeMap(
      drawn(f * f, 12).map((value, at) => value + (at % (f + 1) ? 0 : 9)),
      f,
    );
    expect(off(whole.led(whole.ledBack(rows, 5), 5), rows, f)).toBeLessThan(1e-9);
  });

  it('of nothing leaves everything as it is', () => {
    expect(new WholeMap(identity(f), f).ledBack(rows, 5)).toEqual(rows);
  });

  it('leads back what it led', () => {
    for (const map of [thin, same]) expect(off(map.ledBack(map.led(rows, 5), 5), rows, f)).toBeLessThan(1e-9);
  });
});

describe('statistics around the means', () => {
  it('of classes of both are what all images at once are', () => {
    const random = new Random(5);
    const features = Float32Array.from({ length: 20 * F }, () => random.normal() + 2);
    const all = ClassStatistics.empty(F).add(
      features,
      Array.from({ length: 20 }, (_, i) => i % 2),
      ['a', 'b'],
    );
    const part = (from: number, to: number): ClassStatistics => {
      const some = ClassStatistics.empty(F).add(
        features.slice(from * F, to * F),
        Array.from({ length: to - from }, (_, i) => (from + i) % 2),
        ['a', 'b'],
      );
      // As they are stored: around the means.
      return new ClassStatistics(F, some.classes, { scatter: some.scatter }, some.sums, some.counts);
    };
    const both = part(0, 7).merge(part(7, 20));
    expect(off(both.scatter, all.scatter, F)).toBeLessThan(1e-12);
    expect(off(both.gram, all.gram, F)).toBeLessThan(1e-12);
  });
});
