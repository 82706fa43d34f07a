import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { corpusOf, fixtureFiles } from '../tools/fuzzCorpus.js';
import { targetsOf } from '../tools/fuzzTargets.js';
import { mutated } from '../tools/mutations.js';

const TARGETS = targetsOf(await fixtureFiles());

/** `npm run fuzz` for minutes; here what it kept, and a few hundred more. */
describe.each(Object.entries(TARGETS))('a reader of bytes from outside: %s', (name, target) => {
  it('reads what is right', async () => {
    expect(await target.read(target.seeds[0]!)).toContain('fine');
  });

  it('says what it says of whatever was kept', async () => {
    const kept = await corpusOf(name);
    expect(kept.length).toBeGreaterThan(0);
    for (const input of kept) expect((await target.read(input)).length).toBeGreaterThan(0);
  });

  it('throws nothing but what it says that it throws', { timeout: 120_000 }, async () => {
    const inputs = [...target.seeds, ...(await corpusOf(name))];
    const property = fc.asyncProperty(mutated(inputs), async (input) => void (await target.read(input)));
    await fc.assert(property, { numRuns: 300, seed: 16 });
  });
});
