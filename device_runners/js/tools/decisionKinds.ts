/** The kind of conformance cases that judges a lesson (docs/conformance.md), asked of this runner. */

import { judge } from '../src/method/decisions.js';
import { ClassStatistics, shrunkCovariance } from '../src/method/heads.js';
import { JudgedImages } from '../src/method/leftOut.js';
import { PRIOR_IMAGES } from '../src/network/predicting.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';

async function judgement(given: Given): Promise<Results> {
  const { all, classes, known, base } = given.settings as Record<string, string[]>;
  const right = new Map(Object.entries((given.settings.right ?? {}) as Record<string, number>));
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  const statistics = new ClassStatistics(tensor(given, 'gram').shape[0]!, all!, gram!, sums!, counts!);
  const drawn = Float64Array.from(numbers(given, 'normals'));
  let used = 0;
  // What the case gives, where a random generator is expected.
  const draws = {
    normals: (count: number) => drawn.subarray(used, (used += count)),
    permutation: () => numbers(given, 'permutation'),
  };
  const [features, labels] = [floats(given, 'features'), numbers(given, 'labels')];
  const images = JudgedImages.of(
    statistics,
    features,
    labels,
    classes!,
    shrunkCovariance(statistics, PRIOR_IMAGES),
  )!;
  const found = judge(statistics, images, classes!, known!, base!, draws, right);
  if (used !== drawn.length) throw new Error('other numbers were drawn than the case gives');
  const row = (of: (name: string) => number): ReturnType<typeof result> =>
    result([classes!.length], classes!.map(of));
  const alike = classes!.flatMap((name) =>
    classes!.map((other) => Number(found.alike.some((pair) => pair.includes(name) && pair.includes(other)))),
  );
  const one = (value: number | undefined): ReturnType<typeof result> => result([1], [value ?? 0]);
  return new Map([
    ['told', row((name) => Number(found.expected.has(name)))],
    ['all_classes', row((name) => found.expected.get(name)?.allClasses ?? 0)],
    ['task', row((name) => found.expected.get(name)?.task ?? 0)],
    ['share', row((name) => found.expected.get(name)?.share ?? 0)],
    ['confused', row((name) => all!.indexOf(found.expected.get(name)?.confused ?? ''))],
    ['twins', row((name) => all!.indexOf(found.twins.get(name)?.old ?? ''))],
    ['taken', row((name) => found.twins.get(name)?.taken ?? 0)],
    ['back', row((name) => found.twins.get(name)?.back ?? 0)],
    [
      'alike',
      result(
        [classes!.length, classes!.length],
        alike.map((same, at) => (at % (classes!.length + 1) ? same : 0)),
      ),
    ],
    ['lost', one(found.lost)],
  ]);
}

export const DECISIONS: Readonly<Record<string, (given: Given) => Promise<Results>>> = { judgement };
