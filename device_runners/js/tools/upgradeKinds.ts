/** The kind of conformance cases of upgrades (docs/conformance.md), asked of this runner. */

import { Contribution } from '../src/method/contributions.js';
import { FeatureMap } from '../src/method/featureMap.js';
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

export const UPGRADES: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  feature_map: featureMap,
};
