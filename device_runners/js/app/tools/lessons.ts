/**
 * How long a lesson takes on a slow phone: two classes with 20 images each, in headless Chromium, its processor four times
 * slower. Printed, not asserted: `make lessons`.
 */

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { APP, addClass, Phone, Site } from '../test/site.js';
import { longest, loop, measure, renderers, slowDown } from './throttle.js';

const RATE = 4;
const COUNT = 20;
const LONG = 15 * 60_000;
const BUNDLES = [
  { name: 'digits, 8 x 8', folder: 'out', first: ['four', 'five'], second: ['six', 'seven'] },
  {
    name: "MobileNetV2's size, 96 x 96",
    folder: 'out/mobilenet',
    first: ['blue', 'pink'],
    second: ['lila', 'mint'],
  },
];

const images = (folder: string, name: string): string[] => {
  const place = join(APP, folder, 'pictures', name);
  return readdirSync(place)
    .sort()
    .slice(0, COUNT)
    .map((file) => join(place, file));
};

/** Fill the form in; what is returned taps, and gives the seconds to the report, and what that says of learning alone. */
async function prepared(page: Page, folder: string, classes: readonly string[]) {
  for (const [at, name] of classes.entries()) await addClass(page, at + 1, name, images(folder, name));
  return async (): Promise<{ seconds: number; said: string }> => {
    const start = performance.now();
    await page.getByRole('button', { name: 'Learn them' }).click();
    const report = page.getByText(/^From \d+ images in/);
    await report.waitFor({ timeout: LONG });
    const seconds = (performance.now() - start) / 1000;
    return { seconds, said: /^From.*? s\./.exec((await report.textContent())!)![0] };
  };
}

/** A first lesson, its browser's processes slowed down. */
async function onSlowPhone(page: Page, name: string, folder: string, classes: readonly string[]) {
  const processes = await renderers(page.context());
  const worker = page.workers()[0]!;
  const looped = async (where: string): Promise<string> => {
    const inPage = measure(processes);
    await page.evaluate(loop);
    const { times } = inPage();
    const inWorker = measure(processes);
    await worker.evaluate(loop);
    return `${where}: ${times.toFixed(1)} in the page, ${inWorker().times.toFixed(1)} in the worker`;
  };
  const free = await looped('as it is');
  const learn = await prepared(page, folder, classes);
  const faster = slowDown(processes, RATE);
  try {
    console.log(
      `${name}: a loop takes so many times what it computes, ${free}; ${await looped('slowed down')}`,
    );
    const whole = measure(processes);
    const { seconds, said } = await learn();
    const { computed, times } = whole();
    console.log(
      `${name}: ${seconds.toFixed(1)} s from the tap to the report. ${said} The worker computed for ${(computed / 1000).toFixed(1)} s, which is one part in ${times.toFixed(1)}.`,
    );
  } finally {
    faster();
  }
}

/** A second lesson: tasks of the page, its thread throttled by DevTools, without the gaps of a stopped process. */
async function awake(page: Page, name: string, folder: string, classes: readonly string[]) {
  await page.getByRole('button', { name: 'Done' }).click();
  const learn = await prepared(page, folder, classes);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Emulation.setCPUThrottlingRate', { rate: RATE });
  const browser = page.context().browser()!;
  await browser.startTracing(page, { categories: ['devtools.timeline', 'toplevel'] });
  const { said } = await learn();
  const { clock, computed } = longest(await browser.stopTracing());
  console.log(
    `${name}: the page's longest task, its thread ${RATE} times slower: ${computed} ms of computing, ${clock} ms by the clock. ${said}`,
  );
}

test.each(BUNDLES)(
  '$name',
  async ({ name, folder, first, second }) => {
    const bundle = join(APP, folder, 'bundle');
    if (!existsSync(bundle)) throw new Error(`There is no bundle in ${bundle}: see make lessons.`);
    const site = new Site(bundle);
    await site.start();
    const phone = new Phone();
    try {
      const page = await phone.open();
      await page.goto(site.url);
      await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 60_000 });
      await onSlowPhone(page, name, folder, first);
      await awake(page, name, folder, second);
      expect(phone.problems).toEqual([]);
    } finally {
      await phone.throwAway();
      await site.stop();
    }
  },
  LONG,
);
