/** An export in int8 is, to the byte, what Python writes of the same state. */

import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../src/errors.js';
import { float32 } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { quantisedTensors } from '../src/network/exportQuantised.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { BUNDLE, FIXTURES, runtime, temporaryFolder } from './fixtures.js';

const FOLDER = join(FIXTURES, 'quantised');

describe('export in int8', () => {
  it('is what Python writes, to the byte', async () => {
    const state = join(temporaryFolder(), 'state');
    cpSync(join(FOLDER, 'state'), state, { recursive: true });
    const bundle = new FolderBundle(join(FOLDER, 'bundle'));
    const learner = await Learner.open({ runtime, bundle, storage: new FolderStorage(state) });
    expect(learner.classes).toHaveLength(6);
    const model = await learner.export({ precision: 'int8' });
    expect(Buffer.from(model).equals(readFileSync(join(FOLDER, 'int8.onnx')))).toBe(true);
    const session = await runtime.InferenceSession.create(model);
    const image = new runtime.Tensor('float32', new Float32Array(2 * 64), [2, 1, 8, 8]);
    const output = await session.run({ [session.inputNames[0]!]: image });
    expect(output[session.outputNames[0]!]!.dims).toEqual([2, 6]);
  });

  it('is refused of a bundle that has no such form', async () => {
    const learner = await Learner.open({
      runtime,
      bundle: new FolderBundle(BUNDLE),
      storage: new MemoryStorage(),
    });
    await expect(learner.export({ precision: 'int8' })).rejects.toThrow(ConfigError);
    await expect(learner.export({ precision: 'int8' })).rejects.toThrow('is for bundles of quantised models');
    await expect(learner.export({ precision: 'int4' })).rejects.toThrow("precision is 'int4'");
  });

  it('rounds to the even one of two, within its range, with room for the bias', () => {
    const kernel = float32([2, 2], Float32Array.of(127, 2.5, -3.5, 0));
    const bias = float32([1], Float32Array.of(2 ** 40));
    const plain = { weight: 'w', bias: '', axis: -1, largest: 127, input_scale: 1 };
    const found = quantisedTensors([plain], new Map([['w', kernel]]));
    expect([...found.get('w_quantized')!.data]).toEqual([127, 2, -4, 0]);
    const wide = quantisedTensors(
      [{ ...plain, bias: 'b' }],
      new Map([
        ['w', kernel],
        ['b', bias],
      ]),
    );
    expect([...wide.get('w_scale')!.data]).toEqual([1024]);
    expect([...wide.get('b_quantized')!.data]).toEqual([2 ** 30]);
    const odd = () =>
      quantisedTensors(
        [{ ...plain, bias: 'b', axis: 0 }],
        new Map([
          ['w', kernel],
          ['b', bias],
        ]),
      );
    expect(odd).toThrow(
      "the bundle's layer 'w' has a kernel (2, 2) that does not fit its bias or its axis 0.",
    );
    const columns = quantisedTensors([{ ...plain, axis: 1 }], new Map([['w', kernel]]));
    expect([...columns.get('w_quantized')!.data]).toEqual([127, 127, -4, 0]);
  });
});
