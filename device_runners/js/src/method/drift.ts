/**
 * Following the features as they drift, so that what was learned on the old ones stays valid.
 *
 * The drift is visible on the task's own pictures, seen by the network before and after, and to first order it is
 * linear: estimated there, it is undone for the old heads and applied to the old class statistics. After learnable drift
 * compensation (Gomez-Villa et al., arXiv 2407.08536), in closed form.
 */

import { ClassStatistics } from './heads.js';
import { solveSymmetric, timesTransposed, trace, transposed } from './matrix.js';

// Share of the mean feature energy that pulls towards "no drift" where the task's pictures say nothing.
const RIDGE = 0.01;

/** Sums from which both maps are estimated; feed it the features of the same pictures, before and after. */
export class DriftEstimate {
  private readonly before: Float64Array;
  private readonly after: Float64Array;
  private readonly across: Float64Array;

  constructor(private readonly features: number) {
    this.before = new Float64Array(features ** 2);
    this.after = new Float64Array(features ** 2);
    this.across = new Float64Array(features ** 2);
  }

  /** One batch: `before` and `after` `(n, f)`. */
  add(before: Float32Array, after: Float32Array): void {
    const f = this.features;
    const n = before.length / f;
    const old = transposed(before, n, f);
    const now = transposed(after, n, f);
    accumulate(this.before, timesTransposed(old, old, f, f, n));
    accumulate(this.after, timesTransposed(now, now, f, f, n));
    accumulate(this.across, timesTransposed(now, old, f, f, n));
  }

  /** Least squares with `ridge * trace / f` on the distance from the identity. */
  fit(ridge = RIDGE): Drift {
    const f = this.features;
    return new Drift(
      f,
      towardsIdentity(this.before, this.across, f, ridge),
      towardsIdentity(this.after, transposed(this.across, f, f), f, ridge),
    );
  }
}

/** `after = before @ forward.T` and `before = after @ backward.T`, each `(f, f)`, to first order. */
export class Drift {
  constructor(
    private readonly features: number,
    readonly forward: Float64Array,
    readonly backward: Float64Array,
  ) {}

  /** A head's weight `(n, f)` for the features after, giving the logits that it gave before. */
  head(weight: Float32Array): Float32Array {
    const f = this.features;
    const columns = transposed(this.backward, f, f);
    return Float32Array.from(timesTransposed(Float64Array.from(weight), columns, weight.length / f, f, f));
  }

  /** Class statistics as the features after would have given them; counts stay. */
  statistics(old: ClassStatistics): ClassStatistics {
    const f = this.features;
    // gram is symmetric, so forward gram forward^T = (forward gram) forward^T by two products with a transpose.
    const half = timesTransposed(this.forward, old.gram, f, f, f);
    const gram = timesTransposed(half, this.forward, f, f, f);
    const sums = timesTransposed(old.sums, this.forward, old.classes.length, f, f);
    return new ClassStatistics(f, old.classes, gram, sums, old.counts, old.temperature);
  }
}

function accumulate(sum: Float64Array, part: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + part[i]!;
}

/** `M = argmin sum |target - M source|^2 + a |M - I|^2`; `across` is sum target source^T. */
function towardsIdentity(source: Float64Array, across: Float64Array, f: number, ridge: number): Float64Array {
  // Exactly no drift leaves exactly the identity: the right-hand side is then zero.
  const pull = (ridge * trace(source, f)) / f || 1;
  const loaded = source.slice();
  for (let i = 0; i < f; i++) loaded[i * f + i] = loaded[i * f + i]! + pull;
  const difference = across.map((value, at) => value - source[at]!);
  const change = transposed(solveSymmetric(loaded, transposed(difference, f, f), f, f), f, f);
  for (let i = 0; i < f; i++) change[i * f + i] = change[i * f + i]! + 1;
  return change;
}
