import { describe, expect, it } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { readOnnx, withTensors } from '../src/bundle/onnxFile.js';
import { MemoryBundle } from '../src/bundle/source.js';
import { BundleError } from '../src/errors.js';
import { concatenate, sha256, textOf, utf8 } from '../src/formats/bytes.js';
import { dumps, type Json, parseJson } from '../src/formats/json.js';
import { delimited } from '../src/formats/protobuf.js';
import { encode } from '../src/formats/safetensors.js';
import { float32, float64, type StoredTensor } from '../src/formats/tensors.js';
import { bundleFiles, memoryBundle } from './fixtures.js';

/** The bundle with another manifest, sealed as a builder would. */
async function withManifest(change: (manifest: { [key: string]: Json }) => void): Promise<MemoryBundle> {
  const files = await bundleFiles();
  const manifest = parseJson(textOf(files.get('manifest.json')!)) as { [key: string]: Json };
  change(manifest);
  const text = `${dumps({ ...manifest, seal: '0'.repeat(64) }, { indent: 1 })}\n`;
  files.set('manifest.json', utf8(text.replaceAll('0'.repeat(64), sha256(text))));
  return new MemoryBundle(files, 'bundle');
}

async function refusal(source: MemoryBundle): Promise<string> {
  const error = await Bundle.open(source).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(BundleError);
  return (error as BundleError).message;
}

describe('opening a bundle', () => {
  it('gives manifest and checkpoint, under the id that Python gives it', async () => {
    const bundle = await Bundle.open(await memoryBundle());
    expect(bundle.manifest.classes).toEqual(['zero', 'one', 'two', 'three']);
    expect(bundle.id).toBe(sha256((await bundleFiles()).get('manifest.json')!));
    expect(bundle.checkpoint.get('head/base/weight')?.shape).toEqual([4, 240]);
  });

  it.each(['training_model.onnx', 'eval_model.onnx', 'weights.safetensors', 'checkpoint.safetensors'])(
    'notices one changed byte of %s',
    async (name) => {
      const files = await bundleFiles();
      const content = files.get(name)!.slice();
      content[content.length >> 1]! ^= 1;
      files.set(name, content);
      expect(await refusal(new MemoryBundle(files, 'bundle'))).toBe(
        `bundle/${name} is not the file that was built: its content differs from the manifest's sha256. ` +
          'Copy the bundle again.',
      );
    },
  );

  it.each([
    ['missing', undefined, "tensor 'mean' is missing, and the manifest asks for [336]"],
    ['short', float32([2]), "tensor 'mean' has shape [2], and the manifest asks for [336]"],
    ['of another type', float64([336]), "tensor 'mean' is missing"],
    [
      'infinite',
      float32([336], new Float32Array(336).fill(Infinity)),
      "tensor 'mean' holds numbers that are not finite",
    ],
  ])('refuses channels of another network: %s', async (_, mean, sentence) => {
    const channels = encode(
      new Map<string, StoredTensor>([
        ['deviation', float32([336])],
        ...(mean ? [['mean', mean] as const] : []),
      ]),
    );
    const name = 'domain_channels.safetensors';
    const source = await withManifest((manifest) => {
      const entry = (manifest.files as { [key: string]: Json })[name] as { [key: string]: Json };
      entry.size = parseJson(String(channels.length));
      entry.sha256 = sha256(channels);
    });
    const files = (await bundleFiles())
      .set('manifest.json', (await source.read('manifest.json'))!)
      .set(name, channels);
    const bundle = await Bundle.open(new MemoryBundle(files, 'bundle'));
    expect(() => bundle.domainChannels()).toThrow(`bundle/${name}: ${sentence}`);
  });

  it('refuses a checkpoint with numbers of a type that no state has', async () => {
    const files = await bundleFiles();
    const header = utf8('{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}');
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
    const checkpoint = concatenate([length, header, new Uint8Array(4)]);
    const source = await withManifest((manifest) => {
      const entry = (manifest.files as { [key: string]: Json })['checkpoint.safetensors'];
      (entry as { [key: string]: Json }).size = parseJson(String(checkpoint.length));
      (entry as { [key: string]: Json }).sha256 = sha256(checkpoint);
    });
    const changed = new Map(files)
      .set('manifest.json', (await source.read('manifest.json'))!)
      .set('checkpoint.safetensors', checkpoint);
    expect(await refusal(new MemoryBundle(changed, 'bundle'))).toBe(
      "bundle/checkpoint.safetensors cannot be read (tensor 'a' is F16; a state holds arrays of float32, float64, " +
        'int64, uint8). Copy the bundle again.',
    );
  });

  it('notices a changed manifest, a missing one, and a missing file', async () => {
    const files = await bundleFiles();
    const text = textOf(files.get('manifest.json')!);
    const changed = new Map(files).set(
      'manifest.json',
      utf8(text.replace('"batch_size": 16', '"batch_size": 61')),
    );
    expect(await refusal(new MemoryBundle(changed, 'bundle'))).toMatch(/was changed after it was built/);
    const without = (name: string): MemoryBundle =>
      new MemoryBundle(new Map([...files].filter(([file]) => file !== name)), 'bundle');
    expect(await refusal(without('manifest.json'))).toMatch(/There is no bundle in bundle .*build-artifacts/);
    expect(await refusal(without('eval_model.onnx'))).toMatch(/eval_model.onnx is missing/);
  });

  it.each<[string, (manifest: { [key: string]: Json }) => void, RegExp]>([
    ['a newer schema', (m) => void (m.schema_version = parseJson('4')), /schema 4, .* reads up to 3: update/],
    ['no schema', (m) => void delete m.schema_version, /not a csk-sdk bundle/],
    ['a missing field', (m) => void delete m.head, /: head is missing\./],
    [
      'an unknown field of a site',
      (m) => void ((m.sites as { [key: string]: Json }[])[1]!.odd = 'x'),
      /sites\[1\]\["odd"\] is not known/,
    ],
    ['an impossible batch', (m) => void (m.batch_size = parseJson('0')), /batch_size is 0/],
    ['another loss', (m) => void (m.loss = 'mse'), /--loss mse, and the JavaScript runner learns only/],
    ['another backend', (m) => void (m.backends = ['ort-training']), /needs the portable backend/],
    ['foreign ops', (m) => void (m.op_domains = ['evil.ops']), /op_domains\[0\] is "evil.ops", and must be/],
    [
      'a file outside',
      (m) =>
        void ((m.files as { [key: string]: Json })['../x'] = parseJson(
          `{"sha256": "${'0'.repeat(64)}", "size": 0}`,
        )),
      /lists a file outside the bundle: "..\/x"/,
    ],
    ['two classes of one name', (m) => void (m.classes = ['a', 'a', 'b', 'c']), /two classes are called "a"/],
  ])('refuses %s', async (_, change, message) => {
    expect(await refusal(await withManifest(change))).toMatch(message);
  });

  /** An eval model with more in its graph, listed as it is then. */
  async function withGraph(more: Uint8Array[]): Promise<MemoryBundle> {
    const files = await bundleFiles();
    const graph = concatenate([files.get('eval_model.onnx')!, ...delimited(7, more)]);
    files.set('eval_model.onnx', graph);
    const manifest = parseJson(textOf(files.get('manifest.json')!)) as { [key: string]: Json };
    const entry = parseJson(JSON.stringify({ sha256: sha256(graph), size: graph.length }));
    (manifest.files as { [key: string]: Json })['eval_model.onnx'] = entry;
    const text = `${dumps({ ...manifest, seal: '0'.repeat(64) }, { indent: 1 })}\n`;
    files.set('manifest.json', utf8(text.replaceAll('0'.repeat(64), sha256(text))));
    return new MemoryBundle(files, 'bundle');
  }

  const named = (field: number, name: string): Uint8Array[] => delimited(field, [utf8(name)]);
  /** A ValueInfoProto: float32 with one free and one fixed size. */
  const value = (name: string, size: number): Uint8Array[] => {
    const shape = [...delimited(1, named(2, 'N')), ...delimited(1, [Uint8Array.of(8, size)])];
    const tensor = [Uint8Array.of(8, 1), ...delimited(2, shape)];
    return [...named(1, name), ...delimited(2, delimited(1, tensor))];
  };

  // What Python says of the same graphs: tests/field/test_hostile_bundles.py.
  it.each<[string, Uint8Array[], string]>([
    [
      'ops of a domain that the manifest does not allow',
      delimited(1, [...named(4, 'Evil'), ...named(7, 'evil.ops')]),
      "it has ops of domain 'evil.ops', and its manifest allows ai.onnx",
    ],
    [
      'a branch',
      delimited(1, [...named(4, 'If'), ...delimited(5, [...named(1, 'then_branch'), ...delimited(6, [])])]),
      'it has op "If", which runs a graph of its own',
    ],
    [
      'an output of another shape',
      delimited(12, value('features', 7)),
      'its output "features" has another type or shape than the manifest says',
    ],
    [
      'an input that nothing gives',
      delimited(11, value('more', 7)),
      'it has an input "more", which nothing in the manifest names',
    ],
    [
      'a tensor that claims terabytes',
      delimited(5, [Uint8Array.of(8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20), ...named(8, 'odd')]),
      'its tensors claim more than 17179869184 numbers together',
    ],
  ])('refuses a graph with %s', async (_, more, message) => {
    expect(await refusal(await withGraph(more))).toBe(
      `bundle/eval_model.onnx is damaged or hostile: ${message}. Do not use this bundle; build it again.`,
    );
  });
});

describe('putting tensors into a model', () => {
  it('leaves no reference to a file, and every other byte', async () => {
    const model = (await bundleFiles()).get('training_model.onnx')!;
    const { external } = readOnnx(model);
    expect(external.length).toBeGreaterThan(5);
    const asked: string[] = [];
    const whole = withTensors(model, (name, { length }) => {
      asked.push(name);
      return new Uint8Array(length!).fill(7);
    });
    expect(readOnnx(whole).external).toEqual([]);
    expect(asked).toHaveLength(external.length);
    expect(whole.length).toBeGreaterThan(external.reduce((sum, { length }) => sum + length!, 0));
  });

  it('refuses what is no message', () => {
    expect(() => readOnnx(new Uint8Array(0))).toThrow('empty');
    expect(() => readOnnx(Uint8Array.of(0x3a, 0x7f))).toThrow('longer than what is left');
    expect(() => readOnnx(Uint8Array.of(0x80))).toThrow('no end');
  });
});
