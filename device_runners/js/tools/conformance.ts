/** The conformance vectors on some runtime: every case computed, compared and reported as docs/conformance.md says. */

import type { BundleSource } from '../src/bundle/source.js';
import { now } from '../src/engine.js';
import { textOf } from '../src/formats/bytes.js';
import { decode } from '../src/formats/safetensors.js';
import type { Tensors } from '../src/formats/tensors.js';
import type { Runtime } from '../src/runtime/sessions.js';
import type { Result, Results } from './given.js';
import { KINDS } from './kinds.js';

const FORMAT = 1;
/**
 * Inputs of the training graph with default values, which JavaScript builds of ONNX Runtime do not let be fed; and the
 * graphs around a prefix, of which this runner makes no use.
 */
export const UNSUPPORTED = ['class_mask', 'label_smoothing', 'prefix'];

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly bundle: string;
  readonly precision: string;
  readonly needs: readonly string[];
  readonly settings: Record<string, unknown>;
  readonly outputs: readonly { name: string; measure: string; tolerance: number }[];
}

interface Deviation {
  readonly output: string;
  readonly measure: string;
  /** null where it is not finite. */
  readonly deviation: number | null;
  readonly tolerance: number;
}

export interface CaseResult {
  readonly name: string;
  readonly kind: string;
  readonly precision: string;
  readonly status: 'passed' | 'failed' | 'skipped';
  readonly seconds: number;
  readonly reason: string;
  readonly deviations: readonly Deviation[];
}

export interface Report {
  readonly format: number;
  readonly platform: string;
  readonly runner: string;
  readonly runtime: string;
  readonly machine: string;
  readonly vectors: string;
  readonly unsupported: readonly string[];
  readonly passed: boolean;
  readonly cases: readonly CaseResult[];
  readonly digits?: { readonly accuracy: number; readonly seconds: number };
}

/** Run every case of a folder of vectors; those that need what is not supported are skipped. */
export async function runConformance(
  vectors: BundleSource,
  runtime: Runtime,
  described: Pick<Report, 'platform' | 'runtime' | 'machine'>,
): Promise<Report> {
  const index = await json<{ format: number; digest: string; cases: string[] }>(vectors, 'index.json');
  if (index.format !== FORMAT) {
    throw new Error(`${vectors.name} has format ${index.format}, and this runner reads ${FORMAT}.`);
  }
  const cases: CaseResult[] = [];
  for (const name of index.cases) cases.push(await runCase(vectors, runtime, name));
  const executed = cases.filter(({ status }) => status !== 'skipped');
  return {
    format: FORMAT,
    ...described,
    runner: 'javascript',
    vectors: index.digest,
    unsupported: UNSUPPORTED,
    passed: executed.length > 0 && executed.every(({ status }) => status === 'passed'),
    cases,
  };
}

/** What a person wants to know of a report. */
export function summary({ platform, cases, digits }: Report): string {
  const rest = cases.filter(({ status }) => status !== 'passed');
  const lines = rest.map(({ name, status, reason }) => `${status} ${name}: ${reason}`);
  lines.push(`${platform}: ${cases.length - rest.length} of ${cases.length} cases passed`);
  if (digits) lines.push(`${platform}: digits ${digits.accuracy} % over all classes in ${digits.seconds} s`);
  return lines.join('\n');
}

/** One case by its name. */
export async function runCase(vectors: BundleSource, runtime: Runtime, name: string): Promise<CaseResult> {
  const found = await json<Case>(vectors, `cases/${name}.json`);
  const { kind, precision, settings } = found;
  const described = { name, kind, precision };
  const lacking = [kind, ...found.needs].filter((one) => UNSUPPORTED.includes(one));
  if (lacking.length) {
    const reason = `needs ${lacking.join(', ')}`;
    return { ...described, status: 'skipped', seconds: 0, reason, deviations: [] };
  }
  const begun = now();
  try {
    const { tensors } = decode(await content(vectors, `cases/${name}.safetensors`));
    const folder = `bundles/${found.bundle}`;
    const source: BundleSource = {
      name: `${vectors.name}/${folder}`,
      read: (file) => vectors.read(`${folder}/${file}`),
    };
    const compute = KINDS[kind];
    if (!compute) throw new Error(`cases of kind '${kind}' are not known here`);
    const got = await compute({ settings, inputs: below('in/', tensors), source, runtime });
    const expected = below('out/', tensors);
    const deviations = found.outputs.map((output) => compared(output, got, expected));
    const wrong = deviations.filter(
      ({ deviation, tolerance }) => deviation === null || !(deviation <= tolerance),
    );
    const reason = wrong.map(
      ({ output, deviation, tolerance }) =>
        `${output} off by ${deviation?.toPrecision(2)}, ${tolerance} allowed`,
    );
    const passed = !wrong.length && deviations.length > 0;
    return {
      ...described,
      status: passed ? 'passed' : 'failed',
      seconds: Math.round(now() - begun) / 1000,
      reason: deviations.length ? reason.join('; ') : 'the case expects nothing',
      deviations,
    };
  } catch (error) {
    // Whatever it is, it belongs into the report, beside the other cases.
    const reason = `${(error as Error)?.name}: ${(error as Error)?.message ?? error}`;
    return { ...described, status: 'failed', seconds: 0, reason, deviations: [] };
  }
}

function compared(
  { name, measure, tolerance }: Case['outputs'][number],
  got: Results,
  expected: Tensors,
): Deviation {
  const golden = expected.get(name);
  const found = got.get(name);
  if (!golden) throw new Error(`the case has no expected output '${name}'`);
  if (!found) throw new Error(`nothing was computed for '${name}'`);
  const far = deviationOf(measure, found, {
    shape: golden.shape,
    data: Array.from(golden.data as ArrayLike<number | bigint>, Number),
  });
  return { output: name, measure, deviation: Number.isFinite(far) ? far : null, tolerance };
}

/** How far `got` is from `expected`, by one of the measures of docs/conformance.md. */
export function deviationOf(measure: string, got: Result, expected: Result): number {
  const one = Array.from(got.data, Number);
  const other = expected.data;
  const same = got.shape.join() === expected.shape.join() && one.length === other.length;
  if (!same || !one.every(Number.isFinite)) return Number.POSITIVE_INFINITY;
  if (measure === 'equal') return one.filter((value, i) => value !== other[i]).length;
  let [largest, scale, product, left, right] = [0, 0, 0, 0, 0];
  one.forEach((value, i) => {
    const golden = other[i]!;
    largest = Math.max(largest, Math.abs(value - golden));
    scale = Math.max(scale, Math.abs(golden));
    product += value * golden;
    left += value * value;
    right += golden * golden;
  });
  if (measure === 'absolute') return largest;
  if (measure === 'relative') return largest / (scale || 1);
  if (measure === 'cosine') {
    const norms = Math.sqrt(left * right);
    return norms ? 1 - product / norms : Number.POSITIVE_INFINITY;
  }
  throw new Error(`the vectors compare by '${measure}', which this runner does not know: update it`);
}

function below<T>(prefix: string, all: ReadonlyMap<string, T>): Map<string, T> {
  const own = [...all].filter(([name]) => name.startsWith(prefix));
  return new Map(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

async function content(source: BundleSource, name: string): Promise<Uint8Array> {
  const found = await source.read(name);
  if (!found) throw new Error(`${source.name}/${name} is missing`);
  return found;
}

async function json<T>(source: BundleSource, name: string): Promise<T> {
  return JSON.parse(textOf(await content(source, name))) as T;
}
