/** What a phone has learned goes to its fleet as a file, and what the fleet knows comes back. */

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { unzipSync } from 'fflate';
import type { Page } from 'playwright-core';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { APP, addClass, faults, Phone, PYTHON, pictures, recognised, SHOTS, Site, shot } from './site.js';

let site: Site;
let phone: Phone;

beforeAll(() => mkdirSync(SHOTS, { recursive: true }));
afterEach(async () => {
  await phone.throwAway();
  await site.stop();
});

/** A folder for each class, of images that the phone does not have. */
function folders(...names: string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'csk-sdk-app-'));
  for (const name of names) {
    mkdirSync(join(folder, name));
    for (const file of pictures(name, 0, 25)) copyFileSync(file, join(folder, name, basename(file)));
  }
  return folder;
}

async function applied(page: Page, file: string): Promise<void> {
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    page.getByRole('button', { name: 'Take over what the fleet knows' }).click(),
  ]);
  await chooser.setFiles(file);
}

test('what was learned is saved for the fleet, and what it knows is taken over', async () => {
  site = new Site();
  await site.start();
  phone = new Phone();
  const page = await phone.open();
  await page.goto(site.url);
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
  expect(await page.getByRole('button', { name: 'Save for the fleet' }).count()).toBe(0);
  // Of one class fewer images than may leave.
  await addClass(page, 1, 'four', pictures('four', 0, 30));
  await addClass(page, 2, 'five', pictures('five', 0, 12));
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor({ timeout: 90_000 });
  await page.getByRole('button', { name: 'Done' }).click();
  await page.getByRole('button', { name: 'Save for the fleet' }).click();
  const form = page.getByRole('form', { name: 'Save for the fleet' });
  await form.getByRole('textbox', { name: 'This device is called' }).fill('Küche');
  await shot(page, '18-name-for-the-fleet');
  expect(await faults(page)).toEqual([]);
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    form.getByRole('button', { name: 'Save', exact: true }).click(),
  ]);
  expect(download.suggestedFilename()).toBe('Küche.cskc');
  await page.getByText(/^'five' of task 'task-01' stays here: of 10 images it would say too much/).waitFor();
  const out = join(APP, 'out');
  await shot(page, '19-for-the-fleet');
  await download.saveAs(join(out, 'kitchen.cskc'));
  const script = [join(APP, 'test/merge_fleet.py'), join(out, 'bundle'), folders('six', 'seven')];
  const merged = join(out, 'merged.cskc');
  const said = execFileSync(PYTHON, [...script, join(out, 'kitchen.cskc'), merged], { encoding: 'utf8' });
  expect(JSON.parse(said)).toEqual({ four: 24, seven: 25, six: 25 });

  // Who opens a saved file is another device.
  const [zip] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Save to a file' }).click(),
  ]);
  const saved = Object.keys(unzipSync(readFileSync(await zip.path())));
  expect(saved).toContain('HEAD');
  expect(saved).not.toContain('fleet.json');

  await applied(page, merged);
  await page.getByText('New here, from the fleet: seven, six.').waitFor({ timeout: 60_000 });
  await page.getByText(/^It lacks 1 own contribution of this device, counted beside it/).waitFor();
  const chips = await page.getByRole('list', { name: 'Classes' }).getByRole('listitem').allTextContents();
  expect(chips.slice(-4).sort()).toEqual([
    'five (learned here)',
    'four (learned here)',
    'seven (from the fleet)',
    'six (from the fleet)',
  ]);
  for (const name of ['six', 'four', 'two']) {
    expect(await recognised(page, pictures(name, 26, 27)[0]!)).toBe(name);
  }
  await shot(page, '20-fleet');
  expect(await faults(page)).toEqual([]);

  await applied(page, merged);
  await page.getByText('This is known here already.').waitFor({ timeout: 60_000 });
  // Another file is one sentence, and all stays.
  writeFileSync(join(out, 'other.cskc'), 'no file of ours');
  await applied(page, join(out, 'other.cskc'));
  await page.getByText(/^other\.cskc cannot be read as a \.cskc file/).waitFor();
  expect(await page.getByRole('listitem').filter({ hasText: 'from the fleet' }).count()).toBe(2);
  // What came from the fleet is the last task.
  await page.getByRole('button', { name: 'Forget what came from the fleet' }).click();
  await page.getByRole('button', { name: 'Forget it' }).click();
  await expect.poll(() => page.getByRole('listitem').filter({ hasText: 'from the fleet' }).count()).toBe(0);
  expect(await recognised(page, pictures('four', 26, 27)[0]!)).toBe('four');
  expect(phone.problems).toEqual([]);
});
