/** A new class that can be told from an old one, and takes much of it all the same, is named: as in Python. */

import { expect, it } from 'vitest';
import { DEFAULTS } from '../src/config.js';
import { jsonOf } from '../src/formats/json.js';
import { warningsAbout } from '../src/learning/acceptance.js';
import { judge, judgedApart, recognised } from '../src/method/decisions.js';
import { ClassStatistics, shrunkCovariance } from '../src/method/heads.js';
import { JudgedImages } from '../src/method/leftOut.js';
import { Random } from '../src/method/random.js';

const [FEATURES, COUNT] = [8, 400];
const CLASSES = ['old', 'far', 'new'];

/** What is said of `new`, which is so many deviations from `old`. */
function judged(apart: number, right = new Map<string, number>()) {
  const random = new Random(0);
  const x = Float32Array.from({ length: 3 * COUNT * FEATURES }, (_, i) => {
    const [row, column] = [Math.floor(i / (COUNT * FEATURES)), i % FEATURES];
    const mean = row === 1 && column === 1 ? 12 : row === 2 && column === 0 ? apart : 0;
    return mean + random.normal();
  });
  const labels = Array.from({ length: 3 * COUNT }, (_, i) => Math.floor(i / COUNT));
  const statistics = ClassStatistics.empty(FEATURES).add(x, labels, CLASSES);
  const own = x.slice(2 * COUNT * FEATURES);
  const shrunk = shrunkCovariance(statistics, 100);
  const images = JudgedImages.of(statistics, own, new Array(COUNT).fill(0), ['new'], shrunk)!;
  return judge(statistics, images, ['new'], [], [], random, right);
}

const said = (judgement: ReturnType<typeof judged>) =>
  warningsAbout(undefined, { forgetting: new Map(), headsOnly: false, judgement, apart: [] }, DEFAULTS);

it('a rival is named with what it takes', () => {
  const found = judged(2.5);
  expect(found.twins.size).toBe(0);
  const { old, taken } = found.rivals.get('new')!;
  expect(old).toBe('old');
  // Half of the way of 2.5 deviations, of images 1.5 times as wide.
  expect(Math.abs(taken - 0.2)).toBeLessThan(0.06);
  expect(said(found)).toEqual([
    `'new' is hard to tell from 'old': about ${Math.round(100 * taken)} % of 'old' will be called 'new'. More images of ` +
      'both help; if both are the same thing, give them one name.',
  ]);
});

it('one that cannot be told is a twin, and one that can is neither', () => {
  const twin = judged(0);
  expect([[...twin.twins.keys()], twin.rivals.size]).toEqual([['new'], 0]);
  const clear = judged(8);
  expect([clear.twins.size, clear.rivals.size]).toEqual([0, 0]);
  expect(said(clear)).toEqual([]);
  const rival = judged(2.5);
  expect(judgedApart(twin, ['new'], rival).rivals).toBe(rival.rivals);
});

it('a twin takes no more of a learned class than was right before', () => {
  const madeUp = judged(0).twins.get('new')!.taken;
  expect(Math.abs(madeUp - 0.5)).toBeLessThan(0.1);
  expect(judged(0, new Map([['old', 0.5]])).twins.get('new')!.taken).toBeCloseTo(0.5 * madeUp, 2);
  expect(judged(0, new Map([['far', 0.1]])).twins.get('new')!.taken).toBe(madeUp);
});

it('how often learned classes were right is what the last lesson says', () => {
  const said = (classes: unknown) => jsonOf({ classes }) as Record<string, ReturnType<typeof jsonOf>>;
  const [first, last] = [{ n: { all_classes: 0.5 }, m: { all_classes: 1 } }, { n: { all_classes: 0.75 } }];
  expect(recognised([said(first), {}, said(last)])).toEqual(
    new Map([
      ['n', 0.75],
      ['m', 1],
    ]),
  );
  // Nobody checks what a record says of this.
  for (const wrong of [null, [], '0.5', true, -0.1, 1.1, { share: 0.5 }]) {
    expect(recognised([said({ n: { all_classes: wrong } })]).size).toBe(0);
  }
  for (const wrong of [null, [], { n: 0.5 }, { n: [] }]) expect(recognised([said(wrong)]).size).toBe(0);
});

it('images that were whitened before are judged alike', () => {
  const random = new Random(0);
  const x = Float32Array.from(
    { length: 40 * FEATURES },
    (_, i) => random.normal() + (i < 20 * FEATURES ? 2 : 0),
  );
  const labels = Array.from({ length: 40 }, (_, i) => Math.floor(i / 20));
  const statistics = ClassStatistics.empty(FEATURES).add(x, labels, ['a', 'b']);
  const shrunk = shrunkCovariance(statistics, 100)!;
  const white = shrunk.system.whitenRows(new Float64Array(x), 40);
  const [own, given] = [undefined, white].map(
    (rows) => JudgedImages.of(statistics, x, labels, ['a', 'b'], shrunk, rows)!.logits,
  );
  expect(given).toEqual(own);
});
