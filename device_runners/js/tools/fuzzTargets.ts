/** What reads bytes from outside, each as a function of any bytes: what it throws must be what it says that it throws. */

import { checkCheckpoint, checkFile } from '../src/bundle/checks.js';
import { type Manifest, parseManifest } from '../src/bundle/manifest.js';
import { checkManifest } from '../src/bundle/manifestChecks.js';
import { readOnnx, withTensors } from '../src/bundle/onnxFile.js';
import { withPadsApart } from '../src/bundle/padsApart.js';
import { withSmallMaps } from '../src/bundle/smallMaps.js';
import { BundleError, FleetError, StateError } from '../src/errors.js';
import { FleetFile, fileOf } from '../src/fleet/files.js';
import { contentId, pack, packSketch, unpack } from '../src/fleet/packing.js';
import { reducedOf } from '../src/fleet/reducing.js';
import { concatenate, sha256, textOf, utf8 } from '../src/formats/bytes.js';
import { dumps, isObject, type Json, parseJson } from '../src/formats/json.js';
import { MalformedError } from '../src/formats/protobuf.js';
import { decode, encode } from '../src/formats/safetensors.js';
import type { StoredTensor } from '../src/formats/tensors.js';
import { Contribution } from '../src/method/contributions.js';
import { QUANTILES } from '../src/method/unknown.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { readProgress } from '../src/state/progress.js';
import { readRecord, seal } from '../src/state/record.js';

const UNSEALED = '0'.repeat(64);

export interface Target {
  /** Small inputs that are right. */
  readonly seeds: readonly Uint8Array[];
  /** Read it; what was said of it, in order. Throws what is a finding. */
  readonly read: (bytes: Uint8Array) => Promise<string[]>;
}

/** The targets by name, with the files of a bundle that is right. */
export function targetsOf(files: ReadonlyMap<string, Uint8Array>): Record<string, Target> {
  const manifest = parseManifest(textOf(files.get('manifest.json')!), 'manifest.json');
  const graphs = ['prefix_model.onnx', 'export_template.onnx'].map((name) => files.get(name)!);
  return {
    manifest: { seeds: [files.get('manifest.json')!], read: readsManifest },
    safetensors: {
      seeds: [encode(TENSORS), encode(TENSORS, { meta: '{}' }), encode(CONTRIBUTION)],
      read: readsTensors(manifest),
    },
    onnx: { seeds: graphs, read: readsGraph(manifest) },
    records: {
      seeds: [seal(RECORD), utf8(JSON.stringify(RECORD)), encode(TENSORS, { meta: '{}', sha256: 'x' })],
      read: readsRecords,
    },
    fleet: { seeds: [deviceFile(4), deviceFile(8)], read: readsFleet },
  };
}

const TASK = {
  name: 't',
  classes: ['a', 'b'],
  epochs: 1,
  images: 2,
  seconds: 1.5,
  loss: 0.5,
  peak_rss_bytes: 3,
};
const RECORD = {
  number: 1,
  parent: 0,
  created: '2026-11-28T00:00:00+00:00',
  tasks: [
    {
      ...{ ...TASK, config: { epochs: 1 }, protected: { s: '1/2' }, notes: ['n'] },
      ...{ contributions: { a: UNSEALED, b: '' }, carried: { a: UNSEALED }, temperature: 1.5 },
    },
  ],
  hidden: ['c'],
  purged: [1],
  sha256: UNSEALED,
  size: 10,
};
const TENSORS = new Map<string, StoredTensor>([
  ['a', { dtype: 'float32', shape: [2, 3], data: new Float32Array(6) }],
  ['b', { dtype: 'int64', shape: [1], data: new BigInt64Array(1) }],
  ['c', { dtype: 'uint8', shape: [0, 4], data: new Uint8Array(0) }],
]);

const FEATURES = 3;
const CONTRIBUTION = new Contribution(
  2,
  new Float32Array(FEATURES),
  new Float32Array(2 * FEATURES),
).tensors();

/** What a device without a key says of one class. */
function deviceFile(bits: number): Uint8Array {
  const contribution = pack(
    new Contribution(2, new Float32Array(FEATURES), new Float32Array(2 * FEATURES)),
    bits,
  );
  const ones = new Float32Array(QUANTILES).fill(1);
  const sketch = packSketch({ margins: ones, oddness: ones });
  const [id, drawn] = [contentId(contribution), contentId(sketch)];
  const entry = { class: 'a', id, count: 2, temperature: 1.5 };
  const said = { bundle: UNSEALED, device: UNSEALED, name: 'd', sequence: 1, entries: [entry] };
  const text = JSON.stringify({ ...said, sketches: { a: drawn }, withdrawn: [UNSEALED] });
  const entries = [{ name: 'a', id, count: 2, temperature: 1.5 }];
  const statement = { ...said, entries, sketches: new Map([['a', drawn]]), withdrawn: [], text };
  const blobs = new Map([
    [id, contribution],
    [drawn, sketch],
  ]);
  return fileOf(UNSEALED, FEATURES, { ...statement, key: '', signature: '' }, blobs);
}

// biome-ignore lint/suspicious/noExplicitAny: any error's class
type Kind = abstract new (...given: any[]) => Error;

/** What `act` says: an error of one of `kinds`, with a message of one line. Throws any other. */
async function told(act: () => unknown, ...kinds: Kind[]): Promise<string> {
  try {
    await act();
    return 'fine';
  } catch (error) {
    const right = kinds.some((kind) =>
      // RangeError and TypeError are Errors, too, and nothing that is said on purpose.
      kind === Error ? Object.getPrototypeOf(error) === Error.prototype : error instanceof kind,
    );
    if (!right || !(error as Error).message || (error as Error).message.includes('\n')) throw error;
    return (error as Error).message;
  }
}

function objectOf(bytes: Uint8Array): { [key: string]: Json } | undefined {
  try {
    const value = parseJson(textOf(bytes));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** A manifest as it is, and sealed as a builder would, so that what is behind the seal is reached. */
async function readsManifest(bytes: Uint8Array): Promise<string[]> {
  const read = (text: string): Promise<string> =>
    told(() => checkManifest(parseManifest(text, 'manifest.json'), 'manifest.json'), BundleError);
  const said = [await read(textOf(bytes))];
  const value = objectOf(bytes);
  if (value !== undefined) {
    const text = `${dumps({ ...value, seal: UNSEALED }, { indent: 1 })}\n`;
    said.push(await read(text.replaceAll(UNSEALED, sha256(text))));
  }
  return said;
}

/** A file of a bundle whose manifest says its size and sha256. */
function listed(manifest: Manifest, name: string, bytes: Uint8Array): Promise<string> {
  const files = { ...manifest.files, [name]: { size: bytes.length, sha256: sha256(bytes) } };
  return told(() => checkFile({ ...manifest, files }, name, bytes, name), BundleError);
}

const readsTensors = (manifest: Manifest) => async (bytes: Uint8Array) => {
  const name = 'checkpoint.safetensors';
  const said = [await listed(manifest, name, bytes), await told(() => decode(bytes), Error)];
  if (said[1] !== 'fine') return said;
  if (said[0] !== 'fine') throw new TypeError('decode takes what the check of a bundle refuses');
  const found = decode(bytes);
  said.push(await told(() => checkCheckpoint(manifest, found.tensors, name), BundleError));
  said.push(await told(() => Contribution.from(found.tensors, FEATURES), StateError));
  const again = decode(encode(found.tensors, Object.fromEntries(found.metadata)));
  if (again.tensors.size !== found.tensors.size) throw new TypeError('encoded and decoded, it is another');
  return said;
};

const readsGraph = (manifest: Manifest) => async (bytes: Uint8Array) => {
  const said = [
    await listed(manifest, 'eval_model.onnx', bytes),
    await told(() => readOnnx(bytes), MalformedError, Error),
  ];
  if (said[1] !== 'fine') return said;
  said.push(await told(() => withTensors(bytes, () => new Uint8Array(4)), MalformedError, Error));
  said.push(await told(() => withSmallMaps(bytes), MalformedError, Error));
  said.push(await told(() => withPadsApart(bytes), MalformedError, Error));
  return said;
};

/** A record as it is, and sealed; and a progress checkpoint. */
async function readsRecords(bytes: Uint8Array): Promise<string[]> {
  const path = 'generations/000001.json';
  const value = objectOf(bytes);
  const said: string[] = [];
  for (const content of [bytes, ...(value === undefined ? [] : [seal(value)])]) {
    const storage = new MemoryStorage('state');
    await storage.replace(path, content);
    said.push(await told(() => readRecord(storage, path), StateError));
  }
  const storage = new MemoryStorage('state');
  await storage.replace('progress.safetensors', bytes);
  return [...said, (await readProgress(storage)) ? 'progress' : 'no progress'];
}

/** A file of a fleet as it is, and under a checksum that fits; what it holds, and what it comes to. */
async function readsFleet(bytes: Uint8Array): Promise<string[]> {
  const said: string[] = [];
  for (const content of [bytes, ...checked(bytes)]) {
    let file: FleetFile | undefined;
    const opened = await told(async () => {
      file = await FleetFile.open(content, 'the file');
    }, FleetError);
    said.push(opened);
    const found = file;
    if (!found) continue;
    const { statements, features } = found.content;
    for (const { id } of statements.flatMap(({ entries }) => entries)) {
      said.push(await told(() => unpack(found.blob(id), features), FleetError));
    }
    // More than a file of these seeds is about takes memory, as it would on a device with such a bundle.
    if (features <= 64) said.push(await told(() => reducedOf(found), FleetError));
  }
  return said;
}

function checked(bytes: Uint8Array): Uint8Array[] {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(textOf(bytes.subarray(8, 8 + length))) as { __metadata__: { fleet: string } };
    const { fleet } = header.__metadata__;
    const metadata = { ...header.__metadata__, check: sha256(fleet) };
    const text = utf8(JSON.stringify({ ...header, __metadata__: metadata }));
    const prefix = new Uint8Array(8);
    new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
    return [concatenate([prefix, text, bytes.subarray(8 + length)])];
  } catch {
    return [];
  }
}
