import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { StateError } from '../src/errors.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { readFileAt } from '../src/node/opening.js';

const folderOf = (): string => mkdtempSync(join(tmpdir(), 'csk-'));
const pipe = (path: string): void => void execFileSync('mkfifo', [path]);
const device = (path: string): void => symlinkSync('/dev/zero', path);

// What hangs here shall not hang for long.
const SOON = 10_000;

describe.skipIf(process.platform === 'win32')('a file that is read by its name', () => {
  it.each([
    ['a pipe', pipe],
    ['a device', device],
    ['a folder', (path: string): void => mkdirSync(path)],
  ])(
    'is not %s',
    async (_, make) => {
      const folder = folderOf();
      for (const name of ['manifest.json', 'HEAD', 'lock']) make(join(folder, name));
      await expect(readFileAt(join(folder, 'HEAD'))).rejects.toThrow('not an ordinary file');
      await expect(new FolderStorage(folder).read('HEAD')).rejects.toThrow(StateError);
      await expect(Bundle.open(new FolderBundle(folder))).rejects.toThrow(
        /manifest\.json cannot be read \((not an ordinary file|it is a link that leads out of .*)\)/,
      );
      await expect(new FolderStorage(folder).lock()).rejects.toThrow(/lock/);
    },
    SOON,
  );

  it('may be a link inside its folder, and none that leads out', async () => {
    const folder = folderOf();
    const within = join(folder, 'bundle');
    mkdirSync(within);
    writeFileSync(join(folder, 'outside'), 'outside');
    writeFileSync(join(within, 'inside'), 'inside');
    symlinkSync('inside', join(within, 'fine'));
    symlinkSync('../outside', join(within, 'out'));
    symlinkSync('loop', join(within, 'loop'));
    const text = async (name: string): Promise<string> =>
      new TextDecoder().decode(await readFileAt(join(within, name), { within }));
    expect(await text('fine')).toBe('inside');
    for (const name of ['out', '../outside']) {
      await expect(text(name)).rejects.toThrow('it is a link that leads out of');
    }
    await expect(text('loop')).rejects.toThrow('ELOOP');
    await expect(text('none')).rejects.toThrow('ENOENT');
  });

  it('is not read as a whole where it is larger than it may be', async () => {
    const folder = folderOf();
    const path = join(folder, 'manifest.json');
    writeFileSync(path, 'x');
    truncateSync(path, 2 ** 31 - 1); // sparse: it takes no room on the disk
    expect((await readFileAt(path, { most: 10 })).length).toBe(11);
    await expect(Bundle.open(new FolderBundle(folder))).rejects.toThrow(
      "is larger than 8 MiB: it is no bundle's manifest.",
    );
    truncateSync(path, 2 ** 40);
    await expect(readFileAt(path)).rejects.toThrow('it has 1099511627776 bytes');
  });

  it('is not written to through a link that stands for the lock', async () => {
    const folder = folderOf();
    writeFileSync(join(folder, 'precious'), 'content');
    symlinkSync('precious', join(folder, 'lock'));
    await expect(new FolderStorage(folder).lock()).rejects.toThrow('is not an ordinary file: remove it');
    expect(readFileSync(join(folder, 'precious'), 'utf8')).toBe('content');
  });
});

describe('the code', () => {
  it('reads files by their names through one function', () => {
    const folder = 'src/node';
    const found = readdirSync(folder).flatMap((name) =>
      (
        readFileSync(join(folder, name), 'utf8').match(
          /\b(readFile|readFileSync|createReadStream|open)\(/g,
        ) ?? []
      ).map((call) => `${name} ${call}`),
    );
    // To write a new file, to sync a folder, to lock: OWN_FILE follows no link and waits for nothing.
    const allowed = ['folderStorage.ts open(', 'folderStorage.ts open(', 'lock.ts open(', 'lock.ts open('];
    expect(found.sort()).toEqual([...allowed, 'opening.ts open('].sort());
  });
});
