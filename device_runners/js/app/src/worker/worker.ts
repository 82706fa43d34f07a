/** The worker: one teacher, calls in the order they come. Learning computes here, so the page stays awake. */

import { CskError, StateError, StateLockedError } from 'csk-sdk';
import type { Call, Calls, Known, Request, Response, TaskProgress } from '../protocol.js';
import { reasonOf } from '../wording.js';
import { fastest, WASM } from './runtime.js';
import { openSaved, saved } from './saved.js';
import { Stopped, Teacher } from './teacher.js';
import { Versions } from './version.js';

// The worker's own file is in assets/, one below the page.
const root = new URL(import.meta.env.DEV ? '/' : '../', self.location.href);

// The smallest module with a SIMD instruction: (func (result v128) i32.const 0 i8x16.splat).
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

// Between two reports of the same phase, ms: a step may take three, and the page draws each report.
const REPORTS = 50;

let teacher: Promise<Teacher> | undefined;
let known: Promise<Versions> | undefined;
let told: { phase?: string; at: number } = { at: 0 };

function tell(progress: TaskProgress): void {
  const at = performance.now();
  if (progress.phase === told.phase && at - told.at < REPORTS) return;
  told = { phase: progress.phase, at };
  post({ progress });
}

function versions(): Promise<Versions> {
  known ??= Versions.open(root);
  return known;
}

async function open(): Promise<Teacher> {
  const which = await versions();
  const way = await fastest(which.bundle);
  try {
    return await Teacher.open(way, which, tell);
  } catch (error) {
    // Perhaps it was learned on the network before this one.
    const another = error instanceof StateError && !(error instanceof StateLockedError);
    if (another && (await which.carry())) return Teacher.open(WASM, which, tell);
    // A file of the other build may be missing without a network, or its device may be lost.
    if (way === WASM || another) throw error;
    return Teacher.open(WASM, which, tell);
  }
}

/** Another network, or another state: what is open is opened anew. */
async function anew(): Promise<Known> {
  teacher = undefined;
  return (await opened()).known();
}

function opened(): Promise<Teacher> {
  teacher ??= open().catch((error) => {
    teacher = undefined;
    throw error;
  });
  return teacher;
}

const calls: { [C in Call]: (...given: Parameters<Calls[C]>) => Promise<ReturnType<Calls[C]>> } = {
  open: async () => {
    if (!WebAssembly.validate(SIMD)) {
      throw new Fault(
        'This browser is too old to learn in (its WebAssembly has no SIMD): update it, or use another.',
      );
    }
    const now = await opened();
    const said = await now.known();
    // Once the page has that. Whatever goes wrong is said where an image is to be looked at.
    setTimeout(() => now.warmUp().catch(() => undefined));
    return said;
  },
  predict: async (picture) => (await opened()).predict(picture),
  learn: async (classes) => (await opened()).learn(classes),
  resume: async (replace) => (await opened()).resume(replace),
  discard: async () => (await opened()).discard(),
  stop: async () => (await opened()).stop(),
  export: async () => (await opened()).export(),
  save: async () => saved(await versions()),
  openSaved: async (file) => {
    await openSaved(file, WASM.runtime, await versions());
    return anew();
  },
  saveForFleet: async (name) => (await opened()).saveForFleet(name),
  applyFleet: async (file) => (await opened()).applyFleet(file),
  undo: async () => (await opened()).undo(),
  forget: async (name) => (await opened()).forget(name),
  merge: async (into, other) => (await opened()).merge(into, other),
  rename: async (old, name) => (await opened()).rename(old, name),
  version: async (which) => {
    const now = await versions();
    await { back: () => now.back(), forward: () => now.forward(), keep: () => now.close() }[which]();
    return anew();
  },
};

class Fault extends Error {}

self.addEventListener('message', async ({ data }: MessageEvent<Request>) => {
  const { id, call, given } = data;
  try {
    const run = calls[call] as (...given: unknown[]) => Promise<unknown>;
    post({ id, value: await run(...given) });
  } catch (error) {
    post({ id, error: sentence(error), stopped: error instanceof Stopped });
  }
});

function sentence(error: unknown): string {
  if (error instanceof CskError || error instanceof Fault || error instanceof Stopped) return error.message;
  console.error(error);
  return `Something went wrong (${reasonOf(error)}). Reload the page; what was learned is kept.`;
}

function post(response: Response | { progress: TaskProgress }): void {
  self.postMessage(response);
}
