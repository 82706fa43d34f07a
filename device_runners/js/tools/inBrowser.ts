/** A headless Chromium with the page of tools/page.ts open, served from this process. */

import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { chromium, type Page as Tab } from 'playwright-core';
import { HERE } from './onNode.js';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const TYPES: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};
const IMPORTS = JSON.stringify({ imports: { 'onnxruntime-web': '/ort/ort.wasm.min.mjs' } });
const HTML = `<!doctype html><meta charset="utf-8"><title>csk-sdk</title>
<script type="importmap">${IMPORTS}</script><script type="module" src="/page/page.js"></script>`;

/** Run `work` in a fresh browser with these folders served under their names. */
export async function inBrowser<T>(
  folders: Readonly<Record<string, string>>,
  work: (tab: Tab, version: string) => Promise<T>,
): Promise<T> {
  const served = {
    page: join(HERE, 'out/page'),
    ort: join(HERE, 'node_modules/onnxruntime-web/dist'),
    ...folders,
  };
  const server = await serve(served);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: FLAGS,
  });
  try {
    const tab = await browser.newPage();
    tab.on('pageerror', (error) => console.error(`in the browser: ${error.message}`));
    await tab.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    await ready(tab);
    return await work(tab, browser.version());
  } finally {
    await browser.close();
    server.close();
  }
}

/** Wait until the page's functions are there, after opening or reloading it. */
export async function ready(tab: Tab): Promise<void> {
  await tab.waitForFunction(() => 'page' in globalThis, undefined, { timeout: 30_000 });
}

function serve(folders: Readonly<Record<string, string>>): Promise<Server> {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent((request.url ?? '/').split('?')[0]!));
    const [, folder = '', ...rest] = path.split('/');
    try {
      const root = folders[folder];
      const content = path === '/' ? HTML : await readFile(join(root ?? '/nowhere', ...rest));
      const type = TYPES[path === '/' ? '.html' : extname(path)] ?? 'application/octet-stream';
      response.writeHead(200, { 'content-type': type }).end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}
