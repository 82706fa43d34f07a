/** The built app in a phone's browser, from the first image to the exported model. */

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULTS } from 'csk-sdk';
import { strFromU8, unzipSync } from 'fflate';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, type TestContext, test } from 'vitest';
import {
  APP,
  addClass,
  beforeWorker,
  faults,
  Phone,
  PYTHON,
  pictures,
  recognised,
  SHOTS,
  Site,
  shot,
  slowSteps,
} from './site.js';

const LEARNED = { timeout: 90_000 };
const DIGITS = join(APP, '../../../examples/digits/digits-base4.json');
let site: Site;
let phones: Phone[] = [];

beforeAll(() => mkdirSync(SHOTS, { recursive: true }));
afterEach(async () => {
  for (const phone of phones) await phone.throwAway();
  phones = [];
  await site.stop();
});
afterAll(() => site.stop());

type Changed = Record<string, (content: Buffer) => Buffer>;

async function visit({
  stepMs = 0,
  changed = {},
  ...options
}: ConstructorParameters<typeof Phone>[0] & { stepMs?: number; changed?: Changed } = {}) {
  site = new Site();
  for (const [path, change] of Object.entries(changed)) site.changed.set(path, change);
  await site.start();
  const phone = new Phone(options);
  phones.push(phone);
  const page = await phone.open();
  if (stepMs) await slowSteps(page, stepMs);
  await page.goto(site.url);
  return { phone, page };
}

async function opened(page: Page): Promise<void> {
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
}

/** Wait until the service worker has everything. */
async function keptOffline(page: Page): Promise<void> {
  const states = () =>
    page.evaluate(async () => (await navigator.serviceWorker.getRegistration())?.active?.state);
  await expect.poll(states, { timeout: 30_000 }).toBe('activated');
}

/** With 25 images a class the network itself is trained, and not only its heads. */
async function teach(page: Page, count = 20): Promise<void> {
  await addClass(page, 1, 'four', pictures('four', 0, count));
  await addClass(page, 2, 'five', pictures('five', 0, count));
  await page.getByRole('button', { name: 'Learn them' }).click();
}

/** The points that the last task was allowed to cost others, as the saved file has it. */
async function allowedForgetting(page: Page): Promise<number> {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Save to a file' }).click(),
  ]);
  const files = unzipSync(readFileSync(await download.path()));
  const last = Object.keys(files)
    .filter((path) => /^generations\/\d+\.json$/.test(path))
    .sort()
    .at(-1)!;
  return JSON.parse(strFromU8(files[last]!)).tasks.at(-1).config.max_forgetting;
}

test('a new class is learned from files, kept offline, and exported', async () => {
  const { phone, page } = await visit();
  await opened(page);
  const novel = pictures('four', 25, 26)[0]!;
  expect(['zero', 'one', 'two', 'three']).toContain(await recognised(page, novel));
  await shot(page, '1-before');
  await teach(page);
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await shot(page, '3-learned');
  const rows = await page.locator('tbody tr').allTextContents();
  expect(rows).toHaveLength(2);
  for (const row of rows) expect(row).toMatch(/^(four|five)[34] of 4(75|100) %\d+ %\d+ % among these/);
  expect(await recognised(page, novel)).toBe('four');
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
  await page.getByRole('button', { name: 'Done' }).click();

  // The next day, without a network and without the server.
  await keptOffline(page);
  await site.stop();
  const later = await phone.open();
  await later.goto(site.url);
  await opened(later);
  expect(await later.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(2);
  expect(await recognised(later, novel)).toBe('four');
  await shot(later, '4-offline');

  const [download] = await Promise.all([
    later.waitForEvent('download'),
    later.getByRole('button', { name: 'Export the model' }).click(),
  ]);
  const model = join(APP, 'out/taught.onnx');
  await download.saveAs(model);
  const files = [novel, pictures('five', 25, 26)[0]!, pictures('zero', 2, 3)[0]!];
  const said = execFileSync(PYTHON, [join(APP, 'test/run_export.py'), model, DIGITS, ...files], {
    encoding: 'utf8',
  });
  const inBrowser = [];
  for (const file of files) inBrowser.push(await recognised(later, file));
  expect(JSON.parse(said)).toEqual(inBrowser);
  expect(phone.problems).toEqual([]);
});

test('a tab closed in the middle of a task goes on with it', async () => {
  const { phone, page } = await visit({ stepMs: 300 });
  await opened(page);
  await teach(page, 25);
  await page.getByRole('heading', { name: 'Learning' }).waitFor({ timeout: 30_000 });
  await shot(page, '2-learning');
  const again = await phone.open();
  await again.goto(site.url);
  await again.getByRole('heading', { name: 'An unfinished task' }).waitFor({ timeout: 30_000 });
  await shot(again, '5-interrupted');
  expect(await again.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(0);
  await again.getByRole('button', { name: 'Go on learning' }).click();
  await again.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await recognised(again, pictures('five', 25, 26)[0]!)).toBe('five');
});

test('stopping keeps the task, discarding it forgets it, undoing forgets what was learned', async () => {
  const { page } = await visit({ stepMs: 300 });
  await opened(page);
  await teach(page, 25);
  await page.getByRole('heading', { name: 'Learning' }).waitFor({ timeout: 30_000 });
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('Stopped. The task is kept').waitFor({ timeout: 30_000 });
  await page.getByRole('button', { name: 'Discard it' }).click();
  await page.getByRole('heading', { name: 'Teach something new' }).waitFor();
  await teach(page, 25);
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByRole('button', { name: 'Forget the last task' }).click();
  await page.getByRole('button', { name: 'Forget it' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.chips .new').length === 0);
  expect(await recognised(page, pictures('four', 25, 26)[0]!)).not.toBe('four');
});

test('images mixed up between classes are refused, and learned all the same where they are right', async () => {
  const { page } = await visit();
  await opened(page);
  // Of each digit, one image in turn under each name: nothing can be learned from that.
  const names = ['four', 'five', 'six', 'seven', 'eight', 'nine'];
  for (const [number, name] of names.entries()) {
    if (number > 1) await page.getByRole('button', { name: 'Add a class' }).click();
    const mixed = names.flatMap((digit) =>
      pictures(digit, 0, 30).filter((_, index) => index % names.length === number),
    );
    await addClass(page, number + 1, name, mixed);
  }
  await page.getByRole('button', { name: 'Learn them' }).click();
  const alert = page.getByRole('alert');
  await alert.waitFor(LEARNED);
  expect(await alert.textContent()).toMatch(
    /^These images look mixed up between the classes: an image's class follows from the others in \d+ % of cases/,
  );
  await page.getByRole('heading', { name: 'A task that looks mixed up' }).waitFor();
  expect(await page.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(0);
  expect(await faults(page)).toEqual([]);
  await shot(page, '9-mixed-up');
  await page.getByRole('button', { name: 'Learn them anyway' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await page.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(names.length);
});

test('one class alone is learned, gets another name, and is forgotten', async () => {
  const { page } = await visit();
  await opened(page);
  await addClass(page, 1, 'four', pictures('four', 0, 20));
  await shot(page, '12-one-class');
  await page.getByRole('button', { name: 'Learn it' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await page.locator('tbody tr').allTextContents()).toEqual([expect.stringMatching(/^four[34] of 4/)]);
  await page.getByRole('button', { name: 'Done' }).click();
  const novel = pictures('four', 25, 26)[0]!;
  expect(await recognised(page, novel)).toBe('four');

  await page.getByRole('button', { name: 'four (learned here)' }).click();
  const name = page.getByRole('textbox', { name: 'New name' });
  await name.fill('Three');
  await page.getByText('Three is known already: choose another name.').waitFor();
  expect(await page.getByRole('button', { name: 'Rename' }).isDisabled()).toBe(true);
  await name.fill('vier');
  expect(await faults(page)).toEqual([]);
  await shot(page, '13-rename');
  await page.getByRole('button', { name: 'Rename' }).click();
  await page.getByRole('button', { name: 'vier (learned here)' }).waitFor();
  // The image that is shown is looked at again.
  await expect.poll(() => page.locator('.guesses .name').first().textContent()).toBe('vier');

  await page.getByRole('button', { name: 'vier (learned here)' }).click();
  await page.getByRole('button', { name: 'Forget vier' }).click();
  await page.getByRole('alertdialog', { name: 'Forget vier?' }).waitFor();
  expect(await faults(page)).toEqual([]);
  await shot(page, '14-forget');
  await page.getByRole('button', { name: 'Forget it' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.chips .new').length === 0);
  await expect.poll(() => page.locator('.guesses .name').first().textContent()).not.toBe('vier');
  await page.reload();
  await opened(page);
  expect(['zero', 'one', 'two', 'three']).toContain(await recognised(page, novel));
});

test('images that contradict what is known wait, and replace it or are added', async () => {
  const { page } = await visit();
  await opened(page);
  const classes = ['four', 'five', 'six', 'seven'];
  for (const [at, name] of classes.entries()) {
    if (at > 1) await page.getByRole('button', { name: 'Add a class' }).click();
    // The first two under each other's name.
    const digit = classes[at < 2 ? 1 - at : at]!;
    await addClass(page, at + 1, name, pictures(digit, 0, 20));
  }
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByRole('button', { name: 'Done' }).click();
  const novel = pictures('four', 25, 26)[0]!;
  expect(await recognised(page, novel)).toBe('five');

  const correct = async () => {
    await addClass(page, 1, 'Four', pictures('four', 0, 20));
    await page.getByText('four is known already: these images add to it.').waitFor();
    await addClass(page, 2, 'five', pictures('five', 0, 20));
    await page.getByRole('button', { name: 'Learn them' }).click();
    await page.getByRole('heading', { name: 'These look like something else' }).waitFor(LEARNED);
  };
  await correct();
  const alert = page.getByRole('alert');
  expect(await alert.textContent()).toMatch(
    /^\d+ % of your images of 'four' look like 'five', .*Nothing was learned/,
  );
  expect(await faults(page)).toEqual([]);
  await shot(page, '15-contradicts');
  await page.getByRole('button', { name: 'Replace it' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await recognised(page, novel)).toBe('four');
  expect(await page.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(4);

  // As it was before that: what is known is wrong again, and the same images are added to it.
  await page.getByRole('button', { name: 'Forget the last task' }).click();
  await page.getByRole('button', { name: 'Forget it' }).click();
  await expect.poll(() => page.locator('.guesses .name').first().textContent()).toBe('five');
  await correct();
  await page.getByRole('button', { name: 'Add them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
});

test('a known thing under another name is asked about, and becomes one class with it', async () => {
  const { page } = await visit();
  await opened(page);
  await teach(page, 25);
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByRole('button', { name: 'Done' }).click();
  const fours = pictures('four', 0, 25);
  await addClass(page, 1, 'vier', fours);
  await addClass(page, 2, 'six', pictures('six', 0, 25));
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByText('vier cannot be told from four, so vier is left out of answers.').waitFor(LEARNED);
  const rows = await page.locator('tbody tr').allTextContents();
  expect(rows[0]).toMatch(/^vier0 of 50 %0 %\d+ % among these; \d+ % called four$/);
  expect(rows[1]).toMatch(/^six[45] of 5.* % among these/);
  expect(await faults(page)).toEqual([]);
  await shot(page, '16-twin');
  const novel = pictures('four', 25, 26)[0]!;
  expect(await recognised(page, novel)).toBe('four');
  await page.getByRole('button', { name: 'Yes, call it four' }).click();
  const named = page.getByRole('listitem').filter({ hasText: 'vier' });
  await expect.poll(() => named.count(), { timeout: 30_000 }).toBe(0);
  expect(await recognised(page, novel)).toBe('four');

  // Alone there is nothing else to learn: it waits for an answer.
  await addClass(page, 1, 'quatre', fours);
  await page.getByRole('button', { name: 'Learn it' }).click();
  await page.getByRole('heading', { name: 'This is known already' }).waitFor(LEARNED);
  expect(await page.getByRole('alert').textContent()).toContain(
    "These images of 'quatre' cannot be told from 'four'. Nothing was learned.",
  );
  expect(await faults(page)).toEqual([]);
  await shot(page, '17-twin-alone');
  await page.getByRole('button', { name: 'Add them to four' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await recognised(page, novel)).toBe('four');
  // Nothing had to be allowed for that: what is known is guarded as ever.
  expect(await allowedForgetting(page)).toBe(DEFAULTS.maxForgetting);
});

test('what looks like a known thing is learned as another one, and the page says that both are mixed up', async () => {
  const { page } = await visit();
  await opened(page);
  await teach(page, 25);
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByRole('button', { name: 'Done' }).click();
  await addClass(page, 1, 'quatre', pictures('four', 0, 25));
  await page.getByRole('button', { name: 'Learn it' }).click();
  await page.getByRole('heading', { name: 'This is known already' }).waitFor(LEARNED);
  await page.getByRole('button', { name: 'Learn it anyway' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByText('quatre cannot be told from four, so answers will mix the two up.').waitFor();
  expect(await page.getByText('left out of answers').count()).toBe(0);
  expect(await faults(page)).toEqual([]);
  await shot(page, '18-twin-counted');
  const guessed = await recognised(page, pictures('four', 25, 26)[0]!);
  expect(['four', 'quatre']).toContain(guessed);
  expect(await page.locator('.guesses .name').allTextContents()).toContain('quatre');
  expect(await allowedForgetting(page)).toBe(100);
});

test('few images are learned without training, and the page says so', async () => {
  const { page } = await visit();
  await opened(page);
  await addClass(page, 1, 'four', pictures('four', 0, 8));
  await addClass(page, 2, 'five', pictures('five', 0, 8));
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  await page.getByText('These are too few images to train on').waitFor();
  expect(await faults(page)).toEqual([]);
  await shot(page, '10-few-images');
  expect(await page.getByRole('listitem').filter({ hasText: 'learned here' }).count()).toBe(2);
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
});

test('the page stays awake while the worker learns', async () => {
  const { page } = await visit();
  await opened(page);
  await page.evaluate(() => {
    const seen = { longest: 0 };
    Object.assign(globalThis, { seen });
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) seen.longest = Math.max(seen.longest, duration);
    }).observe({ type: 'longtask' });
  });
  await teach(page);
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  const report = await page.getByText(/From 32 images in/).textContent();
  const seconds = Number(/in ([\d.]+) s/.exec(report!)![1]);
  const { longest } = await page.evaluate(
    () => (globalThis as unknown as { seen: { longest: number } }).seen,
  );
  console.log(`longest task of the page in ${seconds} s of learning: ${Math.round(longest)} ms`);
  // Learning on the page itself would be one task of all these seconds, or a few.
  expect(longest).toBeLessThan(250 * seconds);
});

test.each([
  {
    what: 'a bundle with one byte changed',
    path: 'bundle/weights.safetensors',
    change: (content: Buffer) => {
      const changed = Buffer.from(content);
      changed[changed.length - 5]! ^= 1;
      return changed;
    },
    said: /weights\.safetensors.*(sha256|changed|damaged)/i,
  },
  {
    what: 'a bundle of another schema',
    path: 'bundle/manifest.json',
    change: (content: Buffer) =>
      Buffer.from(content.toString().replace(/"schema_version": \d+/, '"schema_version": 99')),
    said: /schema|manifest/i,
  },
])('$what is refused in a sentence, and tried again', async ({ path, change, said }) => {
  const { page } = await visit({ changed: { [path]: change } });
  const alert = page.getByRole('alert');
  await alert.waitFor({ timeout: 30_000 });
  expect(await alert.textContent()).toMatch(said);
  await shot(page, `6-refused-${path.split('/').at(-1)}`);
  site.changed.clear();
  // What was cached with it goes too: the service worker took the changed file.
  await page.evaluate(async () => {
    for (const name of await caches.keys()) await caches.delete(name);
  });
  await page.getByRole('button', { name: 'Try again' }).click();
  await opened(page);
});

test('a browser without SIMD is told so', async () => {
  site = new Site();
  await site.start();
  const phone = new Phone();
  phones.push(phone);
  const page = await phone.open();
  await beforeWorker(page, 'WebAssembly.validate = () => false;');
  await page.goto(site.url);
  const alert = page.getByRole('alert');
  await alert.waitFor();
  expect(await alert.textContent()).toContain('This browser is too old to learn in');
});

/** A disk of its own for a phone, so that it can be really full; skipped where this user may not mount one. */
async function onSmallDisk(context: TestContext, work: (disk: string) => Promise<void>): Promise<void> {
  const disk = mkdtempSync(join(tmpdir(), 'csk-sdk-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=160m', 'tmpfs', disk], { stdio: 'ignore' });
  } catch {
    return context.skip('needs the right to mount a small disk');
  }
  try {
    await work(disk);
  } finally {
    for (const phone of phones.splice(0)) await phone.throwAway();
    execFileSync('umount', ['--lazy', disk]);
  }
}

/** Write until nothing more fits. */
function fill(path: string): void {
  for (const size of [1 << 20, 1 << 12]) {
    try {
      for (;;) appendFileSync(path, randomBytes(size));
    } catch {} // the disk is full for pieces of this size
  }
}

test('a device without room says so, and what was learned stays', async (context) => {
  await onSmallDisk(context, async (disk) => {
    const { page } = await visit({ profile: join(disk, 'profile') });
    await opened(page);
    await teach(page);
    await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
    await page.getByRole('button', { name: 'Done' }).click();
    await addClass(page, 1, 'six', pictures('six', 0, 10));
    await addClass(page, 2, 'seven', pictures('seven', 0, 10));
    fill(join(disk, 'filler'));
    await page.getByRole('button', { name: 'Learn them' }).click();
    const alert = page.getByRole('alert');
    await alert.waitFor(LEARNED);
    const said = await alert.textContent();
    // What little room there is left may still take the images, and not what is learned of them.
    expect(said).toMatch(
      /^The (browser could not store the images \(.+\)|storage is full): .*[Ff]ree some space/,
    );
    expect(await recognised(page, pictures('four', 25, 26)[0]!)).toBe('four');
    rmSync(join(disk, 'filler'));
    const again = await phones[0]!.open();
    await again.goto(site.url);
    await opened(again);
    expect(await recognised(again, pictures('four', 25, 26)[0]!)).toBe('four');
  });
});

test('with little room on the disk the app starts without a network all the same', async (context) => {
  await onSmallDisk(context, async (disk) => {
    const { phone, page } = await visit({ profile: join(disk, 'profile') });
    await opened(page);
    await keptOffline(page);
    await site.stop();
    const later = await phone.open();
    await later.goto(site.url);
    await opened(later);
    expect(await recognised(later, pictures('two', 2, 3)[0]!)).toBe('two');
    expect(phone.problems).toEqual([]);
  });
});

test('an app that could not be kept says that it needs a network', async () => {
  const { page } = await visit({
    changed: {
      'icon-512.png': () => {
        throw new Error('missing');
      },
    },
  });
  await opened(page);
  await page.getByText('The app starts only with a network').waitFor({ timeout: 30_000 });
  expect(await recognised(page, pictures('two', 2, 3)[0]!)).toBe('two');
  expect(await faults(page)).toEqual([]);
  await shot(page, '11-not-kept');
});

test('an image like nothing that is known is said to be unknown', async () => {
  const { page } = await visit();
  await opened(page);
  const sentence = page.getByText("I don't know this. It looks most like:");
  await recognised(page, pictures('two', 2, 3)[0]!);
  expect(await sentence.count()).toBe(0);
  const folder = mkdtempSync(join(tmpdir(), 'csk-sdk-white-'));
  writeFileSync(join(folder, 'white.bmp'), white(8));
  await recognised(page, join(folder, 'white.bmp'));
  expect(await sentence.count()).toBe(1);
  expect(await page.locator('.seen img').getAttribute('alt')).toBe('Your image: unknown');
  await shot(page, '9-unknown');
  expect(await faults(page)).toEqual([]);
  rmSync(folder, { recursive: true });
});

/** A white square as a BMP file of 24 bits. */
function white(size: number): Buffer {
  const pixels = Buffer.alloc(size * size * 3, 255);
  const head = Buffer.alloc(54);
  head.write('BM');
  head.writeUInt32LE(54 + pixels.length, 2);
  head.writeUInt32LE(54, 10);
  head.writeUInt32LE(40, 14);
  head.writeInt32LE(size, 18);
  head.writeInt32LE(size, 22);
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(24, 28);
  head.writeUInt32LE(pixels.length, 34);
  return Buffer.concat([head, pixels]);
}

test('images and classes that are no good are told at once', async () => {
  const { page } = await visit();
  await opened(page);
  const learn = page.getByRole('button', { name: 'Learn them' });
  expect(await learn.isDisabled()).toBe(true);
  await addClass(page, 1, 'Three', pictures('three', 0, 5));
  await page.getByText('Three is known already').waitFor();
  await addClass(page, 1, 'four', pictures('four', 0, 3));
  await addClass(page, 2, 'five', pictures('five', 0, 3));
  await page.getByText('five needs 2 more images.').waitFor();
  const broken = join(APP, 'out/broken.png');
  writeFileSync(broken, 'no image');
  await addClass(page, 2, 'five', [...pictures('five', 3, 7), broken]);
  expect(await learn.isDisabled()).toBe(false);
  await learn.click();
  const alert = page.getByRole('alert');
  await alert.waitFor();
  expect(await alert.textContent()).toContain('broken.png cannot be read as an image');
});

test.each([
  { name: 'phone', width: 390, height: 844, dark: false },
  { name: 'small phone, dark', width: 320, height: 568, dark: true },
  { name: 'desktop', width: 1280, height: 900, dark: false },
])('nothing is in the way of anybody: $name', async ({ name, ...options }) => {
  const { page } = await visit(options);
  await opened(page);
  expect(await faults(page)).toEqual([]);
  await addClass(page, 1, 'four', pictures('four', 0, 14));
  await addClass(page, 2, 'five', pictures('five', 0, 6));
  await recognised(page, pictures('two', 2, 3)[0]!);
  expect(await faults(page)).toEqual([]);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(wide).toBeLessThanOrEqual(0);
  await shot(page, `7-${name.replaceAll(/\W+/g, '-')}`);
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor(LEARNED);
  expect(await faults(page)).toEqual([]);
  await shot(page, `8-${name.replaceAll(/\W+/g, '-')}`);
});

test('all of it can be done with a keyboard', async () => {
  const { page } = await visit();
  await opened(page);
  const reached: string[] = [];
  for (let press = 0; press < 30; press++) {
    await page.keyboard.press('Tab');
    const name = await page.evaluate(() => {
      const found = document.activeElement;
      if (!found || found === document.body) return undefined;
      const label = found.id ? document.querySelector(`label[for="${found.id}"]`)?.textContent : undefined;
      return found.getAttribute('aria-label') || label || found.textContent;
    });
    if (!name) break;
    reached.push(name);
  }
  expect(reached).toEqual(
    expect.arrayContaining([
      'Take an image to recognise',
      'Choose one to recognise',
      'Name',
      'Images of class 1',
      'Camera: take an image of class 2',
      'Add a class',
      'Export the model',
      'Open a file',
    ]),
  );
});
