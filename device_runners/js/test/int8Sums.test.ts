/** int8 bundles on CPUs whose int8 sums saturate: which graphs are opened, and how. */

import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { parseManifest } from '../src/bundle/manifest.js';
import { inRightPrecision, int8Sums } from '../src/device/int8Sums.js';
import { BundleError } from '../src/errors.js';
import { textOf } from '../src/formats/bytes.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import type { Runtime, RuntimeSession } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { python, QUICKLY, runtime } from './fixtures.js';

const INT8 = resolve('../../tests/conformance/vectors/bundles/plain-int8');
const settings = { threads: 1 };

interface Opened {
  readonly bytes: number;
  readonly wide: boolean;
}

/** onnxruntime-node on a CPU of a certain kind: what its sums are, and whether graphs open with wide ones. */
function onCpu(
  kind: { default: 'right' | 'saturating'; wide: 'right' | 'saturating'; wideOpens?: boolean },
  opened: Opened[] = [],
): Runtime {
  const create = async (model: Uint8Array, options?: object): Promise<RuntimeSession> => {
    const { extra } = (options ?? {}) as { extra?: { session?: { x64quantprecision?: string } } };
    const wide = extra?.session?.x64quantprecision === '1';
    // The probe is small; graphs are not.
    const isProbe = model.length < 1000;
    if (!isProbe) opened.push({ bytes: model.length, wide });
    if (wide && !isProbe && kind.wideOpens === false) {
      throw new Error('graph.cc:4164 Attempt to replace the existing tensor');
    }
    const session = await runtime.InferenceSession.create(model, options);
    if (!isProbe) return session as unknown as RuntimeSession;
    const sum = kind[wide ? 'wide' : 'default'] === 'right' ? 255 : 129;
    const y = new runtime.Tensor('float32', new Float32Array(8).fill(sum), [1, 8, 1, 1]);
    return { run: async () => ({ y }), release: () => session.release() };
  };
  return { Tensor: runtime.Tensor, InferenceSession: { create } };
}

async function open(runtime: Runtime): Promise<Learner> {
  const bundle = new FolderBundle(INT8);
  return Learner.open({ runtime, bundle, storage: new MemoryStorage(), config: QUICKLY });
}

const pictures = Array.from({ length: 24 }, (_, i) => ({
  width: 9,
  height: 9,
  data: Uint8Array.from({ length: 9 * 9 * 3 }, (_, at) => ((i % 2) * 90 + ((i * 37 + at * 11) % 60)) & 255),
}));
const task = { name: 'new', classes: ['d', 'e'], pictures, labels: pictures.map((_, i) => i % 2) };

describe('the probe of int8 sums', () => {
  it('is what the tool writes', () => {
    const hex = python(
      'import runpy, sys; sys.argv = ["int8_sums.py"]; runpy.run_path("tools/int8_sums.py", run_name="__main__")',
    ).trim();
    const probes: string[] = [];
    const seen: Runtime = {
      Tensor: runtime.Tensor,
      InferenceSession: {
        create: async (model) => {
          probes.push(Buffer.from(model).toString('hex'));
          throw new Error('seen');
        },
      },
    };
    return int8Sums(seen, settings).then((sums) => {
      expect(sums).toBe('wrong');
      expect(probes).toEqual([hex, hex]);
    });
  });

  it('finds out what this CPU does, and Python asks for wide sums wherever they are needed', async () => {
    const sums = await int8Sums(runtime, settings);
    expect(['right', 'right when wide']).toContain(sums);
    const script =
      'import sys; from csk_sdk import Learner; print(Learner.open(*sys.argv[1:]).bundle.adds_wide)';
    const asked = python(script, INT8, 'no such state').trim();
    expect(asked).toBe(sums === 'right' ? 'False' : 'True');
  });
});

describe('an int8 bundle', () => {
  it('is used as it is where sums are right', async () => {
    const opened: Opened[] = [];
    const learner = await open(onCpu({ default: 'right', wide: 'right' }, opened));
    await learner.predict(pictures.slice(0, 2));
    expect(learner.bundle.precision).toBe('int8');
    expect(learner.warnings).toEqual([]);
    expect(opened.map(({ wide }) => wide)).toEqual([false]);
    await learner.close();
  });

  it('learns and predicts on wide sums where the fast ones saturate', async () => {
    const opened: Opened[] = [];
    const learner = await open(onCpu({ default: 'saturating', wide: 'right' }, opened));
    const report = await learner.learn(task);
    await learner.predict(pictures.slice(0, 2));
    expect(opened.length).toBeGreaterThan(3);
    expect(opened.every(({ wide }) => wide)).toBe(true);
    expect(learner.bundle.precision).toBe('int8');
    expect(report.warnings.join()).not.toContain('exact graphs');
    expect(learner.tasks[0]!.config).toMatchObject({ precision: 'int8' });
    await learner.close();
  });

  it('takes the exact graphs, and says so, where it does not open with wide sums', async () => {
    const opened: Opened[] = [];
    const learner = await open(onCpu({ default: 'saturating', wide: 'right', wideOpens: false }, opened));
    const sentence =
      `The exact graphs are used instead of int8: this CPU's fast int8 sums saturate, and ${INT8} was built before ` +
      'its graphs could be opened with wide ones. Build the bundle again to have int8 here.';
    expect(learner.warnings).toEqual([sentence]);
    expect(learner.bundle.precision).toBe('exact');
    opened.length = 0;
    expect((await learner.learn(task)).warnings).toContain(sentence);
    expect(learner.tasks[0]!.config).toMatchObject({ precision: 'exact' });
    expect(opened.some(({ wide }) => wide)).toBe(false);
    // The network of the exact bundle, in every digit.
    const plain = await Learner.open({
      runtime,
      bundle: new FolderBundle(resolve(INT8, '../plain')),
      storage: new MemoryStorage(),
    });
    await learner.rollback('base');
    expect(await learner.features(pictures)).toEqual(await plain.features(pictures));
    await learner.close();
    await plain.close();
  });

  it('takes the exact graphs where sums are wrong in every way', async () => {
    const learner = await open(onCpu({ default: 'saturating', wide: 'saturating' }));
    expect(learner.warnings).toEqual([
      'The exact graphs are used instead of int8: ONNX Runtime adds int8 products up wrong on this CPU.',
    ]);
    await learner.close();
  });

  it('is refused where it has no exact graphs to fall back on', async () => {
    const source = new FolderBundle(INT8);
    const bundle = await Bundle.open(source);
    const alone = Object.assign(Object.create(Object.getPrototypeOf(bundle)), bundle, {
      manifest: { ...bundle.manifest, precisions: [] },
    }) as Bundle;
    const opening = { runtime: onCpu({ default: 'saturating', wide: 'saturating' }), settings };
    await expect(inRightPrecision(alone, opening)).rejects.toThrow(BundleError);
    await expect(inRightPrecision(alone, opening)).rejects.toThrow(/no exact graphs. Build the bundle again/);
  });

  it('keeps the configuration that the application gives to sessions', async () => {
    const given: object[] = [];
    const spy: Runtime = {
      Tensor: runtime.Tensor,
      InferenceSession: {
        create: (model, options) => {
          given.push((options as { extra: object }).extra);
          return onCpu({ default: 'saturating', wide: 'right' }).InferenceSession.create(model, options);
        },
      },
    };
    const bundle = await Bundle.open(new FolderBundle(INT8));
    const extra = { session: { set_denormal_as_zero: '1' }, optimization: {} };
    await inRightPrecision(bundle, { runtime: spy, settings: { threads: 1, options: { extra } } });
    expect(given.at(-1)).toEqual({
      session: { intra_op: { allow_spinning: '0' }, set_denormal_as_zero: '1', x64quantprecision: '1' },
      optimization: {},
    });
  });
});

it('reads which precisions a bundle has', async () => {
  const manifest = textOf((await new FolderBundle(INT8).read('manifest.json'))!);
  expect(parseManifest(manifest, 'manifest.json').precisions).toEqual(['int8', 'exact']);
});
