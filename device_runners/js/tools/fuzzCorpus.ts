/** What fuzzing begins with: a bundle of the fixtures, and inputs that earlier runs found worth keeping. */

import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

async function filesIn(folder: string): Promise<Map<string, Uint8Array>> {
  const names = (await readdir(folder)).sort();
  const read = names.map(async (name) => [name, new Uint8Array(await readFile(join(folder, name)))] as const);
  return new Map(await Promise.all(read));
}

/** The files of the fixtures' bundle: npm run fixtures. */
export function fixtureFiles(): Promise<Map<string, Uint8Array>> {
  return filesIn(resolve('out/fixtures/bundle'));
}

/** The kept inputs of a target. */
export async function corpusOf(name: string): Promise<Uint8Array[]> {
  const folder = resolve('test/corpus', name);
  return existsSync(folder) ? [...(await filesIn(folder)).values()] : [];
}
