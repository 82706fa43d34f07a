/** What a device tells its fleet: the file that Python writes of the same state, byte for byte, and what is remembered of it. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, FleetError, StateLockedError } from '../src/errors.js';
import { FleetFile } from '../src/fleet/files.js';
import { unpack } from '../src/fleet/packing.js';
import { textOf, utf8 } from '../src/formats/bytes.js';
import { fleet } from '../src/index.js';
import { Learner } from '../src/learner.js';
import type { Contribution } from '../src/method/contributions.js';
import { columnSquares } from '../src/method/matrix.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { seal } from '../src/state/record.js';
import type { Storage } from '../src/state/storage.js';
import { BUNDLE, digitsTask, FIXTURES, python, runtime, stateIn, temporaryFolder } from './fixtures.js';

const FLEET = join(FIXTURES, 'fleet');
const text = (name: string): string => readFileSync(join(FLEET, name), 'utf8');

interface Exported {
  options: { name: string; least?: number; bits?: 4 | 8; sign?: string };
  report: {
    device: string;
    name: string;
    sequence: number;
    classes: Record<string, number>;
    left_out: string[];
    bytes: number;
  };
}

const EXPORTED = JSON.parse(text('exported.json')) as Record<string, Exported>;

async function open(storage: Storage): Promise<Learner> {
  return Learner.open({ runtime, bundle: new FolderBundle(BUNDLE), storage, config: { fewShot: 1e6 } });
}

const kitchen = async () => open(await stateIn(join(FLEET, 'kitchen')));

function said(storage: MemoryStorage): Record<string, unknown> {
  const { check, ...rest } = JSON.parse(textOf(storage.files.get('fleet.json')!)) as Record<string, unknown>;
  expect(check).toMatch(/^[0-9a-f]{64}$/);
  return rest;
}

// Of a class that was merged on the device there are more rows than are sent: those that are made of them are rounded otherwise.
const { merged: MERGED, ...SAME } = EXPORTED;

async function contributionsIn(bytes: Uint8Array): Promise<[string, Contribution][]> {
  const file = await FleetFile.open(bytes, 'the file');
  const { entries } = file.content.statements[0]!;
  return entries.map(({ name, id }) => [name, unpack(file.blob(id), file.content.features)]);
}

describe.each(Object.entries(SAME))('a device that Python has exported: %s', (kind, { options, report }) => {
  it('is exported to the same file', async () => {
    const storage = await stateIn(join(FLEET, 'exported', kind, 'state'));
    const before = said(storage);
    const learner = await open(storage);
    const sign = options.sign === undefined ? {} : { sign: text(options.sign) };
    const found = await fleet.export(learner, { ...options, ...sign });
    const file = new Uint8Array(readFileSync(join(FLEET, 'exported', kind, 'file.cskc')));
    expect(Buffer.compare(found.bytes, file)).toBe(0);
    expect({ ...found, bytes: found.bytes.length, classes: Object.fromEntries(found.classes) }).toEqual({
      ...{ device: report.device, name: report.name, sequence: report.sequence },
      ...{ classes: report.classes, leftOut: report.left_out, bytes: report.bytes },
    });
    expect(said(storage)).toEqual(before);
  });
});

describe('what a device says', () => {
  it('of a class that was merged on it is the same but for rounding', async () => {
    const place = join(FLEET, 'exported/merged');
    const learner = await open(await stateIn(join(place, 'state')));
    const found = await fleet.export(learner, MERGED!.options);
    expect(Object.fromEntries(found.classes)).toEqual(MERGED!.report.classes);
    const [[name, mine], ...rest] = await contributionsIn(found.bytes);
    const [[other, theirs]] = await contributionsIn(new Uint8Array(readFileSync(join(place, 'file.cskc'))));
    expect([name, rest, mine!.count, mine!.factor.length]).toEqual([
      other,
      [],
      theirs!.count,
      theirs!.factor.length,
    ]);
    const f = mine!.mean.length;
    const [own, wanted] = [mine!, theirs!].map(({ factor }) => columnSquares(Float64Array.from(factor), f));
    for (let j = 0; j < f; j++) {
      expect(Math.abs(mine!.mean[j]! - theirs!.mean[j]!)).toBeLessThan(
        1e-5 * (1 + Math.abs(theirs!.mean[j]!)),
      );
      expect(Math.abs(own![j]! - wanted![j]!)).toBeLessThan(1e-4 * (1e-6 + wanted![j]!));
    }
  });

  it('is of a new device, remembered, and what Python says next', async () => {
    const place = join(temporaryFolder(), 'state');
    await copyState(new FolderStorage(join(FLEET, 'kitchen')), new FolderStorage(place));
    const learner = await open(new FolderStorage(place));
    const first = await fleet.export(learner, { name: 'kitchen' });
    expect(first.device).toMatch(/^[0-9a-f]{64}$/);
    expect(Math.abs(first.sequence - Date.now() / 1000)).toBeLessThan(3600);
    expect((await fleet.export(learner, { name: 'kitchen' })).bytes).toEqual(first.bytes);
    expect((await fleet.export(await kitchen(), { name: 'kitchen' })).device).not.toBe(first.device);
    const out = join(temporaryFolder(), 'kitchen.cskc');
    const script = `
import sys
from csk_sdk import Learner, fleet
bundle, state, out = sys.argv[1:]
print(fleet.export(Learner.open(bundle, state), out).sequence)
`;
    expect(Number(python(script, BUNDLE, place, out))).toBe(first.sequence);
    expect(new Uint8Array(readFileSync(out))).toEqual(first.bytes);
  });

  it('is newer where something has changed, and takes back what is forgotten', async () => {
    const storage = await stateIn(join(FLEET, 'kitchen'));
    const learner = await open(storage);
    const first = await fleet.export(learner, { name: 'kitchen' });
    await learner.forget({ classes: ['five'] });
    const second = await fleet.export(learner, { name: 'kitchen' });
    expect([...second.classes.keys()]).toEqual(['four']);
    expect(second.device).toBe(first.device);
    expect(second.sequence).toBeGreaterThan(first.sequence);
    const { devices } = said(storage) as { devices: Record<string, { ids: string[]; withdrawn: string[] }> };
    const { ids, withdrawn } = devices[first.device]!;
    expect([ids.length, withdrawn.length]).toEqual([1, 1]);
    const { statements } = (await FleetFile.open(second.bytes, 'the file')).content;
    expect(statements[0]!.withdrawn).toEqual(withdrawn);
    // Fields of a newer csk-sdk stay.
    const file = JSON.parse(textOf(storage.files.get('fleet.json')!)) as Record<string, unknown>;
    delete file.check;
    await storage.replace('fleet.json', seal({ ...file, newer: { a: 1 } }));
    await fleet.export(learner, { name: 'another' });
    expect(said(storage)).toMatchObject({ newer: { a: 1 } });
  });

  it('goes with its state, and with an empty place it is gone', async () => {
    const storage = await stateIn(join(FLEET, 'kitchen'));
    const first = await fleet.export(await open(storage), { name: 'kitchen' });
    const copy = new MemoryStorage('the copy');
    await copyState(storage, copy);
    expect((await fleet.export(await open(copy), { name: 'kitchen' })).bytes).toEqual(first.bytes);
  });

  it('is merged by Python with others', async () => {
    const folder = temporaryFolder();
    const storage = new FolderStorage(join(folder, 'state'));
    const learner = await open(storage);
    await learner.learn(await digitsTask('02-six-seven'));
    const found = await fleet.export(learner, { name: 'hall', bits: 4, sign: text('device.pem') });
    writeFileSync(join(folder, 'hall.cskc'), found.bytes);
    const script = `
import json, sys
from csk_sdk import fleet
out, key, *files = sys.argv[1:]
report = fleet.merge(files, out, trust=[key])
print(json.dumps([report.classes, fleet.inspect(files[0]).to_json()["devices"]]))
`;
    const files = [join(folder, 'hall.cskc'), join(FLEET, 'exported/signed/file.cskc')];
    const told = python(script, join(folder, 'm.cskc'), join(FLEET, 'device.pub.pem'), ...files);
    const [classes, devices] = JSON.parse(told) as [
      Record<string, number>,
      Record<string, { signed: boolean }>,
    ];
    // One key is one device, and its newer file counts.
    expect(classes).toEqual(Object.fromEntries(found.classes));
    expect(devices[found.device]!.signed).toBe(true);
  });

  it('may be nothing, in one sentence', async () => {
    const empty = await open(new MemoryStorage());
    await expect(fleet.export(empty, { name: 'x' })).rejects.toThrow(
      new FleetError('There is nothing to export: this device has learned no task.'),
    );
    const few = await open(new MemoryStorage());
    await few.learn({ ...(await digitsTask('01-four-five', 12)), name: '01' }, { labelCheck: false });
    await expect(fleet.export(few, { name: 'x' })).rejects.toThrow(
      /^There is nothing to export: '(four|five)' of task '01' stays here: of \d images it would say too much, and 20 are the least\.$/,
    );
    expect((await fleet.export(few, { name: 'x', least: 1 })).leftOut).toEqual([]);
  });

  it.each([
    [{ name: 'a\nb' }, FleetError, "a device cannot be called 'a\\nb': give another name."],
    [{ name: ' ' }, FleetError, 'give another name'],
    [{}, FleetError, "cannot be called 'undefined'"],
    [{ name: 'x', least: 0 }, FleetError, 'least is 0, and must be a whole number of images, 1 or more.'],
    [{ name: 'x', least: 1.5 }, FleetError, 'least is 1.5, and must be'],
    [{ name: 'x', least: '20' }, FleetError, 'least is "20", and must be'],
    [{ name: 'x', bits: 5 }, FleetError, 'bits is 5, and must be 4 or 8.'],
    [{ name: 'x', sign: 'x' }, ConfigError, 'sign is not a private key in PEM form: make one with'],
    [{ name: 'x', sign: 5 }, ConfigError, 'sign is no text, and must be a private key'],
    [{ name: 'x', sign: text('device.pub.pem') }, ConfigError, 'sign is not a private key in PEM form'],
    [
      {
        name: 'x',
        sign: '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----',
      },
      ConfigError,
      'has a password',
    ],
    [
      { name: 'x', sign: '-----BEGIN PRIVATE KEY-----\nMIGj\n-----END PRIVATE KEY-----' },
      ConfigError,
      'sign is not an ed25519 key',
    ],
    [
      // Of the kind, and cut off.
      { name: 'x', sign: '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----' },
      ConfigError,
      'sign is not an ed25519 key',
    ],
  ])('is refused for %j', async (options, kind, says) => {
    const learner = await kitchen();
    const refused = fleet.export(learner, options as never);
    await expect(refused).rejects.toThrow(kind);
    await expect(fleet.export(learner, options as never)).rejects.toThrow(says);
    expect((learner.state.storage as MemoryStorage).files.has('fleet.json')).toBe(false);
  });

  it('is refused where an engine cannot sign, or somebody learns', async () => {
    const learner = await kitchen();
    await learner.state.locked(async () => {
      await expect(fleet.export(learner, { name: 'x' })).rejects.toThrow(StateLockedError);
    });
    const { crypto } = globalThis;
    try {
      Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true });
      await expect(fleet.export(learner, { name: 'x', sign: text('device.pem') })).rejects.toThrow(
        'Nothing can be signed here: this JavaScript engine has no Ed25519',
      );
      expect((await fleet.export(learner, { name: 'x' })).device).toMatch(/^[0-9a-f]{64}$/);
    } finally {
      Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
    }
  });

  it('that is damaged is no silence', async () => {
    const storage = await stateIn(join(FLEET, 'exported/plain/state'));
    const good = textOf(storage.files.get('fleet.json')!);
    await storage.replace('fleet.json', utf8(good.replace('sequence', 'sequencf')));
    const learner = await open(storage);
    await expect(fleet.export(learner, { name: 'kitchen' })).rejects.toThrow(
      /fleet\.json is damaged: its checksum does not match\. It says who this device is to its fleet/,
    );
    const { check, ...rest } = JSON.parse(good) as Record<string, unknown>;
    expect(check).toBeDefined();
    await storage.replace('fleet.json', seal({ ...rest, unsigned: 'x' }));
    await expect(fleet.export(learner, { name: 'kitchen' })).rejects.toThrow(
      /fleet\.json is damaged: unsigned must be 64 hexadecimal digits\. It says who/,
    );
  });
});
