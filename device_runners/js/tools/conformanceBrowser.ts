/** `npm run conformance`, second half: the vectors on onnxruntime-web in headless Chromium, into browser.json. */

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { platform } from 'node:os';
import { join } from 'node:path';
import type { Report } from './conformance.js';
import { summary } from './conformance.js';
import { inBrowser, ready } from './inBrowser.js';
import { FIXTURES, folder, versionOf } from './onNode.js';
import type { Page } from './page.js';
import { travel, type Visit } from './travel.js';

declare const page: Page;

const vectors = folder('CONFORMANCE_VECTORS', '../../tests/conformance/vectors');
const out = folder('CONFORMANCE_OUT', '../../out/conformance');

const digits = process.env.CONFORMANCE_DIGITS;
const served = { vectors, fixtures: FIXTURES, ...(digits ? { digits } : {}) };

const report = await inBrowser(served, async (tab, version): Promise<Report> => {
  const described = {
    runtime: `onnxruntime-web ${versionOf('onnxruntime-web')} (wasm)`,
    machine: `${platform()}, Chromium ${version}`,
  };
  const found = await tab.evaluate((about) => page.conformance(about), described);
  if (!(await tab.evaluate(() => page.locks())))
    throw new Error('the browser let two writers into one state');
  const visit: Visit = (...given) => tab.evaluate((all) => page.visit(...all), given);
  const shared = digits ? { digits: await travel(digits, 'browser', visit) } : {};
  if (!existsSync(FIXTURES)) return { ...found, ...shared };
  const before = await tab.evaluate(() => page.digits());
  await tab.reload();
  await ready(tab);
  const { accuracy, tasks } = await tab.evaluate(() => page.reopened());
  if (accuracy !== before.accuracy || tasks !== 3) {
    throw new Error(
      `after a reload the browser knows ${tasks} tasks at ${accuracy} %, before 3 at ${before.accuracy} %`,
    );
  }
  return { ...found, ...shared };
});
await mkdir(out, { recursive: true });
await writeFile(join(out, 'browser.json'), `${JSON.stringify(report, null, 1)}\n`);
console.log(summary(report));
process.exitCode = report.passed ? 0 : 1;
