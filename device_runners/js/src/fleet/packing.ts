/**
 * A contribution as few bytes: what leaves a device of one class of one lesson, named by the sha256 of these bytes.
 *
 * Rows of a factor are whole numbers of eight bits, or of four where a device has a thin line, times a scale for each row and
 * one for each feature, such that each feature's spread stays exact. The same bytes as Python's:
 * csk_sdk/fleet/packing.py; docs/decisions/0034-fleet.md.
 */

import { SENTENCES } from '../contract/sentences.js';
import { FLEET } from '../contract/thresholds.js';
import { FleetError } from '../errors.js';
import { sha256 } from '../formats/bytes.js';
import { filled, general } from '../formats/sentences.js';
import { Contribution } from '../method/contributions.js';
import { columnSquares } from '../method/matrix.js';
import { roundHalfToEven } from '../method/rounding.js';
import { QUANTILES } from '../method/unknown.js';

export const FEW_BITS = 4;
export const MANY_BITS = 8;
/** Of a class that lessons, or `merge`, have put together. */
export const MOST_ROWS = FLEET.mostRows;
// Number of images (float64), rows of the factor, features, bits of a number (uint32 each).
const HEAD = 20;
/** Sums of so large squares are still numbers. */
const LARGEST = 1e12;

/** The name of a blob: sha256, hexadecimal. */
export function contentId(blob: Uint8Array): string {
  return sha256(blob);
}

/** In fewer bytes, little-endian: count, rows, features, bits; mean, scales of features, of rows; the rows. */
export function pack(one: Contribution, bits: number = MANY_BITS): Uint8Array {
  const f = one.mean.length;
  const n = one.factor.length / f;
  const zero = 1 << (bits - 1);
  const factor = Float64Array.from(one.factor);
  const spread = columnSquares(factor, f).map(Math.sqrt);
  const alike = factor.map((value, at) => value / (spread[at % f]! > 0 ? spread[at % f]! : 1));
  const rows = Float32Array.from({ length: n }, (_, i) => {
    const largest = alike
      .subarray(i * f, (i + 1) * f)
      .reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return largest / (zero - 1);
  });
  const levels = alike.map((value, at) => {
    const step = rows[Math.floor(at / f)]!;
    const level = roundHalfToEven(value / (step > 0 ? step : 1));
    return Math.min(Math.max(level, 1 - zero), zero - 1);
  });
  const found = columnSquares(
    levels.map((level, at) => level * rows[Math.floor(at / f)]!),
    f,
  ).map(Math.sqrt);
  const features = Float32Array.from(spread, (value, j) => (found[j]! > 0 ? value / found[j]! : 0));
  const blob = new Uint8Array(packedBytes(n, f, bits));
  const view = new DataView(blob.buffer);
  view.setFloat64(0, one.count, true);
  [n, f, bits].forEach((value, at) => {
    view.setUint32(8 + 4 * at, value, true);
  });
  let end = HEAD;
  for (const part of [one.mean, features, rows]) {
    for (const value of part) {
      view.setFloat32(end, value, true);
      end += 4;
    }
  }
  const width = (f * bits + 7) >> 3;
  if (bits === FEW_BITS) {
    // The second of the last pair, where there is none, is nothing.
    if (f % 2) for (let i = 0; i < n; i++) blob[end + (i + 1) * width - 1] = zero << 4;
    levels.forEach((level, at) => {
      const [i, j] = [Math.floor(at / f), at % f];
      const place = end + i * width + (j >> 1);
      blob[place] = blob[place]! | ((level + zero) << (j % 2 ? 4 : 0));
    });
  } else {
    levels.forEach((level, at) => {
      blob[end + at] = level + zero;
    });
  }
  return blob;
}

/**
 * Read back what `pack` gave, over so many features. Its numbers may be anything: `odd` says what they must be. Throws
 * FleetError where the bytes are none of a contribution.
 */
export function unpack(blob: Uint8Array, features: number): Contribution {
  if (blob.length < HEAD) throw new FleetError(filled(SENTENCES.contributionShort, { bytes: blob.length }));
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const [rows, width, bits] = [8, 12, 16].map((at) => view.getUint32(at, true)) as [number, number, number];
  const fits = width === features && rows <= MOST_ROWS && (bits === FEW_BITS || bits === MANY_BITS);
  if (!fits || blob.length !== packedBytes(rows, features, bits)) {
    throw new FleetError(filled(SENTENCES.contributionOther, { features }));
  }
  const floats = (start: number, count: number): Float32Array =>
    Float32Array.from({ length: count }, (_, i) => view.getFloat32(HEAD + 4 * (start + i), true));
  const [mean, ofFeature, ofRow] = [
    floats(0, features),
    floats(features, features),
    floats(2 * features, rows),
  ];
  const begin = HEAD + 4 * (2 * features + rows);
  const bytes = (features * bits + 7) >> 3;
  const zero = 1 << (bits - 1);
  const factor = Float32Array.from({ length: rows * features }, (_, at) => {
    const [i, j] = [Math.floor(at / features), at % features];
    const level =
      bits === FEW_BITS
        ? (blob[begin + i * bytes + (j >> 1)]! >> (j % 2 ? 4 : 0)) & 15
        : blob[begin + i * bytes + j]!;
    return Math.fround((level - zero) * ofRow[i]!) * ofFeature[j]!;
  });
  return new Contribution(view.getFloat64(0, true), mean, factor);
}

/** How many bytes `pack` makes of so many rows. */
export function packedBytes(rows: number, features: number, bits: number = MANY_BITS): number {
  return HEAD + 4 * (2 * features + rows) + rows * Math.floor((features * bits + 7) / 8);
}

/** What a contribution cannot be, as the end of a sentence about it; undefined where it can be one. */
export function odd({ count, mean, factor }: Contribution): string | undefined {
  if (!Number.isFinite(count) || ![mean, factor].every((part) => part.every(Number.isFinite))) {
    return SENTENCES.contributionNotFinite;
  }
  if (!(count >= 1 && count <= FLEET.mostImages)) {
    return filled(SENTENCES.contributionImages, { count: general(count) });
  }
  const large = (part: Float32Array): boolean => part.some((value) => Math.abs(value) > LARGEST);
  return large(mean) || large(factor) ? SENTENCES.contributionTooLarge : undefined;
}

/** What is usual for a class's images (method/unknown.ts): `(QUANTILES,)` each. */
export interface SketchRow {
  readonly margins: Float32Array;
  readonly oddness: Float32Array;
}

export function packSketch({ margins, oddness }: SketchRow): Uint8Array {
  const blob = new Uint8Array(8 * QUANTILES);
  const view = new DataView(blob.buffer);
  [...margins, ...oddness].forEach((value, at) => {
    view.setFloat32(4 * at, value, true);
  });
  return blob;
}

/** Undefined where it is none, or not above 0. */
export function unpackSketch(blob: Uint8Array): SketchRow | undefined {
  if (blob.length !== 8 * QUANTILES) return undefined;
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const found = Float32Array.from({ length: 2 * QUANTILES }, (_, at) => view.getFloat32(4 * at, true));
  if (!found.every((value) => value > 0 && value < Infinity)) return undefined;
  return { margins: found.slice(0, QUANTILES), oddness: found.slice(QUANTILES) };
}
