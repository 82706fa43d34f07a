import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { afterMessages, decoded, encoded, now, plainlyDecoded, plainlyEncoded } from '../src/engine.js';
import { type Engine, engine, script } from './bareEngine.js';
import { bundleFiles, digitsTask, FIXTURES, stateIn } from './fixtures.js';

const VECTORS = resolve('../../tests/conformance/vectors');

describe('in an engine that knows ECMAScript only', () => {
  let bare: Engine;
  beforeAll(async () => {
    bare = engine(await script());
  });

  it('there is nothing of the web', () => {
    expect(bare.globals).toContain('BigInt64Array');
    for (const name of ['TextEncoder', 'TextDecoder', 'performance', 'setTimeout', 'MessageChannel']) {
      expect(bare.globals).not.toContain(name);
    }
    for (const name of [
      'console',
      'WebAssembly',
      'crypto',
      'fetch',
      'queueMicrotask',
      'process',
      'AbortController',
    ]) {
      expect(bare.globals).not.toContain(name);
    }
  });

  it('every conformance case passes', async () => {
    const vectors = {
      name: 'vectors',
      async read(name: string) {
        return bare.bytes(await readFile(join(VECTORS, name)));
      },
    };
    const described = { platform: 'bare', runtime: 'onnxruntime-node', machine: 'this one' };
    const report = await bare.runner.runConformance(vectors, bare.runtime, described);
    expect(
      report.cases.filter(({ status }) => status === 'failed').map(({ name, reason }) => [name, reason]),
    ).toEqual([]);
    expect(report.cases.filter(({ status }) => status === 'passed').length).toBeGreaterThan(70);
  });

  it('a task is learned, kept, predicted and exported, and learning can be stopped', async () => {
    const { Bundle, Learner, MemoryBundle, MemoryStorage } = bare.runner;
    const files = [...(await bundleFiles())].map(([name, bytes]) => [name, bare.bytes(bytes)] as const);
    const source = new MemoryBundle(new Map(files), 'bundle');
    expect((await Bundle.open(source)).manifest.classes).toHaveLength(4);
    const storage = new MemoryStorage();
    const options = {
      runtime: bare.runtime,
      bundle: source,
      storage,
      config: { threads: 1, epochs: 2, train: 'centers' as const },
    };
    const given = await digitsTask('01-four-five', 120);
    const pictures = given.pictures.map((one) => ({ ...one, data: bare.bytes(one.data as Uint8Array) }));
    const task = { ...given, pictures };
    const learner = await Learner.open(options);
    const signal = { aborted: true, reason: new Error('not now') };
    await expect(learner.learn(task, { signal })).rejects.toThrow('not now');
    const report = await learner.learn(task);
    expect(report.classes).toEqual(['four', 'five']);
    const again = await Learner.open(options);
    const { labels } = await again.predict(pictures.slice(0, 20));
    const right = labels.filter((label: string, i: number) => label === given.classes[given.labels[i]!]);
    expect(right.length).toBeGreaterThan(17);
    expect((await again.export()).length).toBeGreaterThan(1000);
  });

  it('what a fleet knows is applied, and what a device knows is exported', async () => {
    const { fleet, Learner, MemoryBundle, MemoryStorage } = bare.runner;
    const files = [...(await bundleFiles())].map(([name, bytes]) => [name, bare.bytes(bytes)] as const);
    const source = new MemoryBundle(new Map(files), 'bundle');
    const storage = new MemoryStorage();
    for (const [path, content] of (await stateIn(join(FIXTURES, 'fleet/kitchen'))).files) {
      storage.files.set(path, bare.bytes(content));
    }
    const learner = await Learner.open({ runtime: bare.runtime, bundle: source, storage });
    const { bytes, device } = await fleet.export(learner, { name: 'kitchen' });
    expect(device).toMatch(/^[0-9a-f]{64}$/);
    expect(bytes.length).toBeGreaterThan(30_000);
    const merged = async (name: string) =>
      bare.bytes(await readFile(join(FIXTURES, `fleet/merged/${name}.cskc`)));
    await expect(fleet.apply(learner, await merged('signed'))).rejects.toThrow(
      'It is signed, and that cannot be checked here',
    );
    expect((await fleet.apply(learner, await merged('plain'))).own).toBe(2);
    expect(learner.classes).toHaveLength(10);
  });
});

describe('what stands in for an engine', () => {
  const TEXTS = [
    '',
    'plain',
    'Grüße, 世界 🦉',
    '\ufeffmark',
    'a\ud800b',
    '\udc00',
    'x'.repeat(10_000),
    '€'.repeat(5000),
  ];

  it.each(TEXTS)('writes a text as the web does (%#)', (text) => {
    const bytes = plainlyEncoded(text);
    expect(bytes).toEqual(new TextEncoder().encode(text));
    expect(encoded(text)).toEqual(bytes);
    expect(plainlyDecoded(bytes)).toBe(decoded(bytes));
  });

  it('reads any bytes as the web does', () => {
    const web = new TextDecoder('utf-8', { ignoreBOM: true });
    const leads = [
      0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
    ];
    const rest = [0x41, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xe0, 0xf0];
    for (const a of leads) {
      for (const b of rest) {
        for (const c of rest) {
          for (const bytes of [[a], [a, b], [a, b, c], [a, b, c, 0x80], [a, b, c, 0x41, 0x80]]) {
            const given = Uint8Array.from(bytes);
            expect(plainlyDecoded(given), bytes.join(' ')).toBe(web.decode(given));
          }
        }
      }
    }
  });

  it('has a clock that goes on, and turns', async () => {
    const before = now();
    await new Promise<void>((resume) => afterMessages(resume));
    expect(now()).toBeGreaterThanOrEqual(before);
  });
});
