/** What the command-line tools share: the runtime of this machine, and where things are. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { resolve } from 'node:path';
import * as ort from 'onnxruntime-node';

/** device_runners/js; the tools run in it. */
export const HERE = process.cwd();
/** The digits task as the Python SDK prepared and learned it: tools/fixtures.py. */
export const FIXTURES = resolve(HERE, 'out/fixtures');

export const runtime = ort;

/** Version of an installed package. */
export function versionOf(name: string): string {
  const entry = createRequire(resolve(HERE, 'package.json')).resolve(name);
  const root = entry.slice(0, entry.lastIndexOf(`${name}/`) + name.length);
  return (JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string }).version;
}

export function machine(): string {
  return `${platform()} ${arch()}, Node ${process.versions.node}`;
}

/** A folder from the environment, else one of the repository's. */
export function folder(variable: string, otherwise: string): string {
  return resolve(process.env[variable] ?? resolve(HERE, otherwise));
}
