/** Long computations in turns, so that what else the thread has to do is done too. */

import { afterMessages, now } from '../engine.js';

// Browsers call a task of more than 50 ms a long one (W3C, Long Tasks).
const TURN_MS = 50;

let since = 0;

/**
 * To be awaited between computations: every 50 ms it lets the event loop run, for messages such as a wish to stop. In
 * WebAssembly without threads, awaiting a run of ONNX Runtime does not.
 */
export async function takeTurns(): Promise<void> {
  if (now() - since < TURN_MS) return;
  await new Promise<void>((resume) => afterMessages(resume));
  since = now();
}
