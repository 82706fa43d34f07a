/** The service worker keeps the app on this device; without it the app works as long as there is a network. */

import { inShell } from './shell.js';

/** Resolves, when it is settled, to a sentence where the app could not be kept. */
export async function keepOffline(): Promise<string | undefined> {
  if (inShell()) return undefined;
  if (!('serviceWorker' in navigator)) {
    return 'The app starts only with a network: browsers keep one that is opened over HTTPS.';
  }
  try {
    const registration = await navigator.serviceWorker.register('sw.js');
    // Where a newer version cannot be kept, the older one goes on.
    const worker = registration.active ?? registration.waiting ?? registration.installing;
    if (worker && (await installed(worker))) return undefined;
  } catch (error) {
    console.warn('not available offline', error);
  }
  return 'The app starts only with a network: this device could not keep it. Free some space on it, then reload the page.';
}

function installed(worker: ServiceWorker): Promise<boolean> {
  return new Promise((resolve) => {
    const look = () => {
      if (worker.state === 'activated') resolve(true);
      if (worker.state === 'redundant') resolve(false);
    };
    worker.addEventListener('statechange', look);
    look();
  });
}
