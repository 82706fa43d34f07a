/** The exact head, at its edges; what it is otherwise, conformance says. */

import { expect, test } from 'vitest';
import { logisticHead } from '../src/method/logistic.js';

test.each([
  ['fewer images than features', 12, 40],
  ['more', 40, 12],
])('images that are all the same tell nothing: %s', (_, n, f) => {
  const one = Float32Array.from({ length: f }, (_, at) => 3 + Math.sin(at));
  const features = Float32Array.from({ length: n * f }, (_, at) => one[at % f]!);
  const labels = Int32Array.from({ length: n }, (_, at) => at % 3);
  const { weight, bias } = logisticHead(features, f, labels, 3);
  expect(weight.every(Number.isFinite)).toBe(true);
  const logits = Array.from(bias, (b, c) =>
    one.reduce((sum, value, at) => sum + value * weight[c * f + at]!, b),
  );
  for (const logit of logits) expect(logit).toBeCloseTo(logits[0]!, 0);
});
