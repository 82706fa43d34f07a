/** What the commands that time Python and JavaScript side by side share. */

import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { HERE } from './onNode.js';

/** Milliseconds of CPU that this process took, all its threads together. */
export function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A script of the Python SDK that answers each line of its input with a line of JSON. */
export class PythonScript {
  private readonly child;
  private readonly lines;

  constructor(
    private readonly name: string,
    ...args: readonly string[]
  ) {
    const program = process.env.PYTHON ?? resolve(HERE, '../../.venv/bin/python');
    const env = { ...process.env, OMP_NUM_THREADS: '1' };
    this.child = spawn(program, [resolve(HERE, 'tools', name), ...args], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.on('error', (error) => {
      console.error(`${program} cannot be run (${error.message}): set PYTHON to one that has csk-sdk.`);
      process.exit(1);
    });
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
  }

  async ask(question: string): Promise<unknown> {
    this.child.stdin.write(`${question}\n`);
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`${this.name} ended before it had answered`);
    return JSON.parse(value);
  }

  close(): void {
    this.child.stdin.end();
  }
}
