/** The kinds of conformance cases that are a fleet's (docs/conformance.md), each asked of this runner. */

import { pack, unpack } from '../src/fleet/packing.js';
import { alike, apart, outOfMeasure, type Part, Space } from '../src/method/consensus.js';
import { Contribution, ContributionSum } from '../src/method/contributions.js';
import { ClassStatistics } from '../src/method/heads.js';
import { columnSquares, timesTransposed, transposed } from '../src/method/matrix.js';
import { PRIOR_IMAGES } from '../src/network/predicting.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';

async function packing(given: Given): Promise<Results> {
  const { bits } = given.settings as { bits: number };
  const mean = floats(given, 'mean');
  const f = mean.length;
  const blob = pack(new Contribution(numbers(given, 'count')[0]!, mean, floats(given, 'factor')), bits);
  const view = new DataView(blob.buffer, blob.byteOffset);
  const rows = view.getUint32(8, true);
  const read = (start: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => view.getFloat32(20 + 4 * (start + i), true));
  const begin = 20 + 4 * (2 * f + rows);
  const width = Math.ceil((f * bits) / 8);
  const levels = Array.from({ length: rows * f }, (_, at) => {
    const [i, j] = [Math.floor(at / f), at % f];
    const byte = blob[begin + i * width + Math.floor((j * bits) / 8)]!;
    return (bits === 8 ? byte : j % 2 ? byte >> 4 : byte & 15) - 2 ** (bits - 1);
  });
  return new Map([
    ['levels', result([rows, f], levels)],
    ['of_row', result([rows], read(2 * f, rows))],
    ['of_feature', result([f], read(f, f))],
    ['mean', result([f], read(0, f))],
    ['count', result([1], [view.getFloat64(0, true)])],
    ['read', result([rows, f], unpack(blob, f).factor)],
  ]);
}

async function together(given: Given): Promise<Results> {
  const f = tensor(given, 'mean/0').shape[0]!;
  const total = new ContributionSum(f);
  for (const [number, count] of numbers(given, 'counts').entries()) {
    const [mean, factor] = [floats(given, `mean/${number}`), floats(given, `factor/${number}`)];
    total.addContribution(new Contribution(count, mean, factor));
  }
  const { count, mean, factor } = total.total();
  const columns = transposed(factor, factor.length / f, f);
  return new Map([
    ['count', result([1], [count])],
    ['mean', result([f], mean)],
    ['spreads', result([f], columnSquares(Float64Array.from(factor), f))],
    ['scatter', result([f, f], timesTransposed(columns, columns, f, f, factor.length / f))],
  ]);
}

async function consensus(given: Given): Promise<Results> {
  const { classes, devices } = given.settings as { classes: string[]; devices: number };
  const f = tensor(given, 'gram').shape[0]!;
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  const known = new ClassStatistics(f, classes, gram!, sums!, counts!);
  const [device, label, images] = ['device', 'class', 'images'].map((name) => numbers(given, name));
  const [means, variances] = ['means', 'variances'].map((name) => floats(given, name));
  const parts = images!.map((count, i): Part => {
    const row = (table: Float32Array): Float32Array => table.slice(i * f, (i + 1) * f);
    const name = classes[label![i]!]!;
    return { device: String(device![i]), name, count, mean: row(means!), variance: row(variances!) };
  });
  const far = apart(parts, Space.of(known, PRIOR_IMAGES)!);
  const out = outOfMeasure(parts);
  const each = Array.from({ length: devices }, (_, one) => String(one));
  const pairs = alike(known, PRIOR_IMAGES);
  const table = classes.flatMap((one) =>
    classes.map((other) => Number(pairs.some(([a, b]) => a === one && b === other))),
  );
  return new Map([
    [
      'apart',
      result(
        [devices],
        each.map((one) => Number(far.has(one))),
      ),
    ],
    [
      'out',
      result(
        [devices],
        each.map((one) => Number(out.has(one))),
      ),
    ],
    ['alike', result([classes.length, classes.length], table)],
  ]);
}

export const FLEETS: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  packing,
  together,
  consensus,
};
