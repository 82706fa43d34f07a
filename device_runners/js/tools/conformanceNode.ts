/** `npm run conformance`, first half: the vectors on onnxruntime-node, into node.json. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { type Report, runConformance, summary } from './conformance.js';

import { folder, machine, runtime, versionOf } from './onNode.js';
import { carriedOut, carryIn, visit } from './sharedDigits.js';
import { travel } from './travel.js';

const vectors = folder('CONFORMANCE_VECTORS', '../../tests/conformance/vectors');
const out = folder('CONFORMANCE_OUT', '../../out/conformance');

let report: Report = await runConformance(new FolderBundle(vectors), runtime, {
  platform: 'node',
  runtime: `onnxruntime-node ${versionOf('onnxruntime-node')}`,
  machine: machine(),
});
const digits = process.env.CONFORMANCE_DIGITS;
if (digits) {
  const learned = await travel(digits, 'node', async (_, files, tasks) => {
    const place = await mkdtemp(join(tmpdir(), 'csk-sdk-state-'));
    try {
      const storage = new FolderStorage(place);
      if (files) await carryIn(files, storage);
      const visited = await visit(new FolderBundle(digits), runtime, storage, tasks);
      return { ...visited, ...(await carriedOut(storage)) };
    } finally {
      await rm(place, { recursive: true });
    }
  });
  report = { ...report, digits: learned };
}
await mkdir(out, { recursive: true });
await writeFile(join(out, 'node.json'), `${JSON.stringify(report, null, 1)}\n`);
console.log(summary(report));
process.exitCode = report.passed ? 0 : 1;
