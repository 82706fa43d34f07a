/**
 * Sparse orthogonal gradient projection: steps that leave the answers to past data unchanged.
 *
 * CsKO (arXiv 2406.08830). A site remembers past data as the uncentered second moment `K = sum x_c^T x_c` of its
 * center-sampled input. A change `dC` of the center, kept orthogonal to the leading eigenvectors of `K`, changes
 * (almost) nothing for the data that `K` was summed over. Only the selected channels `S` change, so `K[S, S]` is enough.
 * Arrays are row-major; shapes are those of csk_sdk/method/projection.py.
 */

import { centerOf } from '../bundle/manifest.js';
import { PROJECTION } from '../contract/thresholds.js';
import { ConfigError, StateError } from '../errors.js';
import { allFinite } from '../formats/finite.js';
import { type Float32Tensor, sizeOf } from '../formats/tensors.js';
import { eigenSymmetric, norm, timesTransposed, transposed } from './matrix.js';

// A moment leaves the memory graph as float32: eigenvalues below this share of the largest are rounding.
const RANK_TOLERANCE = 2 ** -23;

/** Orthonormal directions in the space of `k` selected channels. */
export interface Basis {
  readonly k: number;
  /** Number of protected directions. */
  readonly r: number;
  /** The protected directions, one a row: `(r, k)`, in float32 precision. */
  readonly kept: Float64Array;
  /** The directions that are left, one a row: `(k - r, k)`; empty where they are not known. */
  readonly free: Float64Array;
}

/** `K[S, S]`, the moment `(groups, c_in / groups, c_in / groups)` of the selected channels: `(k, k)`. */
export function restrict(moment: Float32Tensor, selected: ArrayLike<number>): Float64Array {
  const size = moment.shape[1]!;
  const k = selected.length;
  const out = new Float64Array(k * k);
  for (let i = 0; i < k; i++) {
    const group = Math.floor(selected[i]! / size);
    const row = (group * size + (selected[i]! % size)) * size;
    for (let j = 0; j < k; j++) {
      // No kernel sees channels of two groups together, so their entries are zero.
      if (Math.floor(selected[j]! / size) === group)
        out[i * k + j] = moment.data[row + (selected[j]! % size)]!;
    }
  }
  return out;
}

/**
 * The share of variance to keep where `taps` positions of a kernel are trained, `energy` being that of a center: neighbouring
 * positions see nearly the same, so that few directions have most of the variance of whole patches. 0 and 1 stay.
 */
export function threshold(energy: number, taps: number): number {
  return energy ** (1 / taps);
}

/**
 * Directions to keep clear of: the leading eigenvectors of `moment` `(k, k)`, the smallest number of them whose
 * eigenvalues reach the fraction `energy` of the trace. Energy 0, or a moment of zero, gives none; energy 1 gives every
 * direction with an eigenvalue above rounding. Of a moment that freezes its site (csk_sdk's `frozen_moment`) all are
 * kept, whatever was added to it.
 * Throws ConfigError for an energy outside [0, 1], StateError for a moment that is not finite.
 */
export function basisOf(moment: Float64Array, k: number, energy: number): Basis {
  if (!(energy >= 0 && energy <= 1)) {
    throw new ConfigError(`energy is ${energy}, but it must lie between 0 (projection off) and 1.`);
  }
  if (!allFinite(moment)) {
    throw new StateError(
      'the memory of past data holds NaN or infinity, so it cannot protect them: ' +
        'roll back to an earlier task.',
    );
  }
  if (energy === 0) return basisFrom(new Float64Array(0), k);
  const { values, vectors } = eigenBlocks(moment, k);
  const order = Array.from(values.keys()).sort((a, b) => values[b]! - values[a]! || a - b);
  const largest = values[order[0] ?? 0] ?? 0;
  if (!(largest > 0)) return basisFrom(new Float64Array(0), k);
  let r = order.filter((i) => values[i]! > RANK_TOLERANCE * largest).length;
  const frozen = Array.from({ length: k }, (_, i) => moment[i * k + i]!).every(
    (own) => own >= 0.5 * PROJECTION.frozen,
  );
  if (frozen) {
    r = k;
  } else if (energy < 1) {
    const total = order.reduce((sum, i) => sum + Math.max(values[i]!, 0), 0);
    let sum = 0;
    const enough = order.findIndex((i) => {
      sum += Math.max(values[i]!, 0);
      return sum >= energy * total;
    });
    r = Math.min(r, enough < 0 ? k : enough + 1);
  }
  const rows = (which: number[]): Float64Array => {
    const out = new Float64Array(which.length * k);
    which.forEach((i, row) => {
      for (let j = 0; j < k; j++) out[row * k + j] = Math.fround(vectors[i * k + j]!);
    });
    return out;
  };
  return { k, r, kept: rows(order.slice(0, r)), free: rows(order.slice(r)) };
}

/** A basis of these protected directions, one a row. */
export function basisFrom(kept: Float64Array, k: number): Basis {
  return { k, r: k ? kept.length / k : 0, kept, free: new Float64Array(0) };
}

/**
 * Remove from `step` `(rows, k)`, in place, what lies along the basis `B`: `U <- U - (U B) B^T`. Where more directions
 * are protected than free, the same from the other side, `U <- (U F) F^T`, is less work.
 */
export function project(step: Float32Array, basis: Basis): void {
  const { k, r, kept, free } = basis;
  if (r === 0) return;
  if (r === k) {
    // Every direction is taken: what a product would leave is rounding, all of it along the basis.
    step.fill(0);
    return;
  }
  const inside = free.length > 0 && 2 * r > k;
  const directions = inside ? free : kept;
  const d = directions.length / k;
  const rows = step.length / k;
  const along = timesTransposed(Float64Array.from(step), directions, rows, d, k);
  const part = timesTransposed(along, transposed(directions, d, k), rows, k, d);
  for (let i = 0; i < step.length; i++) step[i] = inside ? part[i]! : step[i]! - part[i]!;
}

/** The share of `delta` `(rows, k)` along the basis: `||dC B|| / ||dC||`, 0 for a delta of zero. */
export function leak(delta: Float32Array, basis: Basis): number {
  const { k, r, kept } = basis;
  const size = norm(delta);
  if (!(size > 0)) return 0;
  return norm(timesTransposed(Float64Array.from(delta), kept, delta.length / k, r, k)) / size;
}

/**
 * Add a `(rows, k)` delta to the centers of `weight` `(c_out, c_in / groups, ...kernel)`, in place: entry `(i, j)`, of
 * channel `c = selected[j]` in group `q`, goes to row `q * rows + i`, column `c % (c_in / groups)`.
 */
export function addToCenters(
  weight: Float32Tensor,
  delta: Float32Array,
  selected: ArrayLike<number>,
  groups: number,
): void {
  const { shape, data } = weight;
  const [outputs, columns] = [shape[0]!, shape[1]!];
  const rows = outputs / groups;
  const k = selected.length;
  if (delta.length !== rows * k) throw new Error(`a delta of ${delta.length} does not fit ${rows} x ${k}`);
  const area = sizeOf(shape.slice(2));
  const middle = centerOf(shape.slice(2));
  for (let j = 0; j < k; j++) {
    const group = Math.floor(selected[j]! / columns);
    const column = selected[j]! % columns;
    for (let i = 0; i < rows; i++) {
      const at = ((group * rows + i) * columns + column) * area + middle;
      data[at] = data[at]! + delta[i * k + j]!;
    }
  }
}

/**
 * Eigenvalues, and eigenvectors as rows, each within one group's channels: diagonal blocks are solved one by one, so
 * that no eigenvector is a mixture of two groups' directions.
 */
function eigenBlocks(moment: Float64Array, k: number): { values: Float64Array; vectors: Float64Array } {
  const values = new Float64Array(k);
  const vectors = new Float64Array(k * k);
  let start = 0;
  for (const end of blockEnds(moment, k)) {
    const size = end - start;
    const block = new Float64Array(size * size);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) block[i * size + j] = moment[(start + i) * k + start + j]!;
    }
    const found = eigenSymmetric(block, size);
    for (let i = 0; i < size; i++) {
      values[start + i] = found.values[i]!;
      for (let j = 0; j < size; j++) vectors[(start + i) * k + start + j] = found.vectors[i * size + j]!;
    }
    start = end;
  }
  return { values, vectors };
}

function blockEnds(moment: Float64Array, k: number): number[] {
  const ends: number[] = [];
  let reach = 0;
  for (let i = 0; i < k; i++) {
    for (let j = k - 1; j > reach; j--) if (moment[i * k + j] !== 0) reach = j;
    if (reach <= i) {
      ends.push(i + 1);
      reach = i + 1;
    }
  }
  return ends;
}

/** The second moment `(groups, channels, channels)` of data of which nobody knows what it was: it forbids all. */
export function frozenMoment(groups: number, channels: number): Float32Array {
  const moment = new Float32Array(groups * channels * channels);
  for (let row = 0; row < groups * channels; row++) {
    moment[row * channels + (row % channels)] = PROJECTION.frozen;
  }
  return moment;
}
