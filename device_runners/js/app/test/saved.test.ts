/** What was learned as a file: from one phone to another, through the Python SDK, which learns on in between. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { unzipSync, zipSync } from 'fflate';
import type { Page } from 'playwright-core';
import { afterEach, expect, test } from 'vitest';
import { APP, addClass, Phone, PYTHON, pictures, recognised, Site, shot } from './site.js';

let site: Site;
let phones: Phone[] = [];

afterEach(async () => {
  for (const phone of phones) await phone.throwAway();
  phones = [];
  await site.stop();
});

async function opened(): Promise<Page> {
  const phone = new Phone();
  phones.push(phone);
  const page = await phone.open();
  await page.goto(site.url);
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
  return page;
}

async function choose(page: Page, file: string): Promise<void> {
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    page.getByRole('button', { name: 'Open a file' }).click(),
  ]);
  await chooser.setFiles(file);
}

async function learned(page: Page, count: number): Promise<void> {
  const fits = (wanted: number) => document.querySelectorAll('.chips .new').length === wanted;
  await page.waitForFunction(fits, count, { timeout: 30_000 });
}

test('a saved state goes to Python, learns on there, and is opened on another phone', async () => {
  site = new Site();
  await site.start();
  const first = await opened();
  expect(await first.getByRole('button', { name: 'Save to a file' }).count()).toBe(0);
  await addClass(first, 1, 'four', pictures('four', 0, 20));
  await addClass(first, 2, 'five', pictures('five', 0, 20));
  await first.getByRole('button', { name: 'Learn them' }).click();
  await first.getByRole('heading', { name: 'Learned' }).waitFor({ timeout: 90_000 });
  await first.getByRole('button', { name: 'Done' }).click();
  const [download] = await Promise.all([
    first.waitForEvent('download'),
    first.getByRole('button', { name: 'Save to a file' }).click(),
  ]);
  expect(download.suggestedFilename()).toBe('learned.zip');
  const [saved, more] = [join(APP, 'out/learned.zip'), join(APP, 'out/more.zip')];
  await download.saveAs(saved);
  const ledger = Object.keys(unzipSync(readFileSync(saved))).filter((path) => path.startsWith('ledger/'));
  expect(ledger.length).toBeGreaterThanOrEqual(2);

  // Python says the same of images that nobody learned, and learns two more classes.
  const unseen = ['zero', 'one', 'two', 'three', 'four', 'five'].flatMap((name) => pictures(name, 24, 27));
  const classes = mkdtempSync(join(tmpdir(), 'csk-sdk-classes-'));
  for (const name of ['six', 'seven']) {
    mkdirSync(join(classes, name));
    for (const file of pictures(name, 0, 25)) copyFileSync(file, join(classes, name, basename(file)));
  }
  const script = [join(APP, 'test/run_state.py'), saved, join(APP, 'out/bundle'), classes, more, ...unseen];
  const answer = JSON.parse(execFileSync(PYTHON, script, { encoding: 'utf8' }));
  rmSync(classes, { recursive: true });
  expect(answer.tasks).toEqual(['task-01']);
  const blocks = Object.keys(unzipSync(readFileSync(more))).filter((path) => path.includes('/blocks/'));
  expect(blocks.length).toBeGreaterThanOrEqual(2);
  const inBrowser = [];
  for (const file of unseen) inBrowser.push(await recognised(first, file));
  expect(answer.said).toEqual(inBrowser);
  expect(inBrowser.slice(-6)).toEqual([...Array(3).fill('four'), ...Array(3).fill('five')]);

  // A new phone knows what the first one and Python learned, and learns on.
  const second = await opened();
  await choose(second, more);
  await learned(second, 4);
  expect(await recognised(second, pictures('four', 25, 26)[0]!)).toBe('four');
  expect(await recognised(second, pictures('six', 25, 26)[0]!)).toBe('six');
  await addClass(second, 1, 'eight', pictures('eight', 0, 20));
  await addClass(second, 2, 'nine', pictures('nine', 0, 20));
  await second.getByRole('button', { name: 'Learn them' }).click();
  await second.getByRole('heading', { name: 'Learned' }).waitFor({ timeout: 90_000 });
  await second.getByRole('button', { name: 'Done' }).click();
  await learned(second, 6);

  // Opening the older file asks first, and then that is all it knows, also after a reload.
  await choose(second, saved);
  await second.getByRole('alertdialog').waitFor();
  await shot(second, '9-replace');
  await second.getByRole('button', { name: 'Leave it' }).click();
  await learned(second, 6);
  await choose(second, saved);
  await second.getByRole('button', { name: 'Replace it' }).click();
  await learned(second, 2);
  await second.reload();
  await learned(second, 2);
  expect(await recognised(second, pictures('five', 25, 26)[0]!)).toBe('five');
  for (const phone of phones) expect(phone.problems).toEqual([]);
}, 240_000);

test('a file that is none is refused in a sentence, and nothing is lost', async () => {
  site = new Site();
  await site.start();
  const page = await opened();
  const broken = join(APP, 'out/broken.zip');
  writeFileSync(broken, 'no archive');
  await choose(page, broken);
  const alert = page.getByRole('alert');
  await alert.waitFor();
  expect(await alert.textContent()).toMatch(
    /^broken\.zip cannot be opened \(.+\): choose a file that this app saved/,
  );
  // An empty archive: the end of a central directory of nothing.
  writeFileSync(broken, Buffer.from([0x50, 0x4b, 5, 6, ...Array(18).fill(0)]));
  await choose(page, broken);
  await page.getByText('broken.zip holds nothing that was learned').waitFor();
  // A state of some other bundle, sealed as one is: the checksum is over the other fields as Python writes JSON.
  const foreign = { bundle_id: 'f'.repeat(64), schema_version: 1 };
  const text = JSON.stringify(foreign).replaceAll(':', ': ').replaceAll(',', ', ');
  const check = createHash('sha256').update(text).digest('hex');
  const files = { HEAD: '{}', 'state.json': JSON.stringify({ ...foreign, check }) };
  const bytes = Object.entries(files).map(([name, content]) => [name, Buffer.from(content)] as const);
  writeFileSync(broken, zipSync(Object.fromEntries(bytes)));
  await choose(page, broken);
  await page.getByText(/broken\.zip.*another bundle/).waitFor();
  expect(['zero', 'one', 'two', 'three']).toContain(await recognised(page, pictures('two', 2, 3)[0]!));
});
