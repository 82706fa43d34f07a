/** What a fleet knows, applied: as Python applies it, whole or not at all, and taken back. */

import 'fake-indexeddb/auto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { IndexedDbStorage } from '../src/browser/indexedDbStorage.js';
import { FleetError, StateError, StateLockedError, StorageError } from '../src/errors.js';
import { textOf } from '../src/formats/bytes.js';
import { fleet } from '../src/index.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import {
  BUNDLE,
  digits,
  digitsTask,
  expectSame,
  FIXTURES,
  python,
  runtime,
  stateIn,
  temporaryFolder,
} from './fixtures.js';

const FLEET = join(FIXTURES, 'fleet');
const text = (name: string): string => readFileSync(join(FLEET, name), 'utf8');
const merged = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(join(FLEET, 'merged', `${name}.cskc`)));
const state = (...names: string[]) => stateIn(join(FLEET, ...names));

interface Applied {
  before: string;
  merged: string;
  report: {
    generation: number;
    changed: boolean;
    task: string;
    classes: string[];
    new: string[];
    own: number;
    notes: string[];
  };
  labels: string[];
  known: boolean[] | null;
}

const APPLIED = JSON.parse(text('applied.json')) as Record<string, Applied>;

async function open(storage: Storage, more: { trust?: string } = {}): Promise<Learner> {
  const bundle = new FolderBundle(BUNDLE);
  return Learner.open({ runtime, bundle, storage, config: { fewShot: 1e6 }, ...more });
}

interface RecordJson {
  tasks: Record<string, unknown>[];
}

function recordOf(storage: MemoryStorage, number: number): RecordJson {
  return JSON.parse(textOf(storage.files.get(`generations/00000${number}.json`)!)) as RecordJson;
}

describe.each(Object.entries(APPLIED))('a merged file that Python has applied: %s', (kind, told) => {
  // Contributions of two devices become one here, whose mixtures have other signs.
  const several = kind === 'both';

  it('is applied the same', async () => {
    const [storage, theirs] = [await state(told.before), await state('applied', kind)];
    const learner = await open(storage);
    const report = await fleet.apply(learner, merged(told.merged));
    expect(report).toEqual(told.report);
    const { number, parent } = learner.generation;
    expect(number).toBe(parent! + 1);
    const other = await open(theirs);
    expectSame(learner.generation.tensors, other.generation.tensors, several ? /scatter|head.fleet/ : /^$/);
    const [mine, record] = [recordOf(storage, number).tasks, recordOf(theirs, number).tasks];
    for (const [at, task] of record.entries()) {
      if (several && task.fleet !== undefined) {
        expect({ ...mine[at], contributions: {}, fleet: '' }).toEqual({
          ...task,
          contributions: {},
          fleet: '',
        });
      } else expect(mine[at]).toEqual(task);
    }
    const { labels, known } = await learner.predict((await digits()).test.pictures);
    const same = labels.filter((label, at) => label === told.labels[at]).length;
    expect(same / labels.length).toBeGreaterThan(0.995);
    // Of a class that is called otherwise in it nothing is measured, here and there.
    expect(known === undefined).toBe(told.known === null);
    const alike = known?.filter((one, at) => one === told.known?.[at]).length ?? labels.length;
    expect(alike / labels.length).toBeGreaterThan(0.99);
  });

  it('is known already where Python has applied it', async () => {
    const learner = await open(await state('applied', kind));
    const { changed, generation, notes } = await fleet.apply(learner, merged(told.merged));
    expect([changed, generation]).toEqual(several ? [true, 3] : [false, told.report.generation]);
    if (!several) expect(notes).toEqual([]);
  });
});

describe('what a fleet knows', () => {
  it('is known to Python, which goes on', async () => {
    const place = join(temporaryFolder(), 'state');
    await copyState(new FolderStorage(join(FLEET, 'kitchen')), new FolderStorage(place));
    const learner = await open(new FolderStorage(place));
    await fleet.apply(learner, merged('plain'));
    const { images, found } = JSON.parse(
      python(
        `
import json, sys
from csk_sdk import Learner, fleet
bundle, state, file = sys.argv[1:]
learner = Learner.open(bundle, state)
report = fleet.apply(learner, file)
assert (report.changed, report.generation, report.own) == (False, 2, 2), report
remains = learner.forget(task="fleet")
print(json.dumps({"images": learner.generation.tensors["statistics.counts"].sum(), "found": learner.classes}))
`,
        ...[BUNDLE, place, join(FLEET, 'merged/plain.cskc')],
      ),
    ) as { images: number; found: string[] };
    const before = await open(await state('kitchen'));
    expect(found).toEqual(before.classes);
    const counts = before.generation.tensors.get('statistics.counts')!.data as Float64Array;
    expect(images).toBe(counts.reduce((sum, one) => sum + one));
  });

  it('is applied once, is left again, and exporting tells nothing of it', async () => {
    const learner = await open(await state('kitchen'));
    const before = learner.generation.tensors;
    const first = await fleet.export(learner, { name: 'kitchen' });
    await fleet.apply(learner, merged('plain'));
    expect(learner.tasks.map(({ name }) => name)).toEqual(['01-four-five', 'fleet']);
    expect(learner.tasks[0]!.shared).toEqual(['five', 'four']);
    for (const name of ['plain', 'apart', 'signed']) {
      expect(await fleet.apply(learner, merged(name))).toMatchObject({ changed: false, generation: 2 });
    }
    expect((await fleet.export(learner, { name: 'kitchen' })).bytes).toEqual(first.bytes);
    expect(
      (await learner.predict((await digits()).test.pictures.slice(0, 4), { task: 'fleet' })).labels,
    ).toHaveLength(4);
    await learner.rollback('01-four-five');
    expectSame(learner.generation.tensors, before);
    expect((await learner.rollback('fleet')).number).toBe(2);
    // What an earlier file brought is replaced.
    await fleet.apply(learner, merged('named'));
    expect(learner.tasks.map(({ name }) => name)).toEqual(['01-four-five', 'fleet']);
    expect(learner.classes).toContain('fünf');
    expect(learner.classes).not.toContain('five');
    await learner.forget({ task: 'fleet' });
    expect(learner.tasks[0]!.shared).toEqual([]);
  });

  it('is known to a device that has learned nothing, which learns on', async () => {
    const learner = await open(new MemoryStorage());
    const report = await fleet.apply(learner, merged('plain'));
    expect([report.own, report.new.length]).toEqual([0, 6]);
    await expect(fleet.export(learner, { name: 'x' })).rejects.toThrow('this device has learned no task');
    const { test } = await digits();
    const { names } = await digits();
    const { labels } = await learner.predict(test.pictures);
    const right = labels.filter((label, at) => label === names[test.labels[at]!]).length;
    expect(right / labels.length).toBeGreaterThan(0.95);
    await learner.learn(await digitsTask('02-six-seven', 60), { replace: false });
    expect(learner.tasks.map(({ name }) => name)).toEqual(['fleet', '02-six-seven']);
  });

  it('has another name beside a task that is called so', async () => {
    const learner = await open(new MemoryStorage());
    await learner.learn({ ...(await digitsTask('01-four-five')), name: 'fleet' });
    expect((await fleet.apply(learner, merged('plain'))).task).toBe('fleet-2');
  });

  it('lies in IndexedDB as in a folder', async () => {
    // Node 20 has no locks of its own; the browser's are tried in the app's tests.
    const locks = { request: async (_: string, __: object, run: (lock: object) => Promise<void>) => run({}) };
    vi.stubGlobal('navigator', { locks });
    const [browser, back] = [await IndexedDbStorage.open('a fleet'), await IndexedDbStorage.open('another')];
    await copyState(await state('kitchen'), browser);
    const learner = await open(browser);
    const { bytes } = await fleet.export(learner, { name: 'kitchen' });
    await fleet.apply(learner, merged('plain'));
    await copyState(browser, back);
    const other = await open(back);
    expect((await fleet.export(other, { name: 'kitchen' })).bytes).toEqual(bytes);
    expect(await fleet.apply(other, merged('plain'))).toMatchObject({ changed: false, own: 2 });
    expectSame(other.generation.tensors, learner.generation.tensors);
  });
});

describe('whose files are taken', () => {
  const operator = text('operator.pub.pem');

  it('those of the key that is trusted', async () => {
    const learner = await open(await state('kitchen'));
    for (const [name, says] of [
      [
        'plain',
        /^The file is signed by nobody, and this device takes only what was signed by the key of the option trust/,
      ],
      ['strange', /^merged is signed by another key, and this device takes only/],
    ] as const) {
      const called = name === 'plain' ? {} : { name: 'merged' };
      await expect(fleet.apply(learner, merged(name), { trust: operator, ...called })).rejects.toThrow(says);
    }
    expect(learner.generation.number).toBe(1);
    expect((await fleet.apply(learner, merged('signed'), { trust: operator })).changed).toBe(true);
  });

  it('those of the key that bundles are signed by', async () => {
    const signed = join(FIXTURES, 'signed');
    const files = new Map(
      (await import('node:fs')).readdirSync(BUNDLE).map((name) => [name, readFileSync(join(BUNDLE, name))]),
    );
    for (const name of ['manifest.json', 'manifest.sig'])
      files.set(name, readFileSync(join(signed, '5', name)));
    const { MemoryBundle } = await import('../src/index.js');
    const trust = readFileSync(join(signed, 'trust.pem'), 'utf8');
    const bundle = new MemoryBundle(files as Map<string, Uint8Array>, 'bundle');
    const learner = await Learner.open({ runtime, bundle, storage: new MemoryStorage(), trust });
    await expect(fleet.apply(learner, merged('signed'))).rejects.toThrow('is signed by another key');
  });

  it('none that is signed where the engine cannot tell', async () => {
    const learner = await open(await state('kitchen'));
    const { crypto } = globalThis;
    try {
      Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true });
      await expect(fleet.apply(learner, merged('signed'))).rejects.toThrow(
        'It is signed, and that cannot be checked here: this JavaScript engine has no Ed25519',
      );
      expect((await fleet.apply(learner, merged('plain'))).changed).toBe(true);
    } finally {
      Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true });
    }
  });
});

describe('what cannot be applied is one sentence, and changes nothing', () => {
  it.each([
    [
      'base',
      "The file calls 'zero' 'six', and 'zero' is one of the base, which keeps its name: merge again with `--same six=zero`.",
    ],
    ['twin', "The file has a class 'four', and there is one called 'Four' here, which differs only in case"],
  ])('%s', async (name, says) => {
    const storage = new MemoryStorage();
    const learner = await open(storage);
    const before = learner.generation.number;
    const refused = fleet.apply(learner, merged(name));
    await expect(refused).rejects.toThrow(FleetError);
    await expect(fleet.apply(learner, merged(name))).rejects.toThrow(says);
    expect(learner.generation.number).toBe(before);
    expect(await learner.state.head()).toBe(before);
  });

  it('of another bundle', async () => {
    const bundle = new FolderBundle(join(FIXTURES, 'upgrades/narrower/to'));
    const learner = await Learner.open({ runtime, bundle, storage: new MemoryStorage() });
    await expect(fleet.apply(learner, merged('plain'), { name: 'merged.cskc' })).rejects.toThrow(
      /^merged\.cskc is of bundle .{8}…, and this device has .{8}…: take the file that was merged for this bundle\.$/,
    );
  });

  it('while something learns, and where there is no room', async () => {
    const learner = await open(await state('kitchen'));
    await learner.state.locked(async () => {
      await expect(fleet.apply(learner, merged('plain'))).rejects.toThrow(StateLockedError);
    });
    const files = (await state('kitchen')).files;
    const used = [...files.values()].reduce((sum, { length }) => sum + length, 0);
    const full = new MemoryStorage('full', used + 50_000);
    for (const [path, content] of files) full.files.set(path, content);
    const cramped = await open(full);
    await expect(fleet.apply(cramped, merged('plain'))).rejects.toThrow(StorageError);
    expect(await cramped.state.head()).toBe(1);
  });

  it('where a csk-sdk that kept no contributions has learned', async () => {
    const storage = await state('kitchen');
    for (const path of storage.files.keys()) if (path.startsWith('ledger/')) storage.files.delete(path);
    const learner = await open(storage);
    await expect(fleet.apply(learner, merged('plain'))).rejects.toThrow(
      /^What a fleet knows cannot be added here, since of task '01-four-five' .* is missing or damaged: a csk-sdk/,
    );
    await expect(fleet.export(learner, { name: 'x' })).rejects.toThrow(
      /^There is nothing to export: '(four|five)' of task '01-four-five' stays here: its contribution cannot be read \(.* is missing or damaged\)\.$/,
    );
  });

  it('a crash at any write leaves what was there', async () => {
    const files = (await state('kitchen')).files;
    const before = (await open(await state('kitchen'))).generation.tensors;
    let finished = false;
    for (let stop = 0; !finished; stop++) {
      const storage = new MemoryStorage();
      for (const [path, content] of files) storage.files.set(path, content);
      let writes = 0;
      const real = storage.replace.bind(storage);
      storage.replace = async (path, data) => {
        if (writes++ === stop) throw new StateError('killed');
        await real(path, data);
      };
      const learner = await open(storage);
      finished = await fleet.apply(learner, merged('plain')).then(
        () => true,
        (error: Error) => {
          expect(error.message).toBe('killed');
          return false;
        },
      );
      storage.replace = real;
      const again = await open(storage);
      if (finished) break;
      expect(await again.state.head()).toBe(1);
      expectSame(again.generation.tensors, before);
      expect((await fleet.apply(again, merged('plain'))).changed).toBe(true);
      expect(stop).toBeLessThan(30);
    }
  });
});
