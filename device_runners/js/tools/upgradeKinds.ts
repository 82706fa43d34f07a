/** The kind of conformance cases of upgrades (docs/conformance.md), asked of this runner. */

import { CarriedHeads } from '../src/method/carriedHeads.js';
import { Contribution } from '../src/method/contributions.js';
import { FeatureMap } from '../src/method/featureMap.js';
import { ClassStatistics } from '../src/method/heads.js';
import { Random } from '../src/method/random.js';
import { floats, type Given, numbers, type Results, result } from './given.js';

async function featureMap(given: Given): Promise<Results> {
  const { before, after } = given.settings as { before: number; after: number };
  const found = FeatureMap.from(given.inputs, before, after);
  const counts = numbers(given, 'counts');
  const mapped = counts.map((count, index) => {
    const one = new Contribution(count, floats(given, `mean/${index}`), floats(given, `factor/${index}`));
    return found.contribution(one, new Random(index));
  });
  const spreads = mapped.flatMap(({ factor }) => {
    const sums = new Array<number>(after).fill(0);
    factor.forEach((value, at) => {
      sums[at % after] = sums[at % after]! + value * value;
    });
    return sums;
  });
  const { weight, bias } = found.head({ weight: floats(given, 'weight'), bias: floats(given, 'bias') });
  const means = mapped.flatMap(({ mean }) => [...mean]);
  return new Map([
    ['means', result([counts.length, after], means)],
    ['spreads', result([counts.length, after], spreads)],
    ['weight', result([bias.length, after], weight)],
    ['bias', result([bias.length], bias)],
  ]);
}

async function carriedHead(given: Given): Promise<Results> {
  const { before, after, classes, task } = given.settings as {
    before: number;
    after: number;
    classes: string[];
    task: string[];
  };
  const doubles = (name: string): Float64Array => Float64Array.from(numbers(given, name));
  const scatter = doubles('scatter');
  const statistics = new ClassStatistics(before, classes, { scatter }, doubles('sums'), doubles('counts'));
  const heads = new CarriedHeads(FeatureMap.from(given.inputs, before, after), statistics);
  const head = { weight: floats(given, 'weight'), bias: floats(given, 'bias') };
  const { weight, bias } = heads.head(head, task);
  return new Map([
    ['weight', result([bias.length, after], weight)],
    ['bias', result([bias.length], bias)],
    ['share', result([1], [heads.told(head.weight, task)])],
  ]);
}

export const UPGRADES: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  feature_map: featureMap,
  carried_head: carriedHead,
};
