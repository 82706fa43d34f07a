/**
 * States of the digits tasks on their way through this platform: one of its own to go elsewhere, and every one that was
 * begun elsewhere, opened and continued (docs/conformance.md).
 *
 * They lie in `states/` of the digits workspace: `NAME/` is a state as `csk-sdk` has it, and `NAME.json` what its writer
 * says of it.
 */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { SHARED_TASKS } from './digits.js';
import type { Files, Visited } from './sharedDigits.js';

const FIRST = '-first';
const HERE = ['node', 'browser'];

/** A visit to a storage of this platform, into which `files` were carried, and from which the result was carried out. */
export type Visit = (
  name: string,
  files: Files | undefined,
  tasks: readonly string[],
) => Promise<Visited & { readonly files: Files; readonly sha256: Files }>;

/** Learn both tasks here, leave the first for others, continue what others left; how well the first life went. */
export async function travel(
  workspace: string,
  platform: string,
  visit: Visit,
): Promise<{ accuracy: number; seconds: number }> {
  const states = join(workspace, 'states');
  const [first, last] = SHARED_TASKS as [string, string];
  const visited = async (name: string, files: Files | undefined, tasks: readonly string[]) => {
    const { files: content, ...said } = await visit(name, files, tasks);
    await writeState(join(states, name), content);
    await writeFile(join(states, `${name}.json`), `${JSON.stringify({ platform, ...said }, null, 1)}\n`);
    return said;
  };
  const { told, seconds } = await visited(platform, undefined, SHARED_TASKS);
  await visited(`${platform}${FIRST}`, undefined, [first]);
  for (const name of (await readdir(states)).sort()) {
    const origin = name.slice(0, -FIRST.length);
    // What runners in JavaScript left is for others; that Node's goes on in a browser is tested once.
    if (!name.endsWith(FIRST) || origin === platform || HERE.indexOf(origin) > HERE.indexOf(platform))
      continue;
    await visited(`${origin}-${platform}`, await readState(join(states, name)), [last]);
  }
  return { accuracy: told.accuracy, seconds };
}

async function readState(folder: string): Promise<Files> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const files: Record<string, string> = {};
  for (const path of paths) files[relative(folder, path)] = (await readFile(path)).toString('base64');
  return files;
}

async function writeState(folder: string, files: Files): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), Buffer.from(content, 'base64'));
  }
}
