/** What a place for states must do, tried on each; and what only one of them can. */

import 'fake-indexeddb/auto';
import { spawn } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { IndexedDbStorage } from '../src/browser/indexedDbStorage.js';
import { StateError, StateLockedError, StorageError } from '../src/errors.js';
import { FolderStorage, storageError } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { python, temporaryFolder } from './fixtures.js';

let opened = 0;
const places = {
  memory: async () => new MemoryStorage(),
  folder: async () => new FolderStorage(join(temporaryFolder(), 'state')),
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
