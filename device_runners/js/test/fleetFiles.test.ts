/** Files of a fleet from anywhere: what Python refuses is refused here, in the same sentence; damage is noticed. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { FleetError } from '../src/errors.js';
import { knowledgeIn } from '../src/fleet/applying.js';
import { FleetFile } from '../src/fleet/files.js';
import { concatenate, textOf, utf8 } from '../src/formats/bytes.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { BUNDLE, FIXTURES } from './fixtures.js';

const FLEET = join(FIXTURES, 'fleet');

interface Tried {
  base: string;
  metadata: Record<string, string>;
  sentence: string | null;
}

function headerOf(whole: Uint8Array): { header: Record<string, unknown>; data: Uint8Array } {
  const length = Number(new DataView(whole.buffer, whole.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(textOf(whole.subarray(8, 8 + length))) as Record<string, unknown>;
  return { header, data: whole.subarray(8 + length) };
}

function fileOf(header: object, data: Uint8Array): Uint8Array {
  // As Python writes it: half a surrogate pair is told by an escape.
  const text = utf8(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  return concatenate([length, text, data]);
}

async function refusal(bytes: Uint8Array, bundle: Bundle): Promise<string | null> {
  try {
    knowledgeIn(await FleetFile.open(bytes, 'The file'), bundle);
  } catch (error) {
    if (!(error instanceof FleetError)) throw error;
    return error.message;
  }
  return null;
}

/** Without the engine's own words. */
const sentence = (said: string | null): string | null => said?.replace(/no JSON \(.*\)/, 'no JSON') ?? null;

describe('files of a fleet', () => {
  it('are refused in the sentences of Python', async () => {
    const bundle = await Bundle.open(new FolderBundle(BUNDLE));
    const tried = JSON.parse(readFileSync(join(FLEET, 'refused.json'), 'utf8')) as Tried[];
    const bases = new Map(
      [...new Set(tried.map(({ base }) => base))].map((base) => [
        base,
        headerOf(new Uint8Array(readFileSync(join(FLEET, `${base}.cskc`)))),
      ]),
    );
    const differ: unknown[] = [];
    for (const { base, metadata, sentence: theirs } of tried) {
      const { header, data } = bases.get(base)!;
      const mine = await refusal(fileOf({ ...header, __metadata__: metadata }, data), bundle);
      if (sentence(mine) !== sentence(theirs)) differ.push({ base, metadata, mine, theirs });
      else if (mine) expect(mine).not.toMatch(/\n/);
    }
    expect(differ.slice(0, 3)).toEqual([]);
    expect(tried.length).toBeGreaterThan(1000);
  }, 120_000);

  it('are whole, or refused', async () => {
    const bundle = await Bundle.open(new FolderBundle(BUNDLE));
    const good = new Uint8Array(readFileSync(join(FLEET, 'merged/plain.cskc')));
    expect(await refusal(good, bundle)).toBeNull();
    const refused = async (bytes: Uint8Array, what: string): Promise<void> => {
      expect(await refusal(bytes, bundle), what).toMatch(/^The file.*\.$/);
    };
    for (let i = 0; i < 400; i++) {
      const place = Math.floor((i / 399) * (good.length - 1));
      const damaged = good.slice();
      damaged[place] = damaged[place]! ^ 4;
      await refused(damaged, `byte ${place}`);
    }
    for (const length of [0, 7, 8, 100, good.length - 1])
      await refused(good.subarray(0, length), `${length} bytes`);
  });
});
