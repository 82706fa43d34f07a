import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseManifest } from '../src/bundle/manifest.js';
import { checkManifest } from '../src/bundle/manifestChecks.js';
import { BundleError } from '../src/errors.js';
import { sha256 } from '../src/formats/bytes.js';
import { dumps, type Json, JsonNumber, parseJson } from '../src/formats/json.js';
import { DEEPEST, parseShallow } from '../src/formats/schema.js';

type Place = { [key: string]: Json };

const RECORDED = parseJson(
  readFileSync(new URL('../../../tests/contract/manifests.json', import.meta.url), 'utf8'),
) as { manifest: Place; edits: Place[] };

/** The recorded manifest with an edit made, as text, sealed as a builder would. */
function edited(edit: Place): string {
  const manifest = structuredCloneOf(RECORDED.manifest) as Place;
  const path = (edit.path as Json[]).map((step) =>
    step instanceof JsonNumber ? step.text : step,
  ) as string[];
  const last = path.pop()!;
  let place: Place = manifest;
  for (const step of path) place = place[step] as Place;
  if (Object.hasOwn(edit, 'value')) place[last] = edit.value!;
  else delete place[last];
  const text = `${dumps({ ...manifest, seal: '0'.repeat(64) }, { indent: 1 })}\n`;
  return text.replaceAll('0'.repeat(64), sha256(text));
}

function structuredCloneOf(value: Json): Json {
  if (Array.isArray(value)) return value.map(structuredCloneOf);
  if (value === null || typeof value !== 'object' || value instanceof JsonNumber) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, structuredCloneOf(one)]));
}

function refusal(text: string): string | null {
  try {
    checkManifest(parseManifest(text, 'manifest.json'), 'manifest.json');
    return null;
  } catch (error) {
    expect(error).toBeInstanceOf(BundleError);
    return (error as Error).message;
  }
}

describe('a manifest that was edited and sealed again', () => {
  it('is refused where Python refuses it, in the same words', () => {
    const found = RECORDED.edits.map((edit) => refusal(edited(edit)));
    expect(found).toEqual(RECORDED.edits.map((edit) => edit.refused));
    expect(found.length).toBeGreaterThanOrEqual(300);
  });

  it.each([
    'NaN',
    '[Infinity]',
    '{',
    '',
    '\ufeff{}',
    '['.repeat(DEEPEST + 1) + ']'.repeat(DEEPEST + 1),
    '01',
  ])('is no JSON: %j', (text) => {
    expect(() => parseShallow(text)).toThrow();
    expect(refusal(text)).toBe('manifest.json is not valid JSON; build the bundle again.');
  });

  it('may have brackets in its texts', () => {
    expect(parseShallow(`"\\"${'['.repeat(100)}"`)).toBe(`"${'['.repeat(100)}`);
  });
});
