/** What a place for states must do, tried on each; and what only one of them can. */

import 'fake-indexeddb/auto';
import { spawn } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { IndexedDbStorage } from '../src/browser/indexedDbStorage.js';
import { reasonOf, StateError, StateLockedError, StorageError } from '../src/errors.js';
import { utf8 } from '../src/formats/bytes.js';
import { VersionedStorage } from '../src/native/versionedStorage.js';
import { storageError } from '../src/node/failures.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { State } from '../src/state/state.js';
import type { Storage } from '../src/state/storage.js';
import { python, temporaryFolder } from './fixtures.js';
import { PhoneFiles } from './storing.js';

let opened = 0;
const places: Record<string, () => Promise<Storage>> = {
  memory: async () => new MemoryStorage(),
  folder: async () => new FolderStorage(join(temporaryFolder(), 'state')),
  'files of a phone': async () => new VersionedStorage(new PhoneFiles(), `state ${(opened += 1)}`),
  indexedDB: async () => IndexedDbStorage.open(`state ${(opened += 1)}`),
};

describe.each(Object.entries(places))('a state in %s', (place, open) => {
  it('reads what was written, whole', async () => {
    const storage = await open();
    expect(await storage.read('HEAD')).toBeUndefined();
    expect(await storage.size('HEAD')).toBeUndefined();
    expect(await storage.list('generations')).toEqual([]);
    const data = Uint8Array.of(1, 2, 3);
    await storage.replace('HEAD', data);
    data[0] = 9;
    expect([...(await storage.read('HEAD'))!]).toEqual([1, 2, 3]);
    await storage.replace('HEAD', Uint8Array.of(4), { durable: false });
    expect(await storage.size('HEAD')).toBe(1);
    await storage.replace('generations/000001.json', data);
    await storage.replace('generations/000002.json', data);
    expect((await storage.list('generations')).sort()).toEqual(['000001.json', '000002.json']);
    expect(await storage.remove('generations/000001.json')).toBe(true);
    expect(await storage.remove('generations/000001.json')).toBe(true);
    expect(await storage.list('generations')).toEqual(['000002.json']);
  });

  // Node 20 has no navigator.locks; the browser's is tried by `npm run conformance`.
  it.skipIf(place === 'indexedDB')('has one writer at a time', async () => {
    const storage = await open();
    const lock = await storage.lock();
    await expect(storage.lock()).rejects.toThrow(StateLockedError);
    await lock.release();
    await (await storage.lock()).release();
  });
});

describe('a state in a folder', () => {
  it('leaves no temporary file, and removes those of the dead', async () => {
    const folder = temporaryFolder();
    const storage = new FolderStorage(folder);
    writeFileSync(join(folder, '.HEAD.1-00000000.csk-tmp'), 'half');
    await storage.replace('HEAD', Uint8Array.of(1));
    await storage.clean('');
    expect(readdirSync(folder)).toEqual(['HEAD']);
  });

  it('excludes the Python SDK, and is excluded by it', async () => {
    const folder = join(temporaryFolder(), 'state');
    const storage = new FolderStorage(folder);
    const lock = await storage.lock();
    const attempt = `
import sys
from pathlib import Path
from csk_sdk.errors import StateLockedError
from csk_sdk.state.lock import StateLock
try:
    with StateLock(Path(sys.argv[1])):
        print("got it")
except StateLockedError as error:
    print(error)
`;
    expect(python(attempt, folder)).toContain(`This process (pid ${process.pid})`.replace('This', 'Another'));
    await lock.release();
    expect(python(attempt, folder)).toBe('got it\n');
    const hold = `
import sys
from pathlib import Path
from csk_sdk.state.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
`;
    const program = process.env.PYTHON ?? resolve('../../.venv/bin/python');
    const holder = spawn(program, ['-c', hold, folder], { stdio: ['pipe', 'pipe', 'inherit'] });
    await new Promise((held) => holder.stdout.once('data', held));
    await expect(storage.lock()).rejects.toThrow(
      `Another process (pid ${holder.pid}) is writing to ${folder}`,
    );
    const ended = new Promise((done) => holder.once('exit', done));
    holder.kill('SIGKILL');
    await ended;
    await (await storage.lock()).release();
  });

  it('says what the disk refused', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'file'), '');
    const inTheWay = new FolderStorage(join(folder, 'file'));
    await expect(inTheWay.replace('HEAD', Uint8Array.of(1))).rejects.toThrow(StorageError);
    await expect(new FolderStorage(folder).read('.')).rejects.toThrow(StateError);
    const of = (code: string): string =>
      storageError(Object.assign(new Error('x'), { code }), 'write it').message;
    expect(of('ENOSPC')).toMatch(/^The storage is full: could not write it\. Free some space .* is lost\.$/);
    expect(of('EROFS')).toMatch(/^The file system is read-only/);
    expect(of('EACCES')).toMatch(/^Permission denied/);
    expect(of('EIO')).toMatch(/^The disk refused \(x\)/);
  });
});

it.each([
  [new Error('two\nlines'), 'two lines'],
  [{ message: 'no Error' }, 'no Error'],
  [new DOMException('', 'AbortError'), 'AbortError'],
  ['a text', 'a text'],
  [null, 'null'],
])('says why something failed, whatever was thrown: %s', (thrown, reason) => {
  expect(reasonOf(thrown)).toBe(reason);
});

it('tells a full database from a refusal', async () => {
  const storage = await IndexedDbStorage.open('full');
  const refuse = (name: string): IndexedDbStorage => {
    const database = {
      transaction: () => {
        throw new DOMException('no', name);
      },
    };
    return Object.assign(Object.create(IndexedDbStorage.prototype), { name: 'full', database });
  };
  await storage.replace('HEAD', Uint8Array.of(1));
  await expect(refuse('QuotaExceededError').replace('HEAD', Uint8Array.of(2))).rejects.toThrow(
    /storage is full/,
  );
  await expect(refuse('UnknownError').replace('HEAD', Uint8Array.of(2))).rejects.toThrow(/browser refused/);
  await expect(refuse('UnknownError').read('HEAD')).rejects.toThrow(StateError);
  expect([...(await storage.read('HEAD'))!]).toEqual([1]);
});

it('IndexedDB replaces all files at once, or none', async () => {
  const storage = await IndexedDbStorage.open('replaced');
  await storage.replace('HEAD', Uint8Array.of(1));
  await storage.replace('generations/000001.json', Uint8Array.of(2));
  // The second cannot be stored, so the transaction ends with an error when the first was put already.
  const broken = { length: 1, slice: () => () => undefined } as unknown as Uint8Array;
  const torn = new Map([
    ['HEAD', Uint8Array.of(3)],
    ['generations/000002.json', broken],
  ]);
  await expect(storage.replaceAll(torn)).rejects.toThrow(StorageError);
  expect([...(await storage.read('HEAD'))!]).toEqual([1]);
  expect(await storage.list('generations')).toEqual(['000001.json']);
  await storage.replaceAll(new Map([['generations/000002.json', Uint8Array.of(4, 5)]]));
  expect(await storage.read('HEAD')).toBeUndefined();
  expect(await storage.list('generations')).toEqual(['000002.json']);
  expect(await storage.size('generations/000002.json')).toBe(2);
});

describe('a state in files of a phone', () => {
  it('falls back to the content before, where the newest was torn', async () => {
    const files = new PhoneFiles();
    const storage = new VersionedStorage(files, 'state');
    for (const value of [1, 2, 3, 4]) await storage.replace('HEAD', Uint8Array.of(value));
    expect([...files.files.keys()]).toEqual(['state/HEAD@3', 'state/HEAD@4']);
    for (const length of [64, 10, 0]) {
      files.files.set('state/HEAD@4', files.files.get('state/HEAD@4')!.subarray(0, length));
      expect([...(await storage.read('HEAD'))!]).toEqual([3]);
    }
    await storage.replace('HEAD', Uint8Array.of(5));
    expect([...(await storage.read('HEAD'))!]).toEqual([5]);
    expect(await storage.remove('HEAD')).toBe(true);
    expect(files.files.size).toBe(0);
  });

  it('says what the phone refused, and removes what is half-written', async () => {
    const files = new PhoneFiles();
    const storage = new VersionedStorage(files, 'state');
    await storage.replace('HEAD', Uint8Array.of(1));
    files.rename = () => Promise.reject(new Error('no space'));
    await expect(storage.replace('HEAD', Uint8Array.of(2))).rejects.toThrow(/The phone refused \(no space\)/);
    expect([...files.files.keys()]).toEqual(['state/HEAD@1']);
    files.list = () => Promise.reject(new Error('gone'));
    await expect(storage.read('HEAD')).rejects.toThrow(StateError);
  });
});

it('copies a state, HEAD last, into an empty place only', async () => {
  const from = new MemoryStorage();
  for (const path of ['HEAD', 'state.json', 'generations/000001.json', 'lock', 'progress.safetensors']) {
    await from.replace(path, utf8(path));
  }
  const to = new MemoryStorage();
  await copyState(from, to);
  expect([...to.files.keys()]).toEqual(['generations/000001.json', 'state.json', 'HEAD']);
  expect(to.files.get('HEAD')).toEqual(utf8('HEAD'));
  await expect(copyState(from, to)).rejects.toThrow(/holds a state already/);
  await expect(copyState(new MemoryStorage(), new MemoryStorage())).rejects.toThrow(/no state to copy/);
  await (await from.lock()).release();
});

describe('a folder of other things', () => {
  const begun = (folder: string) => State.open(new FolderStorage(folder), 'b'.repeat(64), new Map());

  it('becomes no state', async () => {
    const folder = temporaryFolder();
    for (const name of ['2.png', '0.png', '10.png', '1.png']) writeFileSync(join(folder, name), '');
    // Python's sentence: tests/cli/test_places.py.
    await expect(begun(folder)).rejects.toThrow(
      new StateError(
        `${folder} is no state and holds other things (0.png, 1.png, 10.png, ...): a state needs a folder of its own. Give ` +
          'one that is empty, or that is not there yet.',
      ),
    );
    expect(readdirSync(folder)).toHaveLength(4);
  });

  it.each(['.gitkeep', 'lost+found', 'lock', 'kernels-x'])('is not one with %s only', async (there) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, there), '');
    const state = await begun(folder);
    await state.locked(() => state.saveProgress(new Map(), {}));
    writeFileSync(join(folder, 'notes.txt'), '');
    expect(await (await begun(folder)).head()).toBe(0);
  });
});
