/** An app that comes with the next bundle: what was learned is carried over, and back, on the phone. */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unzipSync } from 'fflate';
import type { Page } from 'playwright-core';
import { afterEach, expect, test } from 'vitest';
import { APP, addClass, faults, Phone, pictures, recognised, Site, shot } from './site.js';

const OLD = join(APP, 'dist/bundle');
const NEXT = join(APP, 'out/next');
let site: Site;
let phone: Phone;

afterEach(async () => {
  await phone.throwAway();
  await site.stop();
});

async function opened(page: Page): Promise<void> {
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
}

async function teach(page: Page, ...names: string[]): Promise<void> {
  for (const [at, name] of names.entries()) await addClass(page, at + 1, name, pictures(name, 0, 12));
  await page.getByRole('button', { name: names.length > 1 ? 'Learn them' : 'Learn it' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor({ timeout: 90_000 });
  await page.getByRole('button', { name: 'Done' }).click();
}

const learned = (page: Page) => page.locator('.chips .new').allTextContents();

/** The app as it is put on the server with the next bundle: its service worker has another version, and other files. */
function deploy(): void {
  site.bundle = NEXT;
  const own = readdirSync(NEXT).map((name) => `bundle/${name}`);
  site.changed.set('sw.js', (content) =>
    Buffer.from(
      content
        .toString()
        .replace(/teach-[0-9a-f]{16}/, 'teach-0123456789abcdef')
        .replace(/(["`])bundle\/.*?\1,/g, '')
        .replace(/(["`])\.\/\1,/, (page) => `${page}${JSON.stringify(own).slice(1, -1)},`),
    ),
  );
}

async function updated(page: Page): Promise<void> {
  await page.reload();
  const kept = () => page.evaluate(async () => (await caches.keys()).join());
  await expect.poll(kept, { timeout: 30_000 }).toBe('teach-0123456789abcdef');
  await page.reload();
}

async function savedBundle(page: Page): Promise<string> {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Save to a file' }).click(),
  ]);
  const files = unzipSync(readFileSync(await download.path()));
  return JSON.parse(Buffer.from(files['state.json']!).toString()).bundle_id;
}

test('what was taught is carried over to the next bundle, and back', async () => {
  site = new Site();
  await site.start();
  phone = new Phone();
  const page = await phone.open();
  await page.goto(site.url);
  await opened(page);
  expect(await page.getByRole('heading', { name: 'A new version' }).count()).toBe(0);
  await teach(page, 'four', 'five');
  const unseen = pictures('four', 25, 26)[0]!;
  expect(await recognised(page, unseen)).toBe('four');
  const old = await savedBundle(page);

  deploy();
  site.before = OLD;
  await updated(page);
  await page.getByRole('heading', { name: 'A new version' }).waitFor({ timeout: 30_000 });
  expect(await recognised(page, unseen)).toBe('four');
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
  expect(await learned(page)).toEqual(['four (learned here)', 'five (learned here)']);
  expect(await savedBundle(page)).not.toBe(old);
  expect(await page.getByText('Not all of it is as before').count()).toBe(1);
  expect(await faults(page)).toEqual([]);
  await shot(page, '9-new-version');
  await teach(page, 'six', 'seven');

  // Back: what was learned since goes, and that is asked before.
  await page.getByRole('button', { name: 'Go back' }).click();
  await page.getByRole('alertdialog').getByRole('button', { name: 'Go back' }).click();
  await page.getByRole('heading', { name: 'The version before' }).waitFor({ timeout: 30_000 });
  expect(await learned(page)).toEqual(['four (learned here)', 'five (learned here)']);
  expect(await savedBundle(page)).toBe(old);
  expect(await recognised(page, unseen)).toBe('four');
  expect(await faults(page)).toEqual([]);
  await shot(page, '9-version-before');
  // The next day it is still so, until the person says otherwise.
  await page.reload();
  await page.getByRole('heading', { name: 'The version before' }).waitFor({ timeout: 30_000 });
  await page.getByRole('button', { name: 'Use the new version' }).click();
  await page.getByRole('heading', { name: 'A new version' }).waitFor({ timeout: 30_000 });
  expect(await savedBundle(page)).not.toBe(old);
  await page.getByRole('button', { name: 'Keep it' }).click();
  await page.getByRole('heading', { name: 'A new version' }).waitFor({ state: 'detached' });
  await page.reload();
  await opened(page);
  expect(await page.getByRole('heading', { name: 'A new version' }).count()).toBe(0);
  expect(await recognised(page, unseen)).toBe('four');
  expect(phone.problems).toEqual([]);
});

test('without the bundle before it, the app says what is the matter, and loses nothing', async () => {
  site = new Site();
  await site.start();
  phone = new Phone();
  const page = await phone.open();
  await page.goto(site.url);
  await opened(page);
  await teach(page, 'four', 'five');
  deploy();
  await updated(page);
  await page.getByRole('alert').filter({ hasText: 'belongs to another bundle' }).waitFor({ timeout: 30_000 });
  // It comes with the next deployment.
  site.before = OLD;
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('heading', { name: 'A new version' }).waitFor({ timeout: 30_000 });
  expect(await learned(page)).toEqual(['four (learned here)', 'five (learned here)']);
});

test('a build with a bundle that does not follow the one before is refused', () => {
  const out = mkdtempSync(join(tmpdir(), 'csk-sdk-build-'));
  const built = spawnSync('npx', ['vite', 'build', '--outDir', out], {
    cwd: APP,
    env: { ...process.env, BUNDLE: OLD, BEFORE: NEXT },
    encoding: 'utf8',
  });
  rmSync(out, { recursive: true });
  expect(built.status).not.toBe(0);
  expect(built.stderr).toContain('build that with --upgrade-from');
});
