/** Rounding as Python's `round` does it, so that counts are the same here and there. */

/** The nearest whole number; of two that are equally near, the even one. */
export function roundHalfToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return below + (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? 1 : 0);
}
