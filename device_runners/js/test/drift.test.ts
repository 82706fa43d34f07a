/** How features moved: what a least-squares map must be, with fewer images than features and with more. */

import { expect, it } from 'vitest';
import { DRIFT } from '../src/contract/thresholds.js';
import { DriftEstimate } from '../src/method/drift.js';
import { ClassStatistics } from '../src/method/heads.js';
import { Random } from '../src/method/random.js';

const F = 9;
type Rows = number[][];

const times = (a: Rows, b: Rows): Rows =>
  a.map((row) => b[0]!.map((_, j) => row.reduce((sum, value, k) => sum + value * b[k]![j]!, 0)));
const turned = (a: Rows): Rows => a[0]!.map((_, j) => a.map((row) => row[j]!));
const rows = (flat: ArrayLike<number>, width: number): Rows =>
  Array.from({ length: flat.length / width }, (_, i) =>
    Array.from({ length: width }, (_, j) => flat[i * width + j]!),
  );
const flat = (a: Rows): Float32Array => Float32Array.from(a.flat());

/** Images' features before and after, float32 numbers, in batches of three. */
function seen(n: number): {
  before: Rows;
  after: Rows;
  drift: (skip?: number) => ReturnType<DriftEstimate['fit']>;
} {
  const random = new Random(n, 1);
  const drawn = () => Float32Array.from({ length: n * F }, () => random.normal());
  const before = rows(drawn(), F);
  const noise = drawn();
  const after = rows(
    flat(
      before.map((row, i) =>
        row.map((value, j) => value + 0.1 * row[(j + 1) % F]! + 0.05 * noise[i * F + j]!),
      ),
    ),
    F,
  );
  const drift = (skip?: number) => {
    const estimate = new DriftEstimate(F);
    const kept = before.map((_, i) => i).filter((i) => i !== skip);
    for (let at = 0; at < kept.length; at += 3) {
      const batch = kept.slice(at, at + 3);
      estimate.add(flat(batch.map((i) => before[i]!)), flat(batch.map((i) => after[i]!)));
    }
    return estimate.fit();
  };
  return { before, after, drift };
}

it.each([5, F, 40])('of %i images of 9 features', (n) => {
  const { before, after, drift } = seen(n);
  const found = drift();
  for (const [map, source, target] of [
    [found.forward.matrix, before, after],
    [found.backward.matrix, after, before],
  ] as const) {
    const m = rows(map, F);
    const own = (DRIFT.ridge * source.flat().reduce((sum, value) => sum + value ** 2, 0)) / F;
    // At the minimum of sum |target - M source|^2 + a |M - 1|^2 its slope is zero.
    const missed = times(source, turned(m)).map((row, i) => row.map((value, j) => value - target[i]![j]!));
    const slope = times(turned(missed), source);
    for (let i = 0; i < F; i++) {
      for (let j = 0; j < F; j++)
        expect(slope[i]![j]! + own * (m[i]![j]! - Number(i === j))).toBeCloseTo(0, 9);
    }
  }

  // A head for the features after: what gives of them what it gave of those before.
  const head = found.head(flat(before.slice(0, 2)));
  const led = times(before.slice(0, 2), rows(found.backward.matrix, F)).flat();
  for (const [at, value] of led.entries()) expect(head[at]).toBeCloseTo(value, 5);

  // Statistics of features after: what the map makes of those before.
  const forward = rows(found.forward.matrix, F);
  const gram = times(turned(before), before);
  const sums = before.slice(0, 2);
  const old = new ClassStatistics(
    F,
    ['a', 'b'],
    Float64Array.from(gram.flat()),
    Float64Array.from(sums.flat()),
    Float64Array.from([1, 1]),
  );
  const moved = found.statistics(old);
  const expected = times(times(forward, gram), turned(forward)).flat();
  for (const [at, value] of expected.entries()) expect(moved.gram[at]).toBeCloseTo(value, 9);
  for (const [at, value] of times(sums, turned(forward)).flat().entries()) {
    expect(moved.sums[at]).toBeCloseTo(value, 9);
  }
});

it.each([6, 40])('what the others leave of each of %i images is what a map without it leaves', (n) => {
  const { before, after, drift } = seen(n);
  const whole = drift();
  const left = rows(whole.unexplained, F);
  for (let i = 0; i < n; i++) {
    // The pull is that of all images, where a map without one has a little less: hence not to the bit.
    const guess = times([before[i]!], turned(rows(drift(i).forward.matrix, F)))[0]!;
    for (let j = 0; j < F; j++) expect(left[i]![j]!).toBeCloseTo(after[i]![j]! - guess[j]!, 2);
  }
});
