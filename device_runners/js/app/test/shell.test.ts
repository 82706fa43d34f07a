/** The app as Capacitor wraps it: its bridge in the page, and none of what a browser's tab has. */

import { afterEach, expect, test } from 'vitest';
import { Phone, Site } from './site.js';

let site: Site;
let phone: Phone;
afterEach(async () => {
  await phone.throwAway();
  await site.stop();
});

interface Called {
  readonly plugin: string;
  readonly method: string;
  readonly options: { readonly path?: string; readonly data?: string; readonly files?: string[] };
}

test('a shell needs no service worker, and gets files to share', async () => {
  site = new Site();
  await site.start();
  phone = new Phone();
  const page = await phone.open();
  await page.addInitScript(() => {
    const calls: unknown[] = [];
    const nativePromise = async (plugin: string, method: string, options: object) => {
      calls.push({ plugin, method, options });
      if (method === 'writeFile') return { uri: 'file:///cache/one' };
      // The person closes the system's sheet, and then there is no app that takes it.
      throw new Error(calls.length === 2 ? 'Share canceled' : 'No app can take this');
    };
    Object.assign(globalThis, { calls, Capacitor: { isNativePlatform: () => true, nativePromise } });
  });
  await page.goto(site.url);
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
  const called = () => page.evaluate(() => (globalThis as unknown as { calls: Called[] }).calls);

  const button = page.getByRole('button', { name: 'Export the model' });
  await button.click();
  await expect.poll(async () => (await called()).length, { timeout: 30_000 }).toBe(2);
  const [write, share] = await called();
  expect([write!.plugin, write!.method, write!.options.path]).toEqual([
    'Filesystem',
    'writeFile',
    'taught-model.onnx',
  ]);
  // An ONNX file begins with its ir_version, field 1 of the protobuf.
  const bytes = Buffer.from(write!.options.data!, 'base64');
  expect(bytes[0]).toBe(0x08);
  expect(bytes.length).toBeGreaterThan(10_000);
  expect(share).toMatchObject({
    plugin: 'Share',
    method: 'share',
    options: { files: ['file:///cache/one'] },
  });
  await expect.poll(() => button.isDisabled()).toBe(false);
  expect(await page.getByRole('alert').count()).toBe(0);

  await button.click();
  await page.getByRole('alert').waitFor();
  expect(await page.getByRole('alert').textContent()).toContain('No app can take this');
  expect(await page.evaluate(async () => (await navigator.serviceWorker.getRegistrations()).length)).toBe(0);
  expect(await page.getByText('starts only with a network').count()).toBe(0);
});
