/** How numbers and reasons are said, on the page and in the worker. */

/** A share of 0 to 1. */
export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

/** `value` with so many digits; what that rounds to zero is not below it. */
export function rounded(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace('-', '') : text;
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
