/** Named arrays as a bundle and a state hold them: row-major, of four element types. */

interface Typed<D extends string, A> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: A;
}

export type Float32Tensor = Typed<'float32', Float32Array>;
export type Float64Tensor = Typed<'float64', Float64Array>;
export type Int64Tensor = Typed<'int64', BigInt64Array>;
export type Uint8Tensor = Typed<'uint8', Uint8Array>;
/** Only exported models hold these. */
export type Int8Tensor = Typed<'int8', Int8Array>;
export type Int32Tensor = Typed<'int32', Int32Array>;
export type StoredTensor = Float32Tensor | Float64Tensor | Int64Tensor | Uint8Tensor;
/** Tensors by name, in the order of their file. */
export type Tensors = ReadonlyMap<string, StoredTensor>;

export const DTYPES = ['float32', 'float64', 'int64', 'uint8'] as const;
export type Dtype = (typeof DTYPES)[number];

export function float32(shape: readonly number[], data?: Float32Array): Float32Tensor {
  return { dtype: 'float32', shape, data: data ?? new Float32Array(sizeOf(shape)) };
}

export function float64(shape: readonly number[], data?: Float64Array): Float64Tensor {
  return { dtype: 'float64', shape, data: data ?? new Float64Array(sizeOf(shape)) };
}

export function int64(values: ArrayLike<number>): Int64Tensor {
  return { dtype: 'int64', shape: [values.length], data: BigInt64Array.from(values, BigInt) };
}

export function uint8(data: Uint8Array): Uint8Tensor {
  return { dtype: 'uint8', shape: [data.length], data };
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The float32 tensor `name`, or undefined where there is none of that name and type. */
export function float32Of(tensors: Tensors, name: string): Float32Tensor | undefined {
  const found = tensors.get(name);
  return found?.dtype === 'float32' ? found : undefined;
}

/** The float32 tensor `name`, which a checked generation must have. */
export function require32(tensors: Tensors, name: string): Float32Tensor {
  const found = float32Of(tensors, name);
  if (!found) throw new Error(`there is no float32 tensor ${name}`);
  return found;
}

/** A tensor's bytes, little-endian as every platform with WebAssembly or Node is. */
export function bytesOf(tensor: StoredTensor | Int8Tensor | Int32Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data;
  return new Uint8Array(buffer, byteOffset, byteLength);
}
