/**
 * A slower processor for a page and its workers. What DevTools throttles is the page's own thread: asked to throttle a
 * worker, Chromium 156 answers "Operation is only supported for pages, not workers", and a worker's loop takes as long as before.
 * So the whole process is stopped and continued, many times a second, by what its busiest thread computed. Linux.
 */

import { readdirSync, readFileSync } from 'node:fs';
import type { BrowserContext } from 'playwright-core';

// How long it runs between two stops, ms.
const RUNNING = 4;

/** Process ids of all pages of this browser. */
export async function renderers(context: BrowserContext): Promise<number[]> {
  const session = await context.browser()!.newBrowserCDPSession();
  const { processInfo } = (await session.send('SystemInfo.getProcessInfo')) as {
    processInfo: { type: string; id: number }[];
  };
  await session.detach();
  return processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
}

/** What each thread of these processes has computed so far, ms. */
function computed(processes: readonly number[]): Map<string, number> {
  const times = new Map<string, number>();
  for (const id of processes) {
    for (const thread of readdirSync(`/proc/${id}/task`)) {
      try {
        const [nanoseconds] = readFileSync(`/proc/${id}/task/${thread}/schedstat`, 'utf8').split(' ');
        times.set(thread, Number(nanoseconds) / 1e6);
      } catch {} // the thread has ended
    }
  }
  return times;
}

/** Measures from now on: what the busiest thread computed, ms, and how much time went by for each of these. */
export function measure(processes: readonly number[]): () => { computed: number; times: number } {
  const [before, start] = [computed(processes), performance.now()];
  return () => {
    const most = Math.max(...[...computed(processes)].map(([thread, ms]) => ms - (before.get(thread) ?? 0)));
    return { computed: most, times: (performance.now() - start) / most };
  };
}

/** Let no thread of these processes compute for more than one part in `rate` of the time, until what is returned is called. */
export function slowDown(processes: readonly number[], rate: number): () => void {
  let timer: NodeJS.Timeout;
  const send = (signal: 'SIGSTOP' | 'SIGCONT') => {
    for (const id of processes) process.kill(id, signal);
  };
  const stop = () => {
    send('SIGSTOP');
    const { computed, times } = sofar();
    timer = setTimeout(go, Math.max(1, computed * (rate - times)));
  };
  let sofar = measure(processes);
  const go = () => {
    sofar = measure(processes);
    send('SIGCONT');
    timer = setTimeout(stop, RUNNING);
  };
  go();
  return () => {
    clearTimeout(timer);
    send('SIGCONT');
  };
}

/** A second or so of nothing but computing. */
export function loop(): number {
  let x = 1;
  for (let step = 0; step < 1.5e8; step++) x = (x * 1103515245 + 12345) | 0;
  return x;
}

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly dur?: number;
  readonly tdur?: number;
  readonly args: { readonly name?: string };
}

/** The longest tasks of a page's own thread in a trace of Chromium: by the clock, and by what they computed, ms. */
export function longest(trace: Buffer): { clock: number; computed: number } {
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: TraceEvent[] };
  const painted = traceEvents.find(({ name }) => name === 'Paint');
  const tasks = traceEvents.filter(
    ({ name, pid, tid }) => /RunTask$/.test(name) && pid === painted?.pid && tid === painted.tid,
  );
  const most = (of: (one: TraceEvent) => number): number => Math.round(Math.max(0, ...tasks.map(of)) / 1000);
  return { clock: most(({ dur = 0 }) => dur), computed: most(({ tdur = 0 }) => tdur) };
}
