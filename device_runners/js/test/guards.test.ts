/** The guards, case by case beside what the Python SDK says: tools/guards.py. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decode } from '../src/formats/safetensors.js';
import { DriftEstimate } from '../src/method/drift.js';
import { type Draws, estimatedForgetting, pointsLost, Spread } from '../src/method/forgetting.js';
import { ClassStatistics } from '../src/method/heads.js';
import { knownAmong } from '../src/method/knownClasses.js';
import { classEvidence, isRefuted, type LabelEvidence } from '../src/method/labelCheck.js';
import { WholeMap } from '../src/method/linearMap.js';
import type { HeadArrays } from '../src/method/logistic.js';
import { identity, transposed } from '../src/method/matrix.js';
import { novelty } from '../src/method/novelty.js';
import { Random } from '../src/method/random.js';
import { lessonOf } from '../tools/ledgerKinds.js';
import { FIXTURES } from './fixtures.js';

interface Said {
  readonly labels: readonly (LabelEvidence & { classes: number; refuted: boolean })[];
  readonly refuted: readonly (LabelEvidence & { refuted: boolean })[];
  readonly novelty: readonly (number | null)[];
  readonly known: readonly Record<'old' | 'classes' | 'names' | 'merged', readonly string[]>[];
  readonly forgetting: {
    readonly statistics: readonly string[];
    readonly classes: Readonly<Record<string, readonly string[]>>;
    readonly lost: Readonly<Record<string, number>>;
  };
}

const said = JSON.parse(readFileSync(join(FIXTURES, 'guards.json'), 'utf8')) as Said;
const { tensors } = decode(new Uint8Array(readFileSync(join(FIXTURES, 'guards.safetensors'))));

function floats(name: string): Float32Array {
  const found = tensors.get(name);
  if (found?.dtype !== 'float32') throw new Error(`no float32 ${name}`);
  return found.data;
}

function doubles(name: string): Float64Array {
  const found = tensors.get(name);
  if (found?.dtype !== 'float64') throw new Error(`no float64 ${name}`);
  return found.data;
}

function numbers(name: string): number[] {
  return Array.from(tensors.get(name)!.data, Number);
}

function statistics(name: string, classes: readonly string[]): ClassStatistics {
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((key) => doubles(`${name}/${key}`));
  return new ClassStatistics(Math.sqrt(gram!.length), classes, gram!, sums!, counts!);
}

/** Deviation of the worst element, as a share of the largest. */
function deviation(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  let worst = 0;
  let largest = 0;
  for (let at = 0; at < expected.length; at++) {
    worst = Math.max(worst, Math.abs(found[at]! - expected[at]!));
    largest = Math.max(largest, Math.abs(expected[at]!));
  }
  return worst / largest;
}

describe('the label check', () => {
  it.each(said.labels.map((one, number) => ({ ...one, number })))(
    'finds what Python finds: $classes classes, accuracy $accuracy',
    ({ number, classes, accuracy, chance, pictures, refuted }) => {
      const labels = numbers(`labels/${number}/labels`);
      const features = floats(`labels/${number}/features`);
      const found = classEvidence(features, features.length / labels.length, labels, classes);
      expect(found.accuracy).toBeCloseTo(accuracy, 10);
      expect(found.chance).toBeCloseTo(chance, 10);
      expect(found.pictures).toBeCloseTo(pictures, 8);
      expect(isRefuted(found)).toBe(refuted);
    },
  );

  it('refuses what Python refuses', () => {
    const found = said.refuted.map((one) => isRefuted(one));
    expect(found).toEqual(said.refuted.map(({ refuted }) => refuted));
    expect(new Set(found)).toEqual(new Set([true, false]));
  });

  it.each([4, 60])('refuses any labels of %i images that are all the same', (images) => {
    const labels = Array.from({ length: images }, (_, image) => image % 2);
    const same = Float32Array.from({ length: 3 * images }, (_, at) => (at % 3) + 1 + 1e-9 * at);
    const found = classEvidence(same, 3, labels, 2);
    expect(found).toMatchObject({ accuracy: 0.5, chance: 0.5 });
    expect(isRefuted(found)).toBe(true);
    const told = same.map((value, at) => value + labels[Math.floor(at / 3)]!);
    expect(isRefuted(classEvidence(told, 3, labels, 2))).toBe(false);
  });
});

it('novelty is the distance that Python measures', () => {
  said.novelty.forEach((expected, number) => {
    const known = statistics(`novelty/${number}`, ['a', 'b', 'c']);
    const found = novelty(known, floats(`novelty/${number}/features`));
    if (expected === null) expect(found).toBeUndefined();
    else expect(found).toBeCloseTo(expected, 6);
  });
});

it('images of known classes count as often as in Python', () => {
  said.known.forEach(({ old, classes, names, merged }, number) => {
    const before = statistics(`known/${number}/old`, old);
    expect(knownAmong(classes, before)).toEqual(names);
    const features = [0, 1].flatMap((batch) => [...floats(`known/${number}/${batch}/features`)]);
    const labels = Array.from({ length: 18 }, (_, i) => (i % 9) % classes.length);
    const found = lessonOf(Float32Array.from(features), labels, classes).after(before);
    expect(found.classes).toEqual(merged);
    for (const key of ['gram', 'sums', 'counts'] as const) {
      expect(deviation(found[key], doubles(`known/${number}/merged/${key}`))).toBeLessThan(1e-6);
    }
  });
});

describe('the estimate of forgetting', () => {
  const { statistics: classes, classes: byTask, lost } = said.forgetting;
  const known = statistics('forgetting/statistics', classes);
  const f = known.features;
  const [matrix, unexplained] = [doubles('forgetting/forward'), doubles('forgetting/unexplained')];
  const forward = new WholeMap(matrix, f);

  function head(when: string, task: string): HeadArrays {
    const [weight, bias] = ['weight', 'bias'].map((key) => floats(`forgetting/${when}/${task}/${key}`));
    return { weight: weight!, bias: bias! };
  }

  it('spreads made-up features as Python does', () => {
    const lower = new Spread(known).times(identity(f), f);
    expect(deviation(transposed(lower, f, f), doubles('forgetting/spread'))).toBeLessThan(1e-9);
  });

  it('sees the movement that Python sees', () => {
    const drift = new DriftEstimate(f);
    for (const batch of [0, 1, 2]) {
      const [before, after] = ['before', 'after'].map((key) => floats(`forgetting/moved/${batch}/${key}`));
      drift.add(before!, after!);
    }
    const map = drift.fit();
    expect(deviation(map.forward.matrix, matrix)).toBeLessThan(1e-9);
    expect(deviation(map.unexplained, unexplained)).toBeLessThan(1e-6);
  });

  it('is the same number, given the same draws', () => {
    const replayed = new Replayed();
    for (const [task, expected] of Object.entries(lost)) {
      const means = Float64Array.from(
        byTask[task]!.flatMap((name) => {
          const row = classes.indexOf(name);
          return Array.from(known.sums.subarray(row * f, (row + 1) * f), (sum) => sum / known.counts[row]!);
        }),
      );
      const old = { means, before: head('before', task), after: head('after', task) };
      const found = pointsLost(old, new Spread(known), { forward, unexplained }, replayed);
      expect(found).toBeCloseTo(expected, 9);
    }
    expect(replayed.left).toBe(0);
  });

  it('is nearly the same number with draws of its own, and leaves out what nothing is known of', () => {
    const heads = (when: string): Map<string, HeadArrays> =>
      new Map(Object.keys(lost).map((task) => [task, head(when, task)]));
    const ordered = new Map(Object.entries(byTask));
    const [before, after] = [heads('before'), heads('after')];
    for (const seed of [0, 1, 2]) {
      const found = estimatedForgetting(
        known,
        ordered,
        before,
        after,
        { forward, unexplained },
        new Random(seed),
      );
      expect([...found.keys()]).toEqual(Object.keys(lost));
      // Each is known to about a point: 2,000 made-up images.
      for (const [task, points] of found) expect(Math.abs(points - lost[task]!)).toBeLessThan(4);
    }
  });
});

it('normal numbers are standard normal', () => {
  const random = new Random(7);
  const count = 400_000;
  const drawn = Float64Array.from({ length: count }, () => random.normal());
  const moment = (power: number): number =>
    drawn.reduce((sum, value) => sum + value ** power, 0) / drawn.length;
  expect(Math.abs(moment(1))).toBeLessThan(0.01);
  expect(Math.abs(moment(2) - 1)).toBeLessThan(0.01);
  expect(Math.abs(moment(4) - 3)).toBeLessThan(0.07);
  // Shares beyond, by a table of the distribution, the last of them where no layer of the ziggurat is.
  for (const [edge, share] of [
    [0.1, 0.460172],
    [1, 0.158655],
    [2.5, 0.0062097],
    [3.4, 0.00033693],
    [3.6, 0.00015911],
  ] as const) {
    const spread = Math.sqrt((share * (1 - share)) / count);
    for (const sign of [1, -1]) {
      const beyond = drawn.filter((value) => sign * value > edge).length / count;
      expect(Math.abs(beyond - share)).toBeLessThan(4 * spread);
    }
  }
});

it('normal numbers are the same one by one and many at once', () => {
  const [one, many] = [new Random(4), new Random(4)];
  for (const count of [1, 7, 20_000]) {
    expect(many.normals(count)).toEqual(Float64Array.from({ length: count }, () => one.normal()));
    expect(many.bits()).toBe(one.bits());
  }
});

/** What NumPy's generator drew, in its order. */
class Replayed implements Draws {
  private readonly permutations = numbers('forgetting/permutations');
  private readonly drawn = Float64Array.from(doubles('forgetting/normals'));
  private readonly movements = numbers('forgetting/movements');
  private normalsUsed = 0;

  get left(): number {
    return this.permutations.length + this.movements.length + this.drawn.length - this.normalsUsed;
  }

  permutation(count: number): number[] {
    return this.permutations.splice(0, count);
  }

  normals(count: number): Float64Array {
    return this.drawn.subarray(this.normalsUsed, (this.normalsUsed += count));
  }

  integer(): number {
    return this.movements.shift()!;
  }
}
