/// <reference lib="webworker" />
/** The service worker: after the first visit everything comes from this device. The build fills in names and version. */

import { LARGE } from './large.js';

const worker = globalThis as unknown as ServiceWorkerGlobalScope;
const CACHE = 'teach-__VERSION__';
const FILES: string[] = ['__FILES__'];

worker.addEventListener('install', (event) => {
  event.waitUntil(keep().then(() => worker.skipWaiting()));
});

/** All or nothing: without one of them this worker is not installed, for an app that starts must not fail later. */
async function keep(): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const file of FILES) {
    const response = await fetch(file, { cache: 'reload' });
    if (!response.ok) throw new Error(`${file}: ${response.status}`);
    // Read whole: Chromium refuses to stream a large response into a cache when the disk has little room left.
    await cache.put(file, new Response(await response.arrayBuffer(), response));
  }
}

worker.addEventListener('activate', (event) => {
  const old = caches
    .keys()
    .then((names) => names.filter((name) => name.startsWith('teach-') && name !== CACHE));
  event.waitUntil(
    old
      .then((names) => Promise.all(names.map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== 'GET' || url.origin !== worker.location.origin) return;
  event.respondWith(answered(event.request, url));
});

async function answered(request: Request, { pathname }: URL): Promise<Response> {
  const cache = await caches.open(CACHE);
  const found = await cache.match(request, { ignoreSearch: true });
  if (found) return found;
  const response = await fetch(request);
  // What not every device needs, of this version of the app: kept for the next time, if there is room.
  if (response.ok && LARGE.test(pathname.slice(pathname.lastIndexOf('/'))))
    await cache.put(request, response.clone()).catch(() => {});
  return response;
}
