/** WebGPU: compared once on hardware, and left alone where the processor computes it. Here a processor does. */

import type { Page } from 'playwright-core';
import { afterEach, expect, test } from 'vitest';
import { beforeWorker, Phone, pictures, recognised, Site } from './site.js';

// A processor that plays graphics takes a minute and more; the app would give up after half of one.
const PATIENCE = 240_000;
let site: Site;
let phone: Phone;
afterEach(async () => {
  await phone.throwAway();
  await site.stop();
});

async function opened(page: Page, timeout = PATIENCE): Promise<string[]> {
  const said: string[] = [];
  page.on('console', (message) => said.push(message.text()));
  await page.goto(site.url);
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout });
  return said;
}

const loaded = () => site.asked.filter((path) => path.includes('asyncify'));

test('an adapter that the processor computes is not asked, and costs no download', async (context) => {
  site = new Site();
  await site.start();
  phone = new Phone({ gpu: true });
  const page = await phone.open();
  await opened(page);
  const fallback = await page.evaluate(async () => {
    type Adapter = { info: { isFallbackAdapter?: boolean } } | null;
    const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter> } };
    return (await gpu?.requestAdapter())?.info.isFallbackAdapter;
  });
  if (!fallback) return context.skip('this Chromium has no WebGPU');
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
  expect(loaded()).toEqual([]);
});

test(
  'hardware is compared once: its numbers and its time',
  async (context) => {
    site = new Site();
    await site.start();
    phone = new Phone({ gpu: true });
    const pretend = (page: Page) =>
      beforeWorker(
        page,
        `if (self.GPUAdapterInfo) Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', { get: () => false });
      const wait = self.setTimeout.bind(self);
      self.setTimeout = (done, ms, ...rest) => wait(done, ms === 30_000 ? ${PATIENCE} : ms, ...rest);`,
      );
    let page = await phone.open();
    await pretend(page);
    const said = await opened(page);
    if (!(await page.evaluate(() => 'gpu' in navigator))) return context.skip('this Chromium has no WebGPU');
    // Else it would say that WebGPU computes other numbers, or cannot compute the bundle.
    const sentence = /^It is not faster: [\d.]+ ms a step with WebGPU, [\d.]+ with WebAssembly\.$/;
    const found = said.filter((text) => /WebGPU/.test(text));
    console.log(found.join());
    expect(found).toEqual([expect.stringMatching(sentence)]);
    expect(loaded().length).toBeGreaterThan(0);
    expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');

    page = await phone.open();
    await pretend(page);
    expect((await opened(page)).filter((text) => /WebGPU/.test(text))).toEqual([]);
    expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
    expect(phone.problems).toEqual([]);
  },
  2 * PATIENCE,
);

// What the worker has in place of hardware, and what this browser refuses it.
const ADAPTER = `Object.defineProperty(navigator, 'gpu', {
  value: { requestAdapter: async () => ({ info: { vendor: 'v', architecture: 'a', device: 'd', description: '' } }) },
});`;

test.each([
  {
    what: 'cannot remember what was found',
    code: `const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (value, key) {
      if (key === 'computes-by') throw new DOMException('no room', 'QuotaExceededError');
      return put.call(this, value, key);
    };`,
    said: 'WebGPU is not used: no room',
  },
  {
    what: 'cannot fetch what it is about',
    code: `const load = self.fetch.bind(self);
    let asked = 0;
    self.fetch = (...given) => {
      if (String(given[0]).endsWith('manifest.json') && !asked++) return Promise.reject(new TypeError('no network'));
      return load(...given);
    };`,
    said: 'WebGPU is not used: no network',
  },
])('where the browser $what, the app opens with WebAssembly', async ({ code, said }) => {
  site = new Site();
  await site.start();
  phone = new Phone();
  const page = await phone.open();
  await beforeWorker(page, ADAPTER + code);
  expect(await opened(page, 20_000)).toContain(said);
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
  expect(phone.problems).toEqual([]);
});
