/**
 * `node out/build/tools/deployed.js FOLDER`: states that JavaScript learns on the bundles of tests/deployed/make_deployed.py, and
 * what it predicts then. Bundles that it does not open, of signals or another loss, are left out.
 */

import { existsSync } from 'node:fs';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { STATE } from '../src/contract/thresholds.js';
import { BundleError } from '../src/errors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { deployedDomain, deployedProbe, deployedSettings, deployedTask } from './deployedTasks.js';
import { runtime } from './onNode.js';

const folder = process.argv[2]!;
const BLOCK_CLASSES = STATE.blockClasses;

for (const name of (await readdir(folder)).sort()) {
  if (!existsSync(join(folder, name, 'bundle'))) continue;
  const state = join(folder, name, 'javascript');
  // As Python does it: a block has few classes there, so that the state is small.
  (STATE as { blockClasses: number }).blockClasses = name === 'blocks' ? 2 : BLOCK_CLASSES;
  try {
    const learner = await Learner.open({
      runtime,
      bundle: new FolderBundle(join(folder, name, 'bundle')),
      storage: new FolderStorage(state),
      config: deployedSettings(name),
    });
    for (const task of ['01', '02']) {
      await learner.learn(await deployedTask(folder, task));
      if (name === 'domains' && task === '01') await learner.adapt('hazy', await deployedDomain(folder));
    }
    if (name === 'ledger') await learner.forget({ classes: ['a', 'g'] });
    const { classes, probabilities } = await learner.predict(await deployedProbe(folder));
    await learner.close();
    const rounded = Array.from(probabilities, (p) => Math.round(p * 1e6) / 1e6);
    const { length } = classes;
    const rows = rounded.flatMap((_, at) => (at % length ? [] : [rounded.slice(at, at + length)]));
    await writeFile(`${state}.json`, `${JSON.stringify({ classes, probabilities: rows })}\n`);
    await rm(join(state, 'lock'), { force: true });
    console.log(`${name}: learned`);
  } catch (error) {
    if (!(error instanceof BundleError)) throw error;
    console.log(`${name}: ${error.message}`);
  }
}
