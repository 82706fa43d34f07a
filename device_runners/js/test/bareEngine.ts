/** The runner in a JavaScript engine that knows ECMAScript and nothing else, as Hermes nearly is: a bare V8 context. */

import { createContext, runInContext, Script } from 'node:vm';
import * as ort from 'onnxruntime-node';
import { build } from 'vite';
import type * as Bare from '../tools/bare.js';

// What V8 has in a context of its own and ECMAScript does not.
const BEYOND = ['console', 'WebAssembly', 'gc'];
type Arrays = Record<'Uint8Array' | 'Float32Array' | 'BigInt64Array', TypedArrays>;
type TypedArrays = new (data: ArrayLike<number> | ArrayLike<bigint>) => never;

/** What `entry` exports as one script, without modules, as it is shipped in an app. */
export async function script(entry = 'tools/bare.ts'): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      minify: false,
      target: 'es2022',
      lib: { entry, formats: ['iife'], name: 'cskSdk', fileName: 'bare' },
    },
  });
  const [{ output }] = built as unknown as [{ output: [{ code: string }] }];
  return output[0].code;
}

export interface Engine {
  readonly runner: typeof Bare;
  /** Bytes as an array of that engine's own. */
  bytes(given: Uint8Array): Uint8Array;
  readonly runtime: Bare.Runtime;
  /** What its global object has. */
  readonly globals: string[];
}

/** A new engine with the runner in it, and ONNX Runtime as a native binding would give it. */
export function engine(code: string): Engine {
  const context = createContext(Object.create(null) as object);
  for (const name of BEYOND) runInContext(`delete globalThis.${name}`, context);
  const globals = runInContext('Object.getOwnPropertyNames(globalThis)', context) as string[];
  new Script(`${code}\nglobalThis.cskSdk = cskSdk;`).runInContext(context);
  const runner = runInContext('cskSdk', context) as typeof Bare;
  const own = runInContext('({ Uint8Array, Float32Array, BigInt64Array })', context) as Arrays;
  return { runner, bytes: (given) => new own.Uint8Array(given), runtime: bound(own), globals };
}

/** ONNX Runtime looks for its own engine's arrays, and the runner for its own. */
function bound(own: Arrays): Bare.Runtime {
  class Tensor {
    readonly inner: ort.Tensor;

    constructor(
      type: 'float32' | 'int64',
      data: ArrayLike<number> | ArrayLike<bigint>,
      dims: readonly number[],
    ) {
      this.inner =
        type === 'int64'
          ? new ort.Tensor('int64', BigInt64Array.from(data as ArrayLike<bigint>), dims)
          : new ort.Tensor('float32', Float32Array.from(data as ArrayLike<number>), dims);
    }
  }
  const InferenceSession = {
    async create(model: Uint8Array, options?: object) {
      const session = await ort.InferenceSession.create(Uint8Array.from(model), plain(options));
      return {
        inputNames: session.inputNames,
        outputNames: session.outputNames,
        async run(feeds: Record<string, Tensor>, fetches: readonly string[]) {
          const given = Object.entries(feeds).map(([name, { inner }]) => [name, inner] as const);
          const found = await session.run(Object.fromEntries(given), [...fetches]);
          return Object.fromEntries(
            Object.entries(found).map(([name, { type, dims, data }]) => {
              const theirs = type === 'float32' ? new own.Float32Array(data as Float32Array) : data;
              return [name, { type, dims, data: theirs }];
            }),
          );
        },
        release: () => session.release(),
      };
    },
  };
  return { Tensor, InferenceSession } as unknown as Bare.Runtime;
}

function plain(options?: object): ort.InferenceSession.SessionOptions {
  return options ? JSON.parse(JSON.stringify(options)) : {};
}
