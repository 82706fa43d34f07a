/** How numbers and reasons are said, on the page and in the worker. */

/** A share of 0 to 1. */
export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
