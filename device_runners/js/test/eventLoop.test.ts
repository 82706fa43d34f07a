import { expect, it } from 'vitest';
import { takeTurns } from '../src/runtime/eventLoop.js';

it('lets messages through while it computes', async () => {
  let heard = 0;
  setImmediate(() => (heard = performance.now()));
  const begun = performance.now();
  while (performance.now() - begun < 300) {
    for (const until = performance.now() + 5; performance.now() < until; );
    await takeTurns();
  }
  expect(heard).toBeGreaterThan(0);
  expect(heard - begun).toBeLessThan(200);
});
