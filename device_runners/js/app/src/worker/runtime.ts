/**
 * What computes: WebAssembly, or WebGPU where the browser has one on hardware that gives the same numbers in less time. That
 * is asked once for a bundle and a device, and remembered.
 */

import { chooseWay, type Way } from 'csk-sdk';
import { HttpBundle } from 'csk-sdk/browser';
import * as ort from 'onnxruntime-web/wasm';
import { reasonOf } from '../wording.js';
import { recall, remember } from './pending.js';

const KEY = 'computes-by';
// A device on which the comparison takes longer is not for it.
const LONGEST = 30_000;

// Threads need a page that is isolated by its server's headers.
if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1;

export const WASM: Way = {
  name: 'WebAssembly',
  runtime: ort,
  sessionOptions: { executionProviders: ['wasm'] },
};

interface Remembered {
  /** Of what: the bundle's manifest, the graphics adapter, and the runtime's version. */
  readonly of: string;
  readonly webgpu: boolean;
}

/** What the bundle at this address is computed by: WebAssembly wherever the other cannot be asked or remembered. */
export async function fastest(bundle: string): Promise<Way> {
  try {
    return await found(bundle);
  } catch (error) {
    console.info(`WebGPU is not used: ${reasonOf(error)}`);
    return WASM;
  }
}

async function found(bundle: string): Promise<Way> {
  const adapter = await hardware();
  if (!adapter) return WASM;
  const manifest = await (await fetch(`${bundle}/manifest.json`)).text();
  const of = JSON.stringify([manifest, adapter, ort.env.versions.common]);
  const known = (await recall(KEY)) as Remembered | undefined;
  if (known?.of === of) return known.webgpu ? webgpu() : WASM;
  // Without a network it may not be there: that says nothing about the device.
  const other = await webgpu();
  // Before it is tried: where a driver ends the tab, the app opens without it the next time.
  await remember(KEY, { of, webgpu: false });
  const late = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error('it took too long')), LONGEST);
  });
  const { way, because } = await Promise.race([chooseWay(new HttpBundle(bundle), WASM, other), late]);
  console.info(because);
  await remember(KEY, { of, webgpu: way !== WASM });
  return way;
}

/** Another build of ONNX Runtime, of twice the size: loaded only where it may be used. */
async function webgpu(): Promise<Way> {
  const runtime = await import('onnxruntime-web/webgpu');
  runtime.env.wasm.numThreads = 1;
  return { name: 'WebGPU', runtime, sessionOptions: { executionProviders: ['webgpu', 'wasm'] } };
}

interface Gpu {
  requestAdapter(): Promise<{
    readonly info: Readonly<Record<'vendor' | 'architecture' | 'device' | 'description', string>> & {
      readonly isFallbackAdapter?: boolean;
    };
  } | null>;
}

/** The graphics adapter's name; undefined where there is none, or only one that is computed by the processor. */
async function hardware(): Promise<string | undefined> {
  try {
    const adapter = await (navigator as { gpu?: Gpu }).gpu?.requestAdapter();
    if (!adapter || adapter.info.isFallbackAdapter) return undefined;
    const { vendor, architecture, device, description } = adapter.info;
    return [vendor, architecture, device, description].join(' ');
  } catch {
    return undefined;
  }
}
