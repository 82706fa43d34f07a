/** Records and progress checkpoints are held to what Python says of them: tests/contract/states.json. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PROGRESS_SCHEMA } from '../src/contract/progressSchema.js';
import { RECORD_SCHEMA } from '../src/contract/recordSchema.js';
import { StateError } from '../src/errors.js';
import { dumps, type Json, JsonNumber, parseJson } from '../src/formats/json.js';
import { violation } from '../src/formats/schema.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { readRecord, recordBytes, seal } from '../src/state/record.js';

type Place = { [key: string]: Json };
interface Recorded {
  readonly value: Place;
  readonly edits: Place[];
}

const RECORDED = parseJson(
  readFileSync(new URL('../../../tests/contract/states.json', import.meta.url), 'utf8'),
) as unknown as Record<'record' | 'progress', Recorded>;

/** A copy of a value with an edit made. */
function edited(value: Place, edit: Place): Place {
  const copy = parseJson(dumps(value)) as Place;
  const path = (edit.path as Json[]).map((step) =>
    step instanceof JsonNumber ? step.text : step,
  ) as string[];
  const last = path.pop()!;
  let place = copy;
  for (const step of path) place = place[step] as Place;
  if (Object.hasOwn(edit, 'value')) place[last] = edit.value!;
  else delete place[last];
  return copy;
}

describe.each([
  ['record', RECORD_SCHEMA],
  ['progress', PROGRESS_SCHEMA],
] as const)('a %s that was edited', (name, schema) => {
  const { value, edits } = RECORDED[name];
  it('is refused where Python refuses it, in the same words', () => {
    const found = edits.map((edit) => violation(edited(value, edit), schema) ?? null);
    expect(found).toEqual(edits.map((edit) => edit.refused));
    expect(found.length).toBeGreaterThan(50);
  });
});

it('reading a record says the same, and writes what it read', async () => {
  const storage = new MemoryStorage();
  const path = 'generations/000002.json';
  for (const edit of RECORDED.record.edits) {
    const raw = edited(RECORDED.record.value, edit);
    await storage.replace(path, seal(raw));
    const refused = edit.refused as string | null;
    if (refused === null) {
      const { check: _, ...again } = parseJson(
        new TextDecoder().decode(recordBytes(await readRecord(storage, path))),
      ) as Place;
      for (const [field, kept] of Object.entries(raw)) {
        if (!['tasks', 'min_reader', 'min_writer'].includes(field))
          expect(dumps(again[field]!)).toBe(dumps(kept));
      }
    } else if (!refused.includes('min_')) {
      await expect(readRecord(storage, path)).rejects.toThrow(StateError);
      await expect(readRecord(storage, path)).rejects.toThrow(`: ${refused}.`);
    }
  }
});
