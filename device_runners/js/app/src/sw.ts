/// <reference lib="webworker" />
/** The service worker: after the first visit everything comes from this device. The build fills in names and version. */

const worker = globalThis as unknown as ServiceWorkerGlobalScope;
const CACHE = 'teach-__VERSION__';
const FILES: string[] = ['__FILES__'];

worker.addEventListener('install', (event) => {
  // All or nothing: a half cache would be an app that starts offline and then fails.
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: 'reload' }))))
      .then(() => worker.skipWaiting()),
  );
});

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
  const cached = caches.open(CACHE).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(cached.then((found) => found ?? fetch(event.request)));
});
