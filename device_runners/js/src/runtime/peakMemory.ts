/** What learning took of the machine. */

/** The process's peak memory in bytes; 0 where the platform does not say. */
export function peakRssBytes(): number {
  const process = (globalThis as { process?: { resourceUsage?: () => { maxRSS: number } } }).process;
  return (process?.resourceUsage?.().maxRSS ?? 0) * 1024;
}
