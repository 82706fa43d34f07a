/** What goes into a bundle's graphs, and how they are opened. */

import type { Bundle } from '../bundle/bundle.js';
import { rowsOf, type Site } from '../bundle/manifest.js';
import { float32, int64, sizeOf } from '../formats/tensors.js';
import type { Feed, Runtime, SessionSettings } from '../runtime/sessions.js';

/** How sessions are opened: the runtime, and its settings. */
export interface Opening {
  readonly runtime: Runtime;
  readonly settings: SessionSettings;
}

/** How an application wants its sessions opened. */
export function openingOf(
  { runtime, sessionOptions }: { readonly runtime: Runtime; readonly sessionOptions?: object },
  threads: number,
): Opening {
  return { runtime, settings: { threads, ...(sessionOptions ? { options: sessionOptions } : {}) } };
}

/** Images as the graphs take them. */
export function imageFeed(bundle: Bundle, images: Float32Array): Feed {
  const { channels, size } = bundle.manifest.input;
  const shape = [channels, ...size];
  return float32([images.length / sizeOf(shape), ...shape], images);
}

/** Graph inputs that change nothing: one channel, a delta of zero. */
export function neutralDeltas(sites: readonly Site[]): Record<string, Feed> {
  const feeds = sites.flatMap((site): [string, Feed][] => [
    [site.indices, int64([0])],
    [site.delta, float32([rowsOf(site), 1])],
  ]);
  return Object.fromEntries(feeds);
}
