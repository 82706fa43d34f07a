/**
 * `npm run steps -- BUNDLE...`: a training step on one thread, in Python, Node and Chromium, of the same bundle.
 *
 * The three take turns, and of each the fastest step counts, since other work on the machine only adds.
 */

import { execFileSync } from 'node:child_process';
import { basename, resolve } from 'node:path';
import { FolderBundle } from '../src/node/folderBundle.js';
import { inBrowser } from './inBrowser.js';
import { FIXTURES, HERE, runtime } from './onNode.js';
import type { Page } from './page.js';
import { type StepTimes, timeSteps } from './stepTimes.js';

declare const page: Page;

const TURNS = 3;
const STEPS = 40;

function inPython(bundle: string): StepTimes {
  const program = process.env.PYTHON ?? resolve(HERE, '../../.venv/bin/python');
  const env = { ...process.env, OMP_NUM_THREADS: '1' };
  const arguments_ = [resolve(HERE, 'tools/step_times.py'), bundle, String(STEPS)];
  const said = execFileSync(program, arguments_, { env, encoding: 'utf8' });
  return { outside: 0, ...(JSON.parse(said) as { step: number; steps: number }) };
}

function faster(one: StepTimes | undefined, other: StepTimes): StepTimes {
  return one && one.step < other.step ? one : other;
}

const bundles = process.argv.slice(2);
console.log(
  '| bundle | Python | Node | of Python | JavaScript share | browser | of Python | JavaScript share |',
);
console.log('|---|---|---|---|---|---|---|---|');
for (const given of bundles.length ? bundles : [resolve(FIXTURES, 'bundle')]) {
  const bundle = resolve(given);
  let [python, node, browser]: (StepTimes | undefined)[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    python = faster(python, inPython(bundle));
    node = faster(node, await timeSteps(new FolderBundle(bundle), runtime, STEPS));
    browser = faster(
      browser,
      await inBrowser({ bundle }, (tab) => tab.evaluate((count) => page.steps(count), STEPS)),
    );
  }
  const base = python!.step;
  const cells = [node!, browser!].flatMap(({ step, outside }) => [
    `${step.toFixed(1)} ms`,
    (step / base).toFixed(2),
    `${((100 * outside) / step).toFixed(1)} %`,
  ]);
  console.log(`| ${[basename(bundle), `${base.toFixed(1)} ms`, ...cells].join(' | ')} |`);
}
