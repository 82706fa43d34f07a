/** The built app on a server that can be stopped, its files changed on the way, and a phone's browser. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import axe from 'axe-core';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { expect } from 'vitest';

export const APP = fileURLToPath(new URL('..', import.meta.url));
export const PYTHON = process.env.PYTHON ?? join(APP, '../../../.venv/bin/python');
export const SHOTS = join(APP, 'out/screenshots');
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
  '.json': 'application/json',
};

export class Site {
  private server: Server | undefined;
  private port = 0;
  /** What is served in place of a file of this path; where it throws, the file is missing. */
  readonly changed = new Map<string, (content: Buffer) => Buffer>();
  readonly asked: string[] = [];

  /** With another bundle than the app was built with, and the one before it, where they are given. */
  constructor(
    public bundle?: string,
    public before?: string,
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  async start(): Promise<void> {
    this.server = createServer((request, response) => {
      const path = normalize(decodeURIComponent(new URL(request.url!, this.url).pathname)).replace(
        /^\/+/,
        '',
      );
      this.asked.push(path);
      try {
        const file = readFileSync(this.file(path || 'index.html'));
        const content = this.changed.get(path)?.(file) ?? file;
        const type = TYPES[extname(path || 'index.html')] ?? 'application/octet-stream';
        response.writeHead(200, { 'content-type': type, 'cache-control': 'no-cache' });
        response.end(content);
      } catch {
        response.writeHead(404).end();
      }
    });
    await new Promise<void>((ready) => this.server!.listen(this.port, '127.0.0.1', ready));
    this.port = (this.server.address() as AddressInfo).port;
  }

  private file(path: string): string {
    const [folder, ...below] = path.split('/');
    const given = { bundle: this.bundle, 'bundle.before': this.before }[folder!];
    return given ? join(given, ...below) : join(APP, 'dist', path);
  }

  async stop(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    server?.closeAllConnections();
    await new Promise((stopped) => (server ? server.close(stopped) : stopped(undefined)));
  }
}

/** A phone with a browser whose storage stays between `open` and `open`, as between one day and the next. */
export class Phone {
  private readonly profile: string;
  private context: BrowserContext | undefined;
  readonly problems: string[] = [];

  constructor(
    private readonly options: {
      width?: number;
      height?: number;
      dark?: boolean;
      profile?: string;
      /** A video that the camera sees, or what the person says when the page asks for one. */
      camera?: { video: string } | 'refused';
      /** With WebGPU, which the processor computes. */
      gpu?: boolean;
    } = {},
  ) {
    this.profile = options.profile ?? mkdtempSync(join(tmpdir(), 'csk-sdk-app-'));
  }

  async open(): Promise<Page> {
    await this.context?.close();
    const { width = 390, height = 844, dark = false, camera, gpu = false } = this.options;
    this.context = await chromium.launchPersistentContext(this.profile, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      args: [
        ...['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-sync'],
        ...(gpu ? SOFTWARE_GPU : ['--disable-gpu']),
        ...['--disable-background-networking', '--disable-component-update'],
        ...(camera ? filming(camera) : []),
      ],
      viewport: { width, height },
      deviceScaleFactor: 2,
      hasTouch: true,
      isMobile: true,
      colorScheme: dark ? 'dark' : 'light',
      reducedMotion: 'reduce',
    });
    const page = this.context.pages()[0] ?? (await this.context.newPage());
    page.on('pageerror', (error) => this.problems.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') this.problems.push(message.text());
    });
    return page;
  }

  async throwAway(): Promise<void> {
    await this.context?.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

const SOFTWARE_GPU = [
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-features=Vulkan',
];

function filming(camera: { video: string } | 'refused'): string[] {
  const device = '--use-fake-device-for-media-stream';
  if (camera === 'refused') return [device, '--use-fake-ui-for-media-stream=deny'];
  return [device, '--use-fake-ui-for-media-stream', `--use-file-for-fake-video-capture=${camera.video}`];
}

/** Code that the worker runs before its own: workers have their own realm, so it is put into what they load. */
export async function beforeWorker(page: Page, code: string): Promise<void> {
  await page.route(
    (url) => /^\/assets\/worker-.*\.js$/.test(url.pathname),
    async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${code}\n${await response.text()}` });
    },
  );
}

/** As on a slow device: each step of training takes at least `ms`, so that a task can be met in its middle. */
export function slowSteps(page: Page, ms: number): Promise<void> {
  return beforeWorker(
    page,
    `const post = self.postMessage.bind(self);
    self.postMessage = (message, ...rest) => {
      post(message, ...rest);
      if (message.progress?.phase !== 'train') return;
      for (const until = performance.now() + ${ms}; performance.now() < until; );
    };`,
  );
}

/** Files of one class: [from, to). */
export function pictures(name: string, from: number, to: number): string[] {
  const folder = join(APP, 'out/pictures', name);
  return readdirSync(folder)
    .sort()
    .slice(from, to)
    .map((file) => join(folder, file));
}

export async function addClass(page: Page, number: number, name: string, files: string[]): Promise<void> {
  const card = page.getByRole('group', { name: `Class ${number}`, exact: true });
  await card.getByRole('textbox', { name: 'Name' }).fill(name);
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    card.getByRole('button', { name: `Images of ${name}` }).click(),
  ]);
  await chooser.setFiles(files);
}

/** The app's first guess for an image. */
export async function recognised(page: Page, file: string): Promise<string> {
  const before = await page.locator('.seen').count();
  const old = before ? await page.locator('.seen img').getAttribute('src') : null;
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    page.getByRole('button', { name: 'Choose one to recognise' }).click(),
  ]);
  await chooser.setFiles(file);
  await page.waitForFunction((src) => {
    const found = document.querySelector('.seen img')?.getAttribute('src');
    return found && found !== src;
  }, old);
  return (await page.locator('.guesses .name').first().textContent())!;
}

/** Violations of WCAG. */
export async function faults(page: Page): Promise<string[]> {
  // By the debugger's own channel: the page's Content-Security-Policy stays as it is.
  await page.evaluate(axe.source);
  const found = (await page.evaluate(() =>
    (globalThis as unknown as { axe: typeof axe }).axe.run({
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    }),
  )) as axe.AxeResults;
  expect(found.passes.length).toBeGreaterThan(10);
  return found.violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`));
}

export async function shot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}
