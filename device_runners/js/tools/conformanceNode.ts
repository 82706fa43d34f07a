/** `npm run conformance`, first half: the vectors on onnxruntime-node, into node.json. */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FolderBundle } from '../src/node/folderBundle.js';
import { type Report, runConformance, summary } from './conformance.js';
import { learnSharedDigits } from './digits.js';
import { folder, machine, runtime, versionOf } from './onNode.js';

const vectors = folder('CONFORMANCE_VECTORS', '../../tests/conformance/vectors');
const out = folder('CONFORMANCE_OUT', '../../out/conformance');

let report: Report = await runConformance(new FolderBundle(vectors), runtime, {
  platform: 'node',
  runtime: `onnxruntime-node ${versionOf('onnxruntime-node')}`,
  machine: machine(),
});
const digits = process.env.CONFORMANCE_DIGITS;
if (digits) report = { ...report, digits: await learnSharedDigits(new FolderBundle(digits), runtime) };
await mkdir(out, { recursive: true });
await writeFile(join(out, 'node.json'), `${JSON.stringify(report, null, 1)}\n`);
console.log(summary(report));
process.exitCode = report.passed ? 0 : 1;
