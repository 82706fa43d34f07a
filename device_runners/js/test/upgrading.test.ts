/** What was learned on one bundle, carried over to the next: as Python carries it, and the old is left as it was. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BundleError, StateError, StateLockedError } from '../src/errors.js';
import { textOf } from '../src/formats/bytes.js';
import { fleet } from '../src/index.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import type { Storage } from '../src/state/storage.js';
import { upgrade, upgradeBack } from '../src/upgrading.js';
import { only } from '../tools/digits.js';
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
import { NAMES } from './teaching.js';

const UPGRADES = join(FIXTURES, 'upgrades');
const bundleOf = (kind: string, name: string) => new FolderBundle(join(UPGRADES, kind, name));

const copied = (kind: string, name: string) => stateIn(join(UPGRADES, kind, name));

async function upgraded(kind: string, storage: Storage = new MemoryStorage()) {
  const state = await copied(kind, 'state');
  const from = { bundle: bundleOf(kind, 'from'), storage: state };
  const to = { bundle: bundleOf(kind, 'to'), storage };
  const report = await upgrade({ from, to });
  const open = async (place: typeof from | typeof to) => Learner.open({ runtime, ...place });
  return { report, old: await open(from), learner: await open(to) };
}

it('finishes a forgetting that was interrupted, since nothing is written to the old place any more', async () => {
  const storage = await copied('sites', 'state');
  const { remove } = storage;
  const from = { bundle: bundleOf('sites', 'from'), storage };
  const holding = (): string[] =>
    [...storage.files].filter(([, data]) => textOf(data).includes('"four"')).map(([path]) => path);
  storage.remove = async () => false;
  const learner = await Learner.open({ runtime, ...from });
  await expect(learner.forget({ classes: ['four'] })).rejects.toThrow('holds what is to be forgotten');
  storage.remove = remove;
  expect(holding()).not.toEqual([]);
  const to = { bundle: bundleOf('sites', 'to'), storage: new MemoryStorage() };
  expect((await upgrade({ from, to })).tasks).not.toEqual([]);
  expect(holding()).toEqual([]);
});

describe.each(['sites', 'narrower', 'wider'])('to a bundle of %s', (kind) => {
  it('carries over what Python does', async () => {
    const told = JSON.parse(readFileSync(join(UPGRADES, kind, 'told.json'), 'utf8')) as {
      labels: string[];
      notes: string[];
      merged: string[];
    };
    const { report, old, learner } = await upgraded(kind);
    expect(report).toMatchObject({ generation: 1, tasks: ['01-four-five'], merged: told.merged, lost: [] });
    expect(report.notes).toEqual(told.notes);
    const theirs = await Learner.open({
      runtime,
      bundle: bundleOf(kind, 'to'),
      storage: await copied(kind, 'carried'),
    });
    // Of what a map leaves, mixtures have other signs: they differ where it is carried by one.
    const loose = kind === 'wider' ? /scatter|familiarity|^head\/01/ : /^$/;
    expectSame(learner.generation.tensors, theirs.generation.tensors, loose);
    expect(learner.tasks[0]!.notes).toEqual(theirs.tasks[0]!.notes);
    const { labels } = await learner.predict((await digits()).test.pictures);
    const same = labels.filter((label, at) => label === told.labels[at]).length;
    expect(same / labels.length).toBeGreaterThan(kind === 'wider' ? 0.98 : 0.995);
    // The old one is what it was, and what was carried can be learned on, and forgotten.
    expect(old.generation.number).toBe(1);
    await learner.learn(await digitsTask('02-six-seven'), { epochs: 1, train: 'centers' });
    const forgotten = await learner.forget({ task: '01-four-five' });
    expect([...forgotten.classes].sort()).toEqual(['five', 'four']);
    for (const one of [old, learner, theirs]) await one.close();
  });
});

it('leaves domains behind, which are of the old network, and says so', async () => {
  const from = { bundle: bundleOf('sites', 'from'), storage: await copied('sites', 'state') };
  const to = { bundle: bundleOf('sites', 'to'), storage: new MemoryStorage() };
  const { train } = await digits();
  const shown = only(train, [0, 1, 2, 3]).pictures.slice(0, 64);
  const faint = shown.map((one) => ({
    ...one,
    data: Uint8Array.from(one.data, (value) => (value >> 3) + 60),
  }));
  const old = await Learner.open({ runtime, ...from });
  await old.adapt('faint', faint);
  const { notes } = await upgrade({ from, to });
  expect(notes.at(-1)).toBe(
    'What was learned of the domains faint is left behind, since it is of the old network: adapt to them again.',
  );
  const learner = await Learner.open({ runtime, ...to });
  expect([learner.domains, old.domains]).toEqual([[], ['faint']]);
  await learner.adapt('faint', faint);
  expect(learner.domains).toEqual(['faint']);
});

it('carries what an older csk-sdk learned over by the spread that all classes share, as Python does', async () => {
  const folder = temporaryFolder();
  const script = `
import shutil, sys
from dataclasses import replace
from pathlib import Path
from csk_sdk import Learner, upgrade
given, folder = map(Path, sys.argv[1:])
for name in ("from", "state"):
    shutil.copytree(given / name, folder / name)
learner = Learner.open(folder / "from", folder / "state")
older = [replace(task, contributions={}, carried={}) for task in learner.tasks]
with learner.state.lock():
    learner.state.commit(1, older, learner.generation.tensors)
shutil.copytree(folder / "state", folder / "carried")
upgrade(folder / "from", folder / "carried", given / "to")
`;
  python(script, join(UPGRADES, 'narrower'), folder);
  const from = { bundle: bundleOf('narrower', 'from'), storage: new FolderStorage(join(folder, 'state')) };
  const to = { bundle: bundleOf('narrower', 'to'), storage: new MemoryStorage() };
  await upgrade({ from, to });
  const mine = await Learner.open({ runtime, ...to });
  const carried = new FolderStorage(join(folder, 'carried'));
  const theirs = await Learner.open({ runtime, bundle: to.bundle, storage: carried });
  expect([...mine.tasks[0]!.contributions.values()].filter(Boolean)).toHaveLength(2);
  expectSame(mine.generation.tensors, theirs.generation.tensors, /^$/);
  for (const one of [mine, theirs]) await one.close();
});

it.each(['narrower', 'sites'])('knows by the totals what a damaged contribution said: %s', async (kind) => {
  const from = { bundle: bundleOf(kind, 'from'), storage: await copied(kind, 'state') };
  const before = await Learner.open({ runtime, ...from });
  const file = `ledger/${before.tasks[0]!.contributions.get('four')}.safetensors`;
  from.storage.files.set(file, from.storage.files.get(file)!.slice(0, -100));
  const to = { bundle: bundleOf(kind, 'to'), storage: new MemoryStorage() };
  await upgrade({ from, to });
  const after = await Learner.open({ runtime, ...to });
  const [counted, carried] = [before, after].map(({ generation }) => generation.tensors);
  expect(carried!.get('statistics.counts')).toEqual(counted!.get('statistics.counts'));
  const { test } = await digits();
  const { labels } = await after.predict(test.pictures);
  const right = labels.filter((label, i) => label === NAMES[test.labels[i]!]).length;
  expect(right / test.labels.filter((label) => label < 6).length).toBeGreaterThan(0.9);
  for (const one of [before, after]) await one.close();
});

it('is what Python opens, verifies and learns on', async () => {
  const state = join(temporaryFolder(), 'state');
  const { old, learner } = await upgraded('wider', new FolderStorage(state));
  const { test } = await digits();
  const { labels } = await learner.predict(test.pictures);
  await Promise.all([old.close(), learner.close()]);
  const right = labels.filter((label, i) => label === NAMES[test.labels[i]!]).length;
  const known = test.labels.filter((label) => label < 6).length;
  expect(right / known).toBeGreaterThan(0.9);
  const script = `
import json, sys
from safetensors.numpy import load_file
from csk_sdk import Learner
from csk_sdk.workspace.verification import verify
bundle, state, file = sys.argv[1:]
learner = Learner.open(bundle, state)
images = load_file(file)["test/images"][..., None]
print(json.dumps({"ok": verify(bundle, state).ok, "labels": learner.predict(images).labels.tolist()}))
`;
  const given = [join(UPGRADES, 'wider', 'to'), state, join(FIXTURES, 'digits.safetensors')];
  const said = JSON.parse(python(script, ...given)) as { ok: boolean; labels: string[] };
  expect(said.ok).toBe(true);
  expect(labels.filter((label, at) => label !== said.labels[at]).length).toBeLessThanOrEqual(2);
});

describe('is refused, and changes nothing,', () => {
  it('where the new bundle says nothing of the old one', async () => {
    const storage = new MemoryStorage();
    const from = { bundle: bundleOf('wider', 'from'), storage: await copied('wider', 'state') };
    const refused = upgrade({ from, to: { bundle: bundleOf('sites', 'to'), storage } });
    await expect(refused).rejects.toThrow(BundleError);
    await expect(refused).rejects.toThrow(/which was built to upgrade bundle [0-9a-f]{8}….*--upgrade-from/);
    const none = upgrade({ from, to: { bundle: new FolderBundle(BUNDLE), storage } });
    await expect(none).rejects.toThrow(
      'which was not built to be upgraded to. Build it with `--upgrade-from`',
    );
    const same = upgrade({ from, to: { bundle: bundleOf('wider', 'from'), storage } });
    await expect(same).rejects.toThrow('is the bundle that is on this device already');
    expect(await storage.list('')).toEqual([]);
  });

  it('where there is a state already; and where nothing was learned there is nothing to carry', async () => {
    const to = { bundle: bundleOf('sites', 'to'), storage: await copied('sites', 'carried') };
    const from = { bundle: bundleOf('sites', 'from'), storage: await copied('sites', 'state') };
    await expect(upgrade({ from, to })).rejects.toThrow(StateError);
    await expect(upgrade({ from, to })).rejects.toThrow(
      'holds a state already: upgrade into an empty place.',
    );
    const fresh = { ...from, storage: new MemoryStorage() };
    const report = await upgrade({ from: fresh, to: { ...to, storage: new MemoryStorage() } });
    expect(report).toMatchObject({ generation: 0, tasks: [] });
  });
});

it('begins anew where it was interrupted at any write', async () => {
  class Failing extends MemoryStorage {
    left = Number.POSITIVE_INFINITY;
    override async replace(path: string, content: Uint8Array): Promise<void> {
      if (this.left-- <= 0) throw new Error('the battery is empty');
      await super.replace(path, content);
    }
  }
  const from = { bundle: bundleOf('wider', 'from'), storage: await copied('wider', 'state') };
  const storage = new Failing();
  const to = { bundle: bundleOf('wider', 'to'), storage };
  let interrupted = 0;
  for (let writes = 0; ; writes++) {
    storage.left = writes;
    try {
      expect((await upgrade({ from, to })).generation).toBeGreaterThan(0);
      break;
    } catch (error) {
      if ((error as Error).message !== 'the battery is empty') throw error;
      interrupted += 1;
      storage.left = Number.POSITIVE_INFINITY;
      const learner = await Learner.open({ runtime, ...to });
      expect(learner.tasks).toEqual([]);
      await learner.close();
    }
  }
  expect(interrupted).toBeGreaterThan(3);
  const learner = await Learner.open({ runtime, ...to });
  expect(learner.tasks.map(({ name }) => name)).toEqual(['01-four-five']);
  await learner.close();
});

describe('taken back', () => {
  const known = (storage: MemoryStorage) =>
    new Map([...storage.files].map(([path, content]) => [path, content.toString()]));

  async function placed(kind = 'wider', storage = new MemoryStorage('the new place')) {
    const from = { bundle: bundleOf(kind, 'from'), storage: await copied(kind, 'state') };
    const to = { bundle: bundleOf(kind, 'to'), storage };
    await upgrade({ from, to });
    return { from, to };
  }

  it('leaves the old state to the byte, and a place that can be upgraded into again', async () => {
    const { from, to } = await placed();
    const before = known(from.storage);
    const carried = known(to.storage);
    const learner = await Learner.open({ runtime, ...to });
    await learner.learn(await digitsTask('02-six-seven'), { epochs: 1, train: 'centers' });
    // What was said of it goes, too.
    await fleet.export(learner, { name: 'kitchen' });
    await learner.close();
    await upgradeBack({ from, to });
    expect(known(from.storage)).toEqual(before);
    expect([...to.storage.files.keys()]).toEqual([]);
    const old = await Learner.open({ runtime, ...from });
    expect(old.tasks.map(({ name }) => name)).toEqual(['01-four-five']);
    await old.close();
    await upgrade({ from, to });
    expect([...to.storage.files.keys()].sort()).toEqual([...carried.keys()].sort());
    await upgradeBack({ from, to });
    await upgradeBack({ from, to });
    expect([...to.storage.files.keys()]).toEqual([]);
  });

  it('is whole, or nothing is known there, wherever it was interrupted', async () => {
    class Failing extends MemoryStorage {
      left = Number.POSITIVE_INFINITY;
      private change(): void {
        if (this.left-- <= 0) throw new Error('the battery is empty');
      }
      override async replace(path: string, content: Uint8Array): Promise<void> {
        this.change();
        await super.replace(path, content);
      }
      override async remove(path: string): Promise<boolean> {
        this.change();
        return super.remove(path);
      }
    }
    const storage = new Failing();
    const { from, to } = await placed('wider', storage);
    const whole = new Map(storage.files);
    const seen: number[] = [];
    for (let changes = 0; ; changes++) {
      storage.files.clear();
      for (const [path, content] of whole) storage.files.set(path, content);
      storage.left = changes;
      const failed = await upgradeBack({ from, to }).catch((error: Error) => error.message);
      storage.left = Number.POSITIVE_INFINITY;
      if (failed === undefined) break;
      expect(failed).toBe('the battery is empty');
      const learner = await Learner.open({ runtime, ...to });
      seen.push(learner.tasks.length);
      await learner.close();
      await upgradeBack({ from, to });
      expect([...storage.files.keys()]).toEqual([]);
      await upgrade({ from, to });
      await upgradeBack({ from, to });
    }
    expect(seen).toEqual([1, ...seen.slice(1).map(() => 0)]);
    expect(seen.length).toBeGreaterThan(5);
  });

  it('is refused where there is no way back, and while somebody learns, and changes nothing', async () => {
    const { from, to } = await placed();
    const carried = known(to.storage);
    const nothing = upgradeBack({ from: { ...from, storage: new MemoryStorage('the old place') }, to });
    await expect(nothing).rejects.toThrow(StateError);
    await expect(nothing).rejects.toThrow(
      'There is no way back: the old place holds no state, and the new place would lose its own.',
    );
    const damaged = await copied('wider', 'state');
    const tensors = 'generations/000001.safetensors';
    damaged.files.set(tensors, damaged.files.get(tensors)!.slice(0, 99));
    await expect(upgradeBack({ from: { ...from, storage: damaged }, to })).rejects.toThrow(StateError);
    const other = { bundle: bundleOf('sites', 'to'), storage: to.storage };
    await expect(upgradeBack({ from, to: other })).rejects.toThrow(BundleError);
    const foreign = { bundle: to.bundle, storage: await copied('sites', 'carried') };
    await expect(upgradeBack({ from, to: foreign })).rejects.toThrow('belongs to another bundle');
    for (const { storage } of [from, to]) {
      const lock = await storage.lock();
      await expect(upgradeBack({ from, to })).rejects.toThrow(StateLockedError);
      await lock.release();
    }
    expect(known(to.storage)).toEqual(carried);
  });

  it('says which file a storage keeps, and goes on with it', async () => {
    class Stuck extends MemoryStorage {
      stuck = true;
      override async remove(path: string): Promise<boolean> {
        return this.stuck && path.endsWith('.safetensors') ? false : super.remove(path);
      }
    }
    const storage = new Stuck('the new place');
    const { from, to } = await placed('wider', storage);
    await expect(upgradeBack({ from, to })).rejects.toThrow(
      'the new place/generations/000001.safetensors could not be removed.',
    );
    storage.stuck = false;
    await upgradeBack({ from, to });
    expect([...storage.files.keys()]).toEqual([]);
  });

  it('of signed bundles accepts the older one for good, and none that is older still', async () => {
    const folder = temporaryFolder();
    const script = `
import hashlib, json, shutil, sys
from pathlib import Path
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import ed25519
from csk_sdk.bundle.signing import sign
from csk_sdk.contract.manifest import sealed
given, folder = map(Path, sys.argv[1:])
key = ed25519.Ed25519PrivateKey.generate()
private = folder / "key.pem"
private.write_bytes(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
public = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
(folder / "trust.pem").write_bytes(public)
def signed(source, name, counter, **changes):
    place = shutil.copytree(given / source, folder / name)
    raw = json.loads((place / "manifest.json").read_text())
    text = sealed({**raw, **changes, "counter": counter}).encode()
    (place / "manifest.json").write_bytes(text)
    (place / "manifest.sig").write_bytes(sign(text, private))
    return hashlib.sha256(text).hexdigest(), raw
old, _ = signed("from", "from", 4)
signed("from", "between", 5)
about = json.loads((given / "to/manifest.json").read_text())["upgrade"]
signed("to", "to", 6, upgrade={**about, "bundle": old})
`;
    python(script, join(UPGRADES, 'wider'), folder);
    const trust = readFileSync(join(folder, 'trust.pem'), 'utf8');
    const at = (name: string) => ({
      bundle: new FolderBundle(join(folder, name)),
      storage: new MemoryStorage(),
    });
    const [from, to] = [at('from'), at('to')];
    await upgrade({ from, to, trust });
    await (await Learner.open({ runtime, ...to, trust })).close();
    await upgradeBack({ from, to, trust });
    await (await Learner.open({ runtime, ...from, trust })).close();
    const between = Learner.open({ runtime, ...at('between'), storage: from.storage, trust });
    await expect(between).rejects.toThrow(
      'is older than one that this device has accepted: its counter is 5, and 6',
    );
    // What was seen there stays known there, too.
    expect([...to.storage.files.keys()]).toEqual(['accepted.json']);
  });
});
