/**
 * ONNX Runtime, plugged in from outside: what `onnxruntime-node`, `onnxruntime-web` and `onnxruntime-react-native` have
 * in common (the API of `onnxruntime-common`), as far as it is used.
 *
 *     import * as ort from 'onnxruntime-node';
 *     const learner = await Learner.open({ runtime: ort, ... });
 */

import { BundleError } from '../errors.js';
import type { Float32Tensor, Int64Tensor } from '../formats/tensors.js';
import { takeTurns } from './eventLoop.js';

/** A tensor of the runtime; its data are a Float32Array where it is float32. */
export interface RuntimeTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

export interface RuntimeSession {
  run(
    feeds: Record<string, RuntimeTensor>,
    fetches: readonly string[],
  ): Promise<Readonly<Record<string, RuntimeTensor>>>;
  release(): Promise<void>;
}

/** The two exports of an ONNX Runtime package that are used. */
export interface Runtime {
  readonly Tensor: {
    new (type: 'float32', data: Float32Array, dims: readonly number[]): RuntimeTensor;
    new (type: 'int64', data: BigInt64Array, dims: readonly number[]): RuntimeTensor;
  };
  readonly InferenceSession: {
    create(model: Uint8Array, options?: object): Promise<RuntimeSession>;
  };
}

export type Feed = Float32Tensor | Int64Tensor;
export type Feeds = Readonly<Record<string, Feed>>;

/** How sessions are opened. */
export interface SessionSettings {
  /** Compute threads; 0 is the runtime's default. */
  readonly threads: number;
  /** Keep int8 sums of x86 CPUs without VNNI from saturating at 16 bits; elsewhere it changes no number. */
  readonly wideSums?: boolean;
  /** Further options for `InferenceSession.create`, such as `executionProviders`. */
  readonly options?: object;
}

// As Python's `wide_sums` (csk_sdk/runtime/sessions.py).
const WIDE_SUMS = { x64quantprecision: '1' };
// Threads would spin for tens of milliseconds behind each run (docs/decisions/0026).
const QUIET_THREADS = { intra_op: { allow_spinning: '0' } };

/** A graph is data from outside: whatever the runtime makes of it. */
function failed(what: string, name: string, error: unknown): BundleError {
  const reason = String((error as Error)?.message ?? error)
    .trim()
    .split('\n')[0];
  return new BundleError(`ONNX Runtime cannot ${what} ${name} (${reason}).`, { cause: error });
}

/**
 * In Node, ONNX Runtime's packages for Linux leave a device id and a database of events under the user's cache folder at
 * the first session, unless this variable says otherwise. An application that wants telemetry sets it to 0.
 */
function leaveTelemetryOff(): void {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  if (process?.env) process.env.ORT_DISABLE_TELEMETRY ??= '1';
}

/** One opened graph: named arrays in, named arrays out. Close it when it is no longer needed. */
export class Graph {
  private constructor(
    private readonly runtime: Runtime,
    private readonly session: RuntimeSession,
    readonly name: string,
  ) {}

  /** Throws BundleError where the runtime cannot open the model. */
  static async open(
    runtime: Runtime,
    model: Uint8Array,
    name: string,
    settings: SessionSettings,
  ): Promise<Graph> {
    leaveTelemetryOff();
    const options = {
      // As in Python: a third to two thirds of the default's step memory (docs/decisions/0003).
      enableMemPattern: false,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
      ...(settings.threads ? { intraOpNumThreads: settings.threads } : {}),
      ...settings.options,
      extra: entries(settings),
    };
    try {
      return new Graph(runtime, await runtime.InferenceSession.create(model, options), name);
    } catch (error) {
      throw failed('open', name, error);
    }
  }

  /**
   * Run once; the outputs of these names, float32. The arrays are the caller's own.
   * Throws BundleError for whatever the runtime throws.
   */
  async run<Name extends string>(
    feeds: Feeds,
    outputs: readonly Name[],
  ): Promise<Record<Name, Float32Array>> {
    await takeTurns();
    const given = Object.entries(feeds).map(([name, feed]) => [name, this.tensor(feed)] as const);
    const found = await this.session.run(Object.fromEntries(given), outputs).catch((error: unknown) => {
      throw failed('run', this.name, error);
    });
    const arrays = outputs.map((name) => {
      const output = found[name];
      if (!(output?.data instanceof Float32Array)) {
        throw new BundleError(`${this.name} gives no float32 output '${name}': build the bundle again.`);
      }
      return [name, output.data] as const;
    });
    return Object.fromEntries(arrays) as Record<Name, Float32Array>;
  }

  async close(): Promise<void> {
    await this.session.release();
  }

  private tensor({ dtype, shape, data }: Feed): RuntimeTensor {
    return dtype === 'int64'
      ? new this.runtime.Tensor('int64', data, shape)
      : new this.runtime.Tensor('float32', data, shape);
  }
}

/** The runtime's configuration entries: this runner's, and what an application gave. */
function entries({ options = {}, wideSums }: SessionSettings): object {
  const { extra } = options as { extra?: { session?: object } };
  return {
    ...extra,
    session: { ...QUIET_THREADS, ...extra?.session, ...(wideSums ? WIDE_SUMS : {}) },
  };
}
