/** The live camera: a browser films a video whose frames are known, sharp ones and blurred ones. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { APP, addClass, beforeWorker, faults, Phone, PYTHON, pictures, SHOTS, Site, shot } from './site.js';

const VIDEO = join(APP, 'out/four.y4m');
const COUNT = 25;
const [WIDTH, HEIGHT, EACH] = [320, 240, 4];
let site: Site;
let phones: Phone[] = [];

beforeAll(() => {
  mkdirSync(SHOTS, { recursive: true });
  execFileSync(PYTHON, [join(APP, 'test/video.py'), VIDEO, ...pictures('four', 0, COUNT)]);
});
afterEach(async () => {
  for (const phone of phones) await phone.throwAway();
  phones = [];
  await site.stop();
});

async function opened(
  options: ConstructorParameters<typeof Phone>[0],
  prepare: (page: Page) => Promise<unknown> = async () => {},
): Promise<Page> {
  site = new Site();
  await site.start();
  const phone = new Phone(options);
  phones.push(phone);
  const page = await phone.open();
  await prepare(page);
  await page.goto(site.url);
  await page.getByRole('heading', { name: 'What it knows' }).waitFor({ timeout: 30_000 });
  return page;
}

const card = (page: Page, number: number) =>
  page.getByRole('group', { name: `Class ${number}`, exact: true });
const count = async (page: Page, number: number): Promise<number> =>
  Number.parseInt((await card(page, number).locator('.count').textContent())!, 10);

async function film(page: Page, number: number): Promise<void> {
  await card(page, number).getByRole('button', { name: 'Camera: take an image' }).click();
  await page.waitForFunction(() => document.querySelector('video')?.videoWidth, undefined, {
    timeout: 30_000,
  });
}

/** The luma of the video's different frames: of each image its sharp one, and its blurred one. */
function framesOfVideo(): { image: number; blurred: boolean; luma: Buffer }[] {
  const file = readFileSync(VIDEO);
  const size = WIDTH * HEIGHT;
  const whole = 6 + (size * 3) / 2;
  const start = file.indexOf('\n') + 1;
  return Array.from({ length: COUNT * 2 }, (_, index) => {
    const at = start + whole * (Math.floor(index / 2) * EACH + (index % 2) * (EACH - 1)) + 6;
    return { image: index >> 1, blurred: index % 2 === 1, luma: file.subarray(at, at + size) };
  });
}

/** The images on a card as luma, at the video's size. */
async function taken(page: Page): Promise<number[][]> {
  return page.evaluate(
    async ([width, height]) => {
      const images = [...document.querySelectorAll<HTMLImageElement>('.strip img')];
      return Promise.all(
        images.map(async (image) => {
          await image.decode();
          const canvas = document.createElement('canvas');
          [canvas.width, canvas.height] = [width!, height!];
          const context = canvas.getContext('2d')!;
          context.drawImage(image, 0, 0, width!, height!);
          const { data } = context.getImageData(0, 0, width!, height!);
          return Array.from({ length: width! * height! }, (_, at) => data[4 * at]!);
        }),
      );
    },
    [WIDTH, HEIGHT] as const,
  );
}

test('holding the button takes sharp images that differ, and they are learned', async () => {
  const page = await opened({ camera: { video: VIDEO } });
  await card(page, 1).getByRole('textbox', { name: 'Name' }).fill('four');
  await film(page, 1);
  expect(await faults(page)).toEqual([]);
  await shot(page, '16-camera');
  const button = page.getByRole('button', { name: 'Hold to take images of four' });
  await button.hover();
  await page.mouse.down();
  await expect.poll(() => count(page, 1), { timeout: 60_000 }).toBeGreaterThanOrEqual(12);
  await page.mouse.up();
  // All that is shown on the card is one image of the video each, a sharp one, and another one than before.
  const frames = framesOfVideo();
  const nearest = (await taken(page)).map((image) => {
    const far = frames.map(({ luma }) =>
      image.reduce((sum, value, at) => sum + Math.abs(value - luma[at]!), 0),
    );
    return frames[far.indexOf(Math.min(...far))]!;
  });
  expect(nearest).toHaveLength(12);
  expect(nearest.filter(({ blurred }) => blurred)).toEqual([]);
  for (const [at, { image }] of nearest.entries()) expect(image).not.toBe(nearest[at - 1]?.image);

  // By keyboard as well.
  await button.focus();
  await page.keyboard.down('Space');
  await expect.poll(() => count(page, 1), { timeout: 60_000 }).toBeGreaterThanOrEqual(20);
  await page.keyboard.up('Space');
  await shot(page, '17-burst');
  await addClass(page, 2, 'five', pictures('five', 0, 20));
  await page.getByRole('button', { name: 'Learn them' }).click();
  await page.getByRole('heading', { name: 'Learned' }).waitFor({ timeout: 90_000 });
  // It no longer films.
  expect(await page.locator('video').count()).toBe(0);

  await page.getByRole('button', { name: 'Take an image to recognise' }).click();
  await page.waitForFunction(() => document.querySelector('video')?.videoWidth);
  await page.getByRole('button', { name: 'Recognise it: take what the camera sees' }).click();
  await expect.poll(() => page.locator('.guesses .name').first().textContent()).toBe('four');
  await shot(page, '18-recognised');
  await page.getByRole('button', { name: 'Close the camera' }).click();
  expect(await page.locator('video').count()).toBe(0);
  expect(phones[0]!.problems).toEqual([]);
});

test('a tap takes one image, and one camera is open at a time', async () => {
  const page = await opened({ camera: { video: VIDEO } });
  await film(page, 1);
  const button = page.getByRole('button', { name: 'Hold to take images of class 1' });
  for (const wanted of [1, 2, 3]) {
    await button.tap();
    await expect.poll(() => count(page, 1)).toBe(wanted);
  }
  // A screen reader clicks without a finger.
  await button.evaluate((element: HTMLElement) => element.click());
  await expect.poll(() => count(page, 1)).toBe(4);
  await film(page, 2);
  await expect.poll(() => page.locator('video').count()).toBe(1);
  await page.getByRole('button', { name: 'Hold to take images of class 2' }).tap();
  await expect.poll(() => count(page, 2)).toBe(1);
  expect(await count(page, 1)).toBe(4);
  // Another app takes the camera, or it is unplugged.
  await page.evaluate(() => {
    const [track] = (document.querySelector('video')!.srcObject as MediaStream).getTracks();
    track!.dispatchEvent(new Event('ended'));
  });
  await expect.poll(() => page.locator('video').count()).toBe(0);
});

test('a refused camera is said in one sentence, and the camera app is still there', async () => {
  const page = await opened({ camera: 'refused' });
  await card(page, 1).getByRole('button', { name: 'Camera: take an image' }).click();
  const said = card(page, 1).locator('.remark');
  await said.waitFor();
  expect(await said.textContent()).toBe(
    'The camera was not allowed: allow it for this page in the browser, or take images with the camera app.',
  );
  expect(await faults(page)).toEqual([]);
  await shot(page, '19-camera-refused');
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    card(page, 1).getByRole('button', { name: 'Camera app: take an image of class 1' }).click(),
  ]);
  expect(await chooser.element().getAttribute('capture')).toBe('environment');
  await chooser.setFiles(pictures('four', 0, 1));
  await expect.poll(() => count(page, 1)).toBe(1);
});

test('a page that may not film goes to the camera app at once', async () => {
  const page = await opened({}, (page) =>
    page.addInitScript(() => Object.defineProperty(navigator, 'mediaDevices', { value: undefined })),
  );
  await Promise.all([
    page.waitForEvent('filechooser'),
    card(page, 1).getByRole('button', { name: 'Camera: take an image' }).click(),
  ]);
});

test('an image is on the page before the network has looked at it', async () => {
  // The worker begins to look only when it is told to.
  const page = await opened({}, (page) =>
    beforeWorker(
      page,
      `const listen = self.addEventListener.bind(self);
      self.addEventListener = (kind, heard) => listen(kind, (event) => {
        if (event.data?.call !== 'predict') return heard(event);
        setTimeout(() => heard(event), 2000);
      });`,
    ),
  );
  await page.evaluate(() => {
    const times: { chosen?: number; shown?: number } = {};
    Object.assign(globalThis, { times });
    document.addEventListener('change', () => (times.chosen = performance.now()), true);
    new MutationObserver(() => {
      const shown = document.querySelector('.seen[aria-busy=true] progress');
      if (shown) requestAnimationFrame(() => (times.shown ??= performance.now()));
    }).observe(document.body, { subtree: true, childList: true });
  });
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    page.getByRole('button', { name: 'Choose one to recognise' }).click(),
  ]);
  await chooser.setFiles(pictures('two', 2, 3));
  await page.getByText('Looking …').waitFor();
  expect(await page.locator('.guesses').count()).toBe(0);
  expect(await faults(page)).toEqual([]);
  await shot(page, '20-looking');
  await page.locator('.guesses').waitFor();
  expect(await page.locator('.seen').getAttribute('aria-busy')).toBe('false');
  const { chosen, shown } = await page.evaluate(
    () => (globalThis as unknown as { times: { chosen: number; shown: number } }).times,
  );
  console.log(`from the choice to the first frame that shows it: ${Math.round(shown - chosen)} ms`);
});

test('an error goes away with the next thing that is done', async () => {
  const page = await opened({});
  const broken = join(APP, 'package.json');
  const fail = async () => {
    const [chooser] = await Promise.all([
      page.waitForEvent('filechooser'),
      page.getByRole('button', { name: 'Choose one to recognise' }).click(),
    ]);
    await chooser.setFiles(broken);
    await page.getByRole('alert').waitFor();
  };
  const gone = () => expect.poll(() => page.getByRole('alert').count()).toBe(0);
  await fail();
  // Reading it again is nothing new.
  await page.getByRole('alert').locator('p').click();
  expect(await page.getByRole('alert').count()).toBe(1);
  await card(page, 1).getByRole('textbox', { name: 'Name' }).fill('f');
  await gone();
  await fail();
  await page.getByRole('button', { name: 'Add a class' }).click();
  await gone();
  await fail();
  await page.getByRole('button', { name: 'Export the model' }).click();
  await gone();
});

test.each([
  { name: 'small phone, dark', width: 320, height: 568, dark: true },
  { name: 'large phone', width: 430, height: 932, dark: false },
])('the live view is in the way of nobody: $name', async ({ name, ...options }) => {
  const page = await opened({ ...options, camera: { video: VIDEO } });
  await film(page, 1);
  await card(page, 1).getByRole('button', { name: 'Hold to take images' }).tap();
  await expect.poll(() => count(page, 1)).toBe(1);
  expect(await faults(page)).toEqual([]);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect(wide).toBeLessThanOrEqual(0);
  await shot(page, `21-${name.replaceAll(/\W+/g, '-')}`);
});
