/**
 * Heads over features of which an upgrade keeps a part: as nearly their old logits as can be, on what is known.
 *
 * A head goes to the next bundle behind the way back, which was fitted to images of the base. Where that loses much of what
 * the head says, the device's own statistics tell more. csk_sdk/method/carried_heads.py; docs/decisions/0032-upgrade.md.
 */

import { UPGRADE } from '../contract/thresholds.js';
import { covarianceWithin, freedomOf, meansOf, roundingOf } from './covariance.js';
import type { FeatureMap } from './featureMap.js';
import type { ClassStatistics } from './heads.js';
import type { HeadArrays } from './logistic.js';
import { add, difference, dot, identity, timesTransposed, transposed } from './matrix.js';
import { SymmetricSystem, solveSymmetric } from './symmetric.js';

/** Where less of a head's logits is behind the way back, it is fitted anew. */
export const TELLS = UPGRADE.tells;

/** The mean of classes' means, and what lies between by class, over the root of how many they are: `(k, before)`. */
interface Apart {
  readonly mean: Float64Array;
  readonly rows: Float64Array;
  readonly k: number;
}

/**
 * By `statistics` over the old features: images lie around their class's mean, each class being as likely. `S` is the covariance
 * within classes, shrunk as if some more images had shown no correlation, `A` the way to the new features, `U` the covariance of
 * what it leaves, and `D` what lies between the classes: old features vary as `C = S + D'D`, and new ones as `A C A' + U`. The
 * base's images, which a map is fitted to, do not show all that it leaves of other classes: a hundredth of each new feature's
 * variance is in `U` besides.
 */
export class CarriedHeads {
  private readonly within: Float64Array;
  /** `S A'`, transposed: `(after, before)`. */
  private readonly cross: Float64Array;
  private readonly left: Float64Array;
  private readonly system: SymmetricSystem;

  constructor(
    private readonly way: FeatureMap,
    private readonly statistics: ClassStatistics,
  ) {
    const { before, after } = way;
    const shrinkage = UPGRADE.priorImages / (freedomOf(statistics.counts) + UPGRADE.priorImages);
    this.within = covarianceWithin(statistics);
    for (let at = 0; at < this.within.length; at++) {
      if (at % (before + 1)) this.within[at] = (1 - shrinkage) * this.within[at]!;
    }
    const columns = way.through(this.within, before);
    this.cross = transposed(columns, before, after);
    const varied = way.through(this.cross, after);
    this.left = way.left();
    add(varied, this.left);
    const rounding = roundingOf(statistics);
    const unseen = way.exact ? 0 : UPGRADE.unseen;
    for (let j = 0; j < after; j++) {
      varied[j * after + j] = (1 + unseen) * (varied[j * after + j]! + rounding);
    }
    this.system = new SymmetricSystem(varied, after);
  }

  /** The share of the variance of a head's logits, each less their mean, that is the same behind the way back. */
  told(weight: Float32Array, classes: readonly string[]): number {
    const { before, after } = this.way;
    const n = weight.length / before;
    const own = Float64Array.from(weight);
    for (let j = 0; j < before; j++) {
      let sum = 0;
      for (let c = 0; c < n; c++) sum += own[c * before + j]!;
      for (let c = 0; c < n; c++) own[c * before + j] = own[c * before + j]! - sum / n;
    }
    const apart = this.apart(classes);
    const behind = this.way.behind(own, n);
    const lost = difference(own, this.way.backThrough(behind, n));
    const total = this.energy(own, n, apart);
    const noise = dot(timesTransposed(behind, this.left, n, after, after), behind);
    return total > 0 ? 1 - (this.energy(lost, n, apart) + noise) / total : 1;
  }

  /** The head over the new features with the least squares to the old one's logits: `W C A' (A C A' + U)^-1`. */
  head({ weight, bias }: HeadArrays, classes: readonly string[]): HeadArrays {
    const { before, after } = this.way;
    const n = bias.length;
    const { mean, rows, k } = this.apart(classes);
    const own = Float64Array.from(weight);
    const moved = this.way.through(rows, k);
    const right = timesTransposed(own, this.cross, n, after, before);
    const between = timesTransposed(own, rows, n, k, before);
    add(right, timesTransposed(between, transposed(moved, k, after), n, after, k));
    // Behind the inverse of A S A' + U, which is that of all heads, D counts as few rows (Woodbury).
    const wanted = this.system.solveRows(right, n);
    const turned = this.system.solveRows(moved, k);
    const inner = identity(k);
    add(inner, timesTransposed(turned, moved, k, k, after));
    const over = solveSymmetric(inner, timesTransposed(moved, wanted, k, n, after), k, n);
    const found = difference(
      wanted,
      timesTransposed(transposed(over, k, n), transposed(turned, k, after), n, after, k),
    );
    const there = this.way.point(mean);
    const [was, is] = [timesTransposed(own, mean, n, 1, before), timesTransposed(found, there, n, 1, after)];
    return { weight: Float32Array.from(found), bias: bias.map((value, c) => value + was[c]! - is[c]!) };
  }

  /** Of classes of which not each was counted (one of two that cannot be told apart), those of all that is known. */
  private apart(classes: readonly string[]): Apart {
    const { features: f, counts, sums, classes: names } = this.statistics;
    const counted = new Set(names.filter((_, c) => counts[c]! > 0));
    const chosen = classes.every((name) => counted.has(name)) ? new Set(classes) : counted;
    const kept = counts.map((count, c) => (chosen.has(names[c]!) ? count : 0));
    const rows = meansOf({ features: f, counts: kept, sums });
    const k = rows.length / f;
    const mean = new Float64Array(f);
    for (let at = 0; at < rows.length; at++) mean[at % f] = mean[at % f]! + rows[at]! / k;
    for (let at = 0; at < rows.length; at++) rows[at] = (rows[at]! - mean[at % f]!) / Math.sqrt(k);
    return { mean, rows, k };
  }

  /** The sum of `r C r'` over `n` rows. */
  private energy(rows: Float64Array, n: number, apart: Apart): number {
    const { before } = this.way;
    const between = timesTransposed(rows, apart.rows, n, apart.k, before);
    return dot(timesTransposed(rows, this.within, n, before, before), rows) + dot(between, between);
  }
}
