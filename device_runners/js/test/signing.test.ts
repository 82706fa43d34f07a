/** Signed bundles: whoever names a key gets bundles of its holder only, and none that is older than one before. */

import { readFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Bundle } from '../src/bundle/bundle.js';
import { MemoryBundle } from '../src/bundle/source.js';
import { BundleError, ConfigError, StateError } from '../src/errors.js';
import { sha256, utf8 } from '../src/formats/bytes.js';
import { Learner } from '../src/learner.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { unseal } from '../src/state/record.js';
import type { Storage } from '../src/state/storage.js';
import { BUNDLE, bundleFiles, FIXTURES, python, runtime, temporaryFolder } from './fixtures.js';

const SIGNED = join(FIXTURES, 'signed');
const [TRUST, OTHER, RSA] = ['trust', 'other', 'rsa'].map((name) =>
  readFileSync(join(SIGNED, `${name}.pem`), 'utf8'),
) as [string, string, string];
const NOT_SIGNED_BY =
  /^The bundle in bundle is not signed by the key of the option trust \([0-9a-f]{8}…\): the signature/;

async function signed(counter: number, changes: Record<string, Uint8Array | undefined> = {}) {
  const files = await bundleFiles();
  for (const name of ['manifest.json', 'manifest.sig'])
    files.set(name, new Uint8Array(readFileSync(join(SIGNED, String(counter), name))));
  for (const [name, content] of Object.entries(changes)) {
    if (content) files.set(name, content);
    else files.delete(name);
  }
  return new MemoryBundle(files, 'bundle');
}

async function opened(
  counter: number,
  storage: Storage,
  more: { trust?: string; allowOlder?: boolean } = {},
) {
  return Learner.open({ runtime, bundle: await signed(counter), storage, trust: TRUST, ...more });
}

const file = (counter: number, name: string) =>
  new Uint8Array(readFileSync(join(SIGNED, String(counter), name)));

afterEach(() => vi.unstubAllGlobals());

describe('a bundle that Python signed', () => {
  it('opens with and without its key', async () => {
    expect((await Bundle.open(await signed(5), TRUST)).manifest.counter).toBe(5);
    expect((await Bundle.open(await signed(5))).id).toBe(sha256(file(5, 'manifest.json')));
    // As OpenSSL writes it with a text in front, and as Windows ends its lines.
    const framed = `ED25519 Public-Key:\n${TRUST.replaceAll('\n', '\r\n')}\r\n`;
    expect((await Bundle.open(await signed(5), framed)).manifest.counter).toBe(5);
  });

  it("is refused without a signature, in Python's words", async () => {
    const bundle = await signed(5, { 'manifest.sig': undefined });
    await expect(Bundle.open(bundle, TRUST)).rejects.toThrow(
      /^The bundle in bundle is not signed, and this device trusts only bundles signed by the key of the option trust \(/,
    );
  });

  it.each(['a bit', 'shorter', 'longer', 'empty', "another manifest's"])(
    'is refused with %s',
    async (change) => {
      const good = file(5, 'manifest.sig');
      const bad: Record<string, Uint8Array> = {
        'a bit': good.map((byte, i) => (i === 0 ? byte ^ 1 : byte)),
        shorter: good.slice(0, -1),
        longer: new Uint8Array([...good, 0]),
        empty: new Uint8Array(),
        "another manifest's": file(6, 'manifest.sig'),
      };
      const refused = Bundle.open(await signed(5, { 'manifest.sig': bad[change]! }), TRUST);
      await expect(refused).rejects.toThrow(NOT_SIGNED_BY);
      await expect(refused).rejects.toThrow(BundleError);
    },
  );

  it('is refused with the key of somebody else', async () => {
    await expect(Bundle.open(await signed(5), OTHER)).rejects.toThrow(NOT_SIGNED_BY);
  });

  it('is refused before anything that its manifest says is believed', async () => {
    const text = new TextDecoder().decode(file(5, 'manifest.json')).replace('"counter": 5', '"counter": 9');
    await expect(Bundle.open(await signed(5, { 'manifest.json': utf8(text) }), TRUST)).rejects.toThrow(
      NOT_SIGNED_BY,
    );
    const none = await signed(5, { 'manifest.json': utf8('{') });
    await expect(Bundle.open(none, TRUST)).rejects.toThrow(NOT_SIGNED_BY);
  });

  it('is refused where a file is another one under a good signature', async () => {
    const model = (await bundleFiles()).get('training_model.onnx')!;
    await expect(Bundle.open(await signed(5, { 'eval_model.onnx': model }), TRUST)).rejects.toThrow(
      'eval_model.onnx is not the file that was built',
    );
  });
});

describe('a key', () => {
  it.each([
    ['', 'is not a public key in PEM form'],
    [TRUST.replace('PUBLIC', 'PRIVATE'), 'is not a public key in PEM form'],
    [TRUST.replace('MCow', 'MCo!'), 'is not a public key in PEM form'],
    [TRUST.replace('MCow', 'MCo'), 'is not'],
    [RSA, 'is not an ed25519 key'],
    [5 as unknown as string, 'is no text'],
  ])('that is none is never taken for none given (%#)', async (trust, said) => {
    const refused = Bundle.open(await signed(5), trust);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(`trust ${said}`);
  });

  it.each([
    ['no Web Crypto', undefined],
    ['none of Ed25519', { subtle: { importKey: () => Promise.reject(new Error('NotSupportedError')) } }],
  ])('is refused by an engine with %s', async (_, crypto) => {
    vi.stubGlobal('crypto', crypto);
    await expect(Bundle.open(await signed(5), TRUST)).rejects.toThrow(
      'Signatures cannot be checked here: this JavaScript engine has no Ed25519 in its Web Crypto. Use Node 20',
    );
    expect((await Bundle.open(await signed(5))).manifest.counter).toBe(5);
  });
});

describe('a device', () => {
  it('refuses what is older than it has seen, unless its owner allows it', async () => {
    const storage = new MemoryStorage('state');
    await opened(0, storage);
    expect(storage.files.size).toBe(0);
    await opened(5, storage);
    for (const older of [4, 0]) {
      const refused = opened(older, storage);
      await expect(refused).rejects.toThrow(
        new BundleError(
          'The bundle in bundle is older than one that this device has accepted: its counter is ' +
            `${older}, and 5 was seen. Get the newest one; or, if you want this one, open it with allowOlder: true once.`,
        ),
      );
    }
    await opened(4, storage, { allowOlder: true });
    await opened(4, storage);
    await opened(5, storage);
    await expect(opened(0, storage)).rejects.toThrow('and 5 was seen');
    await opened(6, storage);
    await expect(opened(5, storage)).rejects.toThrow('its counter is 5, and 6 was seen');
    await opened(4, storage);
    // Nobody who trusts no key remembers, or is kept from anything.
    await Learner.open({ runtime, bundle: await signed(0), storage });
  });

  it('goes on where Python saw a bundle, and is gone on from', async () => {
    const state = join(temporaryFolder(), 'state');
    await cp(join(SIGNED, 'state'), state, { recursive: true });
    const storage = new FolderStorage(state);
    await expect(opened(4, storage)).rejects.toThrow('its counter is 4, and 5 was seen');
    await opened(6, storage);
    const whole = join(temporaryFolder(), 'bundle');
    await cp(BUNDLE, whole, { recursive: true });
    await cp(join(SIGNED, '5'), whole, { recursive: true, force: true });
    const said = python(
      'import sys\nfrom csk_sdk import Learner, BundleError\ntry: Learner.open(*sys.argv[1:3], trust=sys.argv[3])\n' +
        'except BundleError as error: print(error)',
      whole,
      state,
      join(SIGNED, 'trust.pem'),
    );
    expect(said).toContain('its counter is 5, and 6 was seen.');
  });

  it('keeps what a newer csk-sdk says of it, and forgets nothing by damage', async () => {
    const storage = new MemoryStorage('state');
    await opened(5, storage);
    const { seal } = await import('../src/state/record.js');
    const raw = (await unseal(storage, 'accepted.json')) as { keys: Record<string, object> };
    const [key] = Object.keys(raw.keys) as [string];
    raw.keys[key] = { ...raw.keys[key], seen_at: [1.5] };
    await storage.replace('accepted.json', seal({ ...raw, log: 'doors' }));
    await opened(6, storage);
    const text = new TextDecoder().decode(await storage.read('accepted.json'));
    expect(JSON.parse(text)).toMatchObject({
      log: 'doors',
      keys: { [key]: { seen_at: [1.5], highest: 6, allowed: [] } },
    });
    for (const damage of [text.replace('6', '5'), '{}', '']) {
      await storage.replace('accepted.json', utf8(damage));
      const refused = opened(6, storage);
      await expect(refused).rejects.toThrow(StateError);
      await expect(refused).rejects.toThrow(
        'accepted.json, which says what signed bundles were accepted, is damaged (',
      );
    }
    await opened(6, storage, { allowOlder: true });
    await opened(6, storage);
  });

  it('that is being written remembers next time', async () => {
    const storage = new MemoryStorage('state');
    const lock = await storage.lock();
    await opened(5, storage);
    expect(await storage.read('accepted.json')).toBeUndefined();
    await expect(opened(5, storage, { allowOlder: true })).rejects.toThrow('is writing to');
    await lock.release();
    await opened(5, storage);
    expect(await storage.read('accepted.json')).toBeDefined();
  });
});
