/**
 * Fuzz the readers of bytes from outside: npm run fuzz -- MINUTES [--keep]
 *
 * By fast-check: changed inputs, and a counterexample that is shrunk. What a reader says of an input (its sentences, names
 * and numbers aside) and nobody has said before makes that input one to go on from: what is said stands for the branches
 * that were taken. A fuzzer that is guided by coverage would be better, and Jazzer.js 4.0.0 is the one that is kept; its
 * program needs glibc 2.38 and says so on Debian 12, where this has to run.
 *
 * A finding (an error that a reader does not say that it throws, or 5 s for one input) is kept in out/fuzz/, and ends it
 * with status 1. It begins with the seeds and test/corpus/; `--keep` adds there what it found worth to go on from.
 */

import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { corpusOf, fixtureFiles } from './fuzzCorpus.js';
import { type Target, targetsOf } from './fuzzTargets.js';
import { mutated } from './mutations.js';

const OUT = resolve('out/fuzz');
const CORPUS = resolve('test/corpus');
const SLOW = 5_000;
const RUNS = 200;
// Larger ones are not kept in the repository.
const LARGEST_KEPT = 2_000;
const MOST_KEPT = 40;

/** What was said, without names and numbers. */
function kindOf(said: readonly string[]): string {
  // What a runtime quotes of broken JSON is as many sentences as there are inputs.
  const plain = said.map((one) => one.replace(/cannot be read \(.*|is not valid JSON.*/, '#'));
  return plain.map((one) => one.replace(/'[^']*'|"[^"]*"|\[[^\]]*\]|[\d.e+-]+/g, '#')).join(' | ');
}

class Fuzzing {
  readonly known = new Map<string, Uint8Array>();
  tries = 0;
  slowest = 0;

  constructor(
    readonly name: string,
    readonly target: Target,
    private readonly begin: readonly Uint8Array[],
  ) {}

  async run(seconds: number): Promise<boolean> {
    for (const input of this.begin) await this.one(input);
    const end = Date.now() + 1000 * seconds;
    for (let round = 1; Date.now() < end; round++) {
      const inputs = [...this.begin, ...this.known.values()];
      const property = fc.asyncProperty(mutated(inputs), (input) => this.one(input));
      const found = await fc.check(property, { numRuns: RUNS, seed: round, endOnFailure: false });
      if (found.failed) return this.report(found.counterexample![0], found.errorInstance);
    }
    return true;
  }

  private async one(input: Uint8Array): Promise<void> {
    this.tries++;
    const begun = performance.now();
    const kind = kindOf(await this.target.read(input));
    const took = performance.now() - begun;
    this.slowest = Math.max(this.slowest, took);
    if (took > SLOW) throw new Error(`it took ${took.toFixed()} ms`);
    const before = this.known.get(kind);
    if (!before || input.length < before.length) this.known.set(kind, input);
  }

  private report(input: Uint8Array, error: unknown): boolean {
    const path = join(OUT, `finding-${this.name}-${nameOf(input)}`);
    writeFileSync(path, input);
    console.log(`${this.name}: FOUND, ${path}: ${(error as Error)?.stack ?? error}`);
    return false;
  }
}

function nameOf(input: Uint8Array): string {
  return createHash('sha256').update(input).digest('hex').slice(0, 12);
}

const minutes = Number(process.argv[2] ?? 1);
if (!(minutes > 0)) throw new Error('npm run fuzz -- MINUTES [--keep]');
mkdirSync(OUT, { recursive: true });
const targets = Object.entries(targetsOf(await fixtureFiles()));
let fine = true;
for (const [name, target] of targets) {
  const fuzzing = new Fuzzing(name, target, [...target.seeds, ...(await corpusOf(name))]);
  fine = (await fuzzing.run((60 * minutes) / targets.length)) && fine;
  const { tries, known, slowest } = fuzzing;
  console.log(
    `${name}: ${tries} tries, ${known.size} kinds of answers, the slowest in ${slowest.toFixed()} ms`,
  );
  if (process.argv.includes('--keep')) {
    const small = [...known.values()].filter((input) => input.length <= LARGEST_KEPT);
    mkdirSync(join(CORPUS, name), { recursive: true });
    for (const input of small.slice(0, MOST_KEPT)) writeFileSync(join(CORPUS, name, nameOf(input)), input);
  }
}
process.exit(fine ? 0 : 1);
