/** What runs inside the browser; tools/inBrowser.ts serves it and calls these functions. */

import * as ort from 'onnxruntime-web';
import { HttpBundle } from '../src/browser/httpBundle.js';
import { IndexedDbStorage } from '../src/browser/indexedDbStorage.js';
import { StateLockedError } from '../src/errors.js';
import { type Report, runConformance } from './conformance.js';
import { accuracyOf, learnDigits, openDigits, readDigits } from './digits.js';
import { carriedOut, carryIn, visit } from './sharedDigits.js';
import type { Visit } from './travel.js';

ort.env.wasm.wasmPaths = '/ort/';

export interface Page {
  conformance(described: { runtime: string; machine: string }): Promise<Report>;
  /** Learn the digits into this browser's IndexedDB. */
  digits(): Promise<{ accuracy: number; seconds: number }>;
  /** Learn the digits tasks that every platform learns, in IndexedDB. */
  visit: Visit;
  /** After a reload: what the state in IndexedDB still knows. */
  reopened(): Promise<{ accuracy: number; tasks: number }>;
  /** Whether a second writer was refused while there was a first, and let in after it. */
  locks(): Promise<boolean>;
}

const fixtures = new HttpBundle('/fixtures');
const page: Page = {
  conformance: (described) =>
    runConformance(new HttpBundle('/vectors'), ort, { platform: 'browser', ...described }),
  digits: async () => {
    await IndexedDbStorage.delete('digits');
    return learnDigits(fixtures, ort, await IndexedDbStorage.open('digits'));
  },
  visit: async (name, files, tasks) => {
    await IndexedDbStorage.delete(name);
    const storage = await IndexedDbStorage.open(name);
    if (files) await carryIn(files, storage);
    const visited = await visit(new HttpBundle('/digits'), ort, storage, tasks);
    // As after a reload: what is carried out was read from the database again.
    storage.close();
    return { ...visited, ...(await carriedOut(await IndexedDbStorage.open(name))) };
  },
  reopened: async () => {
    const learner = await openDigits(fixtures, ort, await IndexedDbStorage.open('digits'));
    const accuracy = await accuracyOf(learner, await readDigits(fixtures));
    return { accuracy: Math.round(accuracy * 100) / 100, tasks: learner.tasks.length };
  },
  locks: async () => {
    const first = await IndexedDbStorage.open('locks');
    const second = await IndexedDbStorage.open('locks');
    const lock = await first.lock();
    const refused = await second.lock().then(
      () => false,
      (error: unknown) => error instanceof StateLockedError,
    );
    await lock.release();
    await (await second.lock()).release();
    return refused;
  },
};

(globalThis as { page?: Page }).page = page;
