/** A matrix of nearly low rank as the products of a few of its own rows and columns. */

import { subtractRow } from './matrix.js';

/** As columns of `left` and `right`, both as rows here, `(n, f)`: the matrix is nearly `left^T right`. */
export interface Crosses {
  readonly left: Float64Array;
  readonly right: Float64Array;
  readonly n: number;
}

/**
 * Adaptive cross approximation (Bebendorf, "Approximation of boundary element matrices", Numer. Math. 86, 2000) of `a` less the
 * identity, both `(f, f)`: until no number of a row is above `least`, or there are `most`. It reads these rows and columns only, so
 * that it may end too early: whoever uses it looks at what it leaves.
 */
export function crosses(a: Float64Array, f: number, least: number, most: number): Crosses {
  const left = new Float64Array(most * f);
  const right = new Float64Array(most * f);
  const taken = new Uint8Array(f);
  let i = 0;
  for (let j = 1; j < f; j++) if (Math.abs(a[j * f + j]! - 1) > Math.abs(a[i * f + i]! - 1)) i = j;
  for (let n = 0; n < most; n++) {
    const row = right.subarray(n * f, (n + 1) * f);
    const column = left.subarray(n * f, (n + 1) * f);
    row.set(a.subarray(i * f, (i + 1) * f));
    row[i] = row[i]! - 1;
    for (let k = 0; k < n; k++) subtractRow(row, right, k * f, left[k * f + i]!);
    taken[i] = 1;
    const j = largest(row);
    const pivot = row[j]!;
    if (Math.abs(pivot) <= least) return { left, right, n };
    for (let at = 0; at < f; at++) column[at] = a[at * f + j]!;
    column[j] = column[j]! - 1;
    for (let k = 0; k < n; k++) subtractRow(column, left, k * f, right[k * f + j]!);
    for (let at = 0; at < f; at++) column[at] = column[at]! / pivot;
    i = largest(column, taken);
  }
  return { left, right, n: most };
}

/** Where the largest is, whatever its sign; not where something is `taken`. */
function largest(values: Float64Array, taken?: Uint8Array): number {
  let [best, most] = [0, -1];
  for (let at = 0; at < values.length; at++) {
    const size = Math.abs(values[at]!);
    if (size > most && !taken?.[at]) [best, most] = [at, size];
  }
  return best;
}
