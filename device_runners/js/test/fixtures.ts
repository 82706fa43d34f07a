/** What tests share: the digits bundle that the Python SDK built, and images to learn. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import * as ort from 'onnxruntime-node';
import { expect } from 'vitest';
import { MemoryBundle } from '../src/bundle/source.js';
import type { Tensors } from '../src/formats/tensors.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { type Digits, only, readDigits } from '../tools/digits.js';

export const runtime = ort;
export const FIXTURES = resolve('out/fixtures');
export const BUNDLE = join(FIXTURES, 'bundle');
if (!existsSync(BUNDLE)) throw new Error('run npm run fixtures first');

let read: Promise<Digits> | undefined;

export function digits(): Promise<Digits> {
  read ??= readDigits(new FolderBundle(FIXTURES));
  return read;
}

/** A task of the demo, with at most `count` images. */
export async function digitsTask(name: string, count = 1000) {
  const { names, tasks, train } = await digits();
  const members = tasks[name]!;
  const { pictures, labels } = only(train, members);
  return {
    name,
    classes: members.map((digit) => names[digit]!),
    pictures: pictures.slice(0, count),
    labels: labels.slice(0, count),
  };
}

/** The bundle's files, to be tampered with. */
export async function bundleFiles(): Promise<Map<string, Uint8Array>> {
  const names = await readdir(BUNDLE);
  const files = names.map(
    async (name) => [name, new Uint8Array(await readFile(join(BUNDLE, name)))] as const,
  );
  return new Map(await Promise.all(files));
}

export async function memoryBundle(): Promise<MemoryBundle> {
  return new MemoryBundle(await bundleFiles(), 'bundle');
}

/** A state that lies in a folder, in memory. */
export async function stateIn(path: string): Promise<MemoryStorage> {
  const [from, to] = [new FolderStorage(path), new MemoryStorage()];
  for (const folder of ['', 'generations', 'blocks', 'ledger', 'scores']) {
    for (const file of await from.list(folder)) {
      const place = folder ? `${folder}/${file}` : file;
      const content = await from.read(place).catch(() => undefined);
      if (content) await to.replace(place, content);
    }
  }
  return to;
}

/** What is in a state's tensors, but for rounding: those that are `loose` to a fifth of the largest number, others to 1e-4. */
export function expectSame(mine: Tensors, other: Tensors, loose = /^$/): void {
  expect([...mine.keys()].sort()).toEqual([...other.keys()].sort());
  for (const [name, tensor] of other) {
    const own = mine.get(name)!;
    expect(own.shape, name).toEqual(tensor.shape);
    const [values, wanted] = [own, tensor].map(({ data }) =>
      Array.from<number | bigint, number>(data, Number),
    );
    const largest = wanted!.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
    const off = wanted!.reduce((most, value, at) => Math.max(most, Math.abs(value - values![at]!)), 0);
    expect(off / largest, name).toBeLessThan(loose.test(name) ? 0.2 : 1e-4);
  }
}

export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'csk-sdk-js-'));
}

/** Run a script with the Python that made the fixtures; its standard output. */
export function python(script: string, ...argv: string[]): string {
  const program = process.env.PYTHON ?? resolve('../../.venv/bin/python');
  const done = spawnSync(program, ['-c', script, ...argv], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`${program}: ${done.error?.message ?? done.stderr}`);
  return done.stdout;
}

/** One epoch that trains the centers of whatever is there. */
export const QUICKLY = {
  epochs: 1,
  patience: 0,
  threads: 1,
  fewShot: 0,
  train: 'centers',
  labelCheck: false,
} as const;
