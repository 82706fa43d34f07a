import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { script } from './bareEngine.js';

const PLATFORM = { linux: 'linux64-bin/hermesc', darwin: 'osx-bin/hermesc', win32: 'win64-bin/hermesc.exe' };
const hermesc = join(
  'node_modules/hermes-compiler/hermesc',
  PLATFORM[process.platform as keyof typeof PLATFORM] ?? '',
);
// For Linux there is a compiler for x86-64 only.
const there = existsSync(hermesc) && (process.platform !== 'linux' || process.arch === 'x64');

it.skipIf(!there)("Hermes' compiler takes the runner, and the part for phones", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'csk-sdk-hermes-'));
  try {
    writeFileSync(join(folder, 'runner.js'), await script('test/shipped.ts'));
    const out = join(folder, 'runner.hbc');
    const done = spawnSync(hermesc, ['-O', '-emit-binary', '-out', out, join(folder, 'runner.js')], {
      encoding: 'utf8',
    });
    expect(done.stderr.split('\n').filter((line) => line.includes('error:'))).toEqual([]);
    expect(done.status).toBe(0);
    expect(statSync(out).size).toBeGreaterThan(100_000);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
