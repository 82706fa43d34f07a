/** What a conformance case gives, and what its kind computes of it. */

import type { BundleSource } from '../src/bundle/source.js';
import type { StoredTensor, Tensors } from '../src/formats/tensors.js';
import type { Runtime } from '../src/runtime/sessions.js';

/** A result to compare: numbers in row-major order, and their shape. */
export interface Result {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}
export type Results = Map<string, Result>;

export interface Given {
  readonly settings: Record<string, unknown>;
  readonly inputs: Tensors;
  /** The case's bundle. */
  readonly source: BundleSource;
  readonly runtime: Runtime;
}

export function result(shape: readonly number[], data: ArrayLike<number>): Result {
  return { shape, data };
}

export function tensor({ inputs }: Given, name: string): StoredTensor {
  const found = inputs.get(name);
  if (!found) throw new Error(`the case has no input '${name}'`);
  return found;
}

export function numbers(given: Given, name: string): number[] {
  return Array.from(tensor(given, name).data as ArrayLike<number | bigint>, Number);
}

export function floats(given: Given, name: string): Float32Array {
  return Float32Array.from(numbers(given, name));
}

export function doubles(given: Given, name: string): Float64Array {
  return Float64Array.from(numbers(given, name));
}
