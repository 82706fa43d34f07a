/** A domain learned from images without labels: what is known is recognised in it, here and in Python. */

import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { BundleError, TaskError } from '../src/errors.js';
import { float32, type StoredTensor } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { Random } from '../src/method/random.js';
import { Domains } from '../src/network/domains.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import type { Runtime } from '../src/runtime/sessions.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { unseal } from '../src/state/record.js';
import type { Storage } from '../src/state/storage.js';
import { type Labelled, only, SETTINGS } from '../tools/digits.js';
import {
  BUNDLE,
  digits,
  digitsTask,
  expectSame,
  FIXTURES,
  python,
  runtime,
  temporaryFolder,
} from './fixtures.js';

const WRITTEN = join(FIXTURES, 'domains');
const BASE = [0, 1, 2, 3];
// As tools/domains.py.
const [SHOWN, TAUGHT] = [560, 80];

type Look = (value: number) => number;
const plain: Look = (value) => value;
const dark: Look = (value) => value >> 2;
/** A hazy camera: hardly any contrast left. */
const faint: Look = (value) => (value >> 3) + 60;

function seen<Of extends Pick<Labelled, 'pictures'>>(of: Of, look: Look): Of {
  const pictures = of.pictures.map((one) => ({ ...one, data: Uint8Array.from(one.data, look) }));
  return { ...of, pictures };
}

function opened(storage: Storage = new MemoryStorage()): Promise<Learner> {
  return Learner.open({ runtime, bundle: new FolderBundle(BUNDLE), storage, config: SETTINGS });
}

/** Images of the base's classes, without labels. */
async function shown(look: Look, count = SHOWN) {
  const { train } = await digits();
  return seen(only(train, BASE), look).pictures.slice(0, count);
}

/** The share of test images of these digits that is named right. */
async function right(learner: Learner, look: Look, members: readonly number[] = BASE): Promise<number> {
  const { names, test } = await digits();
  const { pictures, labels } = seen(only(test, members), look);
  const said = (await learner.predict(pictures)).labels;
  return said.filter((label, i) => label === names[members[labels[i]!]!]).length / said.length;
}

describe('a domain', () => {
  let learner: Learner;

  beforeEach(async () => {
    learner = await opened();
  });

  it('is learned without labels, and images of none are seen to the bit as before', async () => {
    const { test } = await digits();
    expect(await right(learner, faint)).toBeLessThan(0.7);
    const before = await learner.features(test.pictures);
    const report = await learner.adapt('faint', await shown(faint));
    expect(report).toMatchObject({ domain: 'faint', generation: 1, images: 512, told: 1, warnings: [] });
    expect(report.apart).toBeGreaterThan(2);
    expect(report.distance!).toBeLessThan(report.distanceBefore!);
    expect(learner.domains).toEqual(['faint']);
    expect(await right(learner, faint)).toBeGreaterThan(0.97);
    expect(await learner.features(test.pictures)).toEqual(before);
    await learner.forgetDomain('faint');
    expect(learner.domains).toEqual([]);
    expect(await right(learner, faint)).toBeLessThan(0.7);
    await expect(learner.forgetDomain('faint')).rejects.toThrow("There is no domain 'faint'. Known: none.");
  });

  it('is told from others image by image, and calls may overlap', async () => {
    await learner.adapt('faint', await shown(faint));
    await learner.adapt('dark', await shown(dark));
    expect(learner.domains).toEqual(['dark', 'faint']);
    const { names, test } = await digits();
    const { pictures, labels } = only(test, BASE);
    const looks = [plain, faint, dark];
    const mixed = pictures.map((one, i) => ({ ...one, data: Uint8Array.from(one.data, looks[i % 3]!) }));
    const both = await Promise.all([learner.predict(mixed), learner.predict(mixed)]);
    expect(both[0].labels).toEqual(both[1].labels);
    const hits = both[0].labels.filter((label, i) => label === names[labels[i]!]).length;
    expect(hits / labels.length).toBeGreaterThan(0.97);
    const told = both[0].domains!.filter((domain, i) => domain === [null, 'faint', 'dark'][i % 3]).length;
    expect(told / labels.length).toBeGreaterThan(0.95);
    await learner.close();
    expect(await right(learner, dark)).toBeGreaterThan(0.97);
  });

  it('has what is learned in it known everywhere, on the network as it is', async () => {
    await learner.adapt('faint', await shown(faint));
    const report = await learner.learn(seen(await digitsTask('01-four-five', TAUGHT), faint));
    expect(report).toMatchObject({
      headsOnly: true,
      headsOnlyBecause: 'domains',
      epochs: 0,
      stopped: 'epochs',
    });
    expect(report.warnings.some((one) => one.startsWith('domains are known on this device'))).toBe(true);
    for (const look of [plain, faint])
      expect(await right(learner, look, [...BASE, 4, 5])).toBeGreaterThan(0.9);
    await learner.forget({ task: '01-four-five' });
    expect(learner.domains).toEqual(['faint']);
    expect(await right(learner, faint)).toBeGreaterThan(0.97);
  });

  it('is of the network as it was trained, which stays so', async () => {
    await learner.learn(await digitsTask('01-four-five'), { train: 'centers' });
    const centers = () => [...learner.generation.tensors].filter(([key]) => key.startsWith('center/'));
    const moved = centers();
    await learner.adapt('faint', await shown(faint));
    const { headsOnlyBecause } = await learner.learn(seen(await digitsTask('02-six-seven'), faint));
    expect(headsOnlyBecause).toBe('domains');
    expect(centers()).toEqual(moved);
    expect(await right(learner, faint)).toBeGreaterThan(0.9);
    await learner.rollback('base');
    expect(learner.domains).toEqual([]);
  });

  it('is seen through in what is kept for a fleet, also where the network was trained', async () => {
    await learner.learn(await digitsTask('01-four-five'), { train: 'centers' });
    await learner.adapt('faint', await shown(faint));
    const task = await digitsTask('02-six-seven');
    await learner.learn(seen(task, faint));
    const untouched = await opened();
    const pictures = task.pictures.filter((_, i) => task.labels[i] === 0);
    const features = await untouched.features(pictures);
    const f = learner.bundle.manifest.head.features;
    const column = (j: number) => pictures.map((_, i) => features[i * f + j]!);
    const file = learner.tasks.at(-1)!.contributions.get('six')!;
    const mean = (await learner.state.contribution(file)).get('mean')!.data as Float32Array;
    const off = Array.from(mean, (value, j) => {
      const values = column(j);
      const own = values.reduce((sum, one) => sum + one, 0) / values.length;
      const spread = Math.sqrt(values.reduce((sum, one) => sum + (one - own) ** 2, 0) / values.length);
      return spread > 1e-3 ? ((value - own) / spread) ** 2 : 0;
    });
    // As the network itself sees the domain's images, they lie more than four deviations off.
    expect(Math.sqrt(off.reduce((sum, one) => sum + one, 0) / f)).toBeLessThan(1);
  });

  it('takes the place of one of its name where that is said, and of no other', async () => {
    await expect(learner.adapt('camera', await shown(faint), { replace: true })).rejects.toThrow(
      "There is no domain 'camera'. Known: none.",
    );
    expect((await learner.predict(await shown(faint, 1))).domains).toBeUndefined();
    await learner.adapt('camera', await shown(faint));
    await expect(learner.adapt('camera', await shown(dark))).rejects.toThrow(
      "Domain 'camera' is known already. Replace it with",
    );
    await learner.adapt('camera', await shown(dark), { replace: true });
    expect(learner.domains).toEqual(['camera']);
    expect(await right(learner, dark)).toBeGreaterThan(0.97);
    expect(await right(learner, faint)).toBeLessThan(0.7);
  });

  it('is asked about where it shows other things', async () => {
    const { train } = await digits();
    const { warnings, unknown } = await learner.adapt('faint', seen(only(train, [7, 8]), faint).pictures);
    expect(unknown).toBeGreaterThan(0.5);
    expect(warnings).toEqual([
      expect.stringMatching(
        /^\d+ % of these images are unlike all that is known, also as the domain shows them/,
      ),
    ]);
  });

  const random = new Random(0);
  const noise = Array.from({ length: 80 }, () => ({
    ...{ width: 8, height: 8 },
    data: Uint8Array.from({ length: 64 }, () => random.integer(0, 255)),
  }));
  it.each([
    [
      'images that are too few',
      'faint',
      () => shown(faint, 31),
      "Domain 'faint' was given 31 images, and takes at least 32",
    ],
    ['what looks as usual', 'same', () => shown(plain), 'look like those that are known already'],
    [
      'what comes no nearer',
      'noise',
      async () => noise,
      'are no nearer to what is known than they are seen now',
    ],
    ['a path for a name', 'a/b', () => shown(faint), "A domain cannot be called 'a/b'"],
    ['a name of nothing', '', () => shown(faint), "A domain cannot be called ''"],
    ['a name on two lines', 'a\nb', () => shown(faint), "A domain cannot be called 'a\\nb'"],
  ])('refuses %s', async (_, name, pictures, sentence) => {
    const attempt = learner.adapt(name, await pictures());
    await expect(attempt).rejects.toThrow(TaskError);
    await expect(attempt).rejects.toThrow(sentence);
    expect([learner.domains, learner.generation.number]).toEqual([[], 0]);
  });

  it('is refused where another shows the same look', async () => {
    const pictures = await shown(faint);
    await learner.adapt('faint', pictures);
    await expect(learner.adapt('again', pictures)).rejects.toThrow(
      'are no nearer to what is known than they are seen now',
    );
    expect(learner.domains).toEqual(['faint']);
  });

  it('is refused where another shows the same look of most of its images', async () => {
    const pictures = [...(await shown(faint)).slice(0, 130), ...(await shown(plain)).slice(130, 160)];
    await learner.adapt('faint', pictures);
    await expect(learner.adapt('again', pictures)).rejects.toThrow(
      'are no nearer to what is known than they are seen now',
    );
  });

  it('is one of 16 at most', async () => {
    const storage = new MemoryStorage();
    learner = await opened(storage);
    await learner.adapt('0', await shown(faint));
    const { number, tasks, tensors } = learner.generation;
    const copies = Array.from({ length: 16 }, (_, i) =>
      [...tensors].map(([key, tensor]): [string, StoredTensor] => [
        key.replace('domain/0/', `domain/${i}/`),
        tensor,
      ]),
    );
    await learner.state.locked(() => learner.state.commit(number, tasks, new Map(copies.flat())));
    learner = await opened(storage);
    await expect(learner.adapt('more', await shown(dark))).rejects.toThrow(
      "Domain 'more' would be one more than the 16 that a device can know: take one back first.",
    );
    await learner.adapt('7', await shown(dark), { replace: true });
    expect(learner.domains).toHaveLength(16);
  });

  it.each(['scale', 'shift', 'direction', 'offset'])(
    'is refused with a %s of another network',
    async (part) => {
      await learner.adapt('faint', await shown(faint, 64));
      const { tensors } = learner.generation;
      const opening = { runtime, settings: { threads: 1 } };
      const changed = new Map(tensors).set(`domain/faint/${part}`, float32([3]));
      for (const other of [
        changed,
        new Map([...tensors].filter(([key]) => key !== `domain/faint/${part}`)),
      ]) {
        expect(() => new Domains(learner.bundle, other, opening)).toThrow(
          "Domain 'faint' does not fit its network: roll back to an earlier task.",
        );
      }
    },
  );

  it('holds no session once it is closed', async () => {
    let open = 0;
    const create = async (model: Uint8Array, options?: object) => {
      const session = await runtime.InferenceSession.create(model, options);
      open += 1;
      return {
        run: (...args: Parameters<typeof session.run>) => session.run(...args),
        release: async () => {
          open -= 1;
          await session.release();
        },
      };
    };
    const counting = { Tensor: runtime.Tensor, InferenceSession: { create } } as unknown as Runtime;
    const bundle = new FolderBundle(BUNDLE);
    const own = await Learner.open({ runtime: counting, bundle, storage: new MemoryStorage() });
    await own.adapt('faint', await shown(faint, 64));
    expect(open).toBe(0);
    await own.predict(await shown(plain, 8));
    expect(open).toBe(1);
    await own.predict(await shown(faint, 8));
    expect(open).toBe(2);
    await own.close();
    expect(open).toBe(0);
  });

  it('needs a bundle with graphs for it, and something that is known', async () => {
    const bundle = new FolderBundle(join(FIXTURES, 'fragile', 'bundle'));
    const bare = await Learner.open({ runtime, bundle, storage: new MemoryStorage() });
    const attempt = bare.adapt('faint', await shown(faint));
    await expect(attempt).rejects.toThrow(BundleError);
    await expect(attempt).rejects.toThrow(
      `${bundle.name} has no graphs for domains: build it again, with base data`,
    );
  });
});

describe('a state with a domain', () => {
  const told = JSON.parse(readFileSync(join(WRITTEN, 'told.json'), 'utf8')) as {
    readonly adapted: Record<string, number>;
    readonly because: string;
    readonly warnings: string[];
    readonly faint: string[];
    readonly plain: string[];
  };

  /** The share of labels that are the same. */
  function alike(one: readonly string[], other: readonly string[]): number {
    return one.filter((label, i) => label === other[i]).length / other.length;
  }

  it('that Python wrote says the same here, and is learned on', async () => {
    const state = join(temporaryFolder(), 'state');
    cpSync(join(WRITTEN, 'state'), state, { recursive: true });
    const learner = await opened(new FolderStorage(state));
    expect(learner.domains).toEqual(['faint']);
    const { test } = await digits();
    expect(alike((await learner.predict(seen(test, faint).pictures)).labels, told.faint)).toBeGreaterThan(
      0.995,
    );
    expect(alike((await learner.predict(test.pictures)).labels, told.plain)).toBeGreaterThan(0.995);
    await learner.learn(seen(await digitsTask('02-six-seven', TAUGHT), faint));
    expect(await right(learner, faint, [...BASE, 4, 5, 6, 7])).toBeGreaterThan(0.9);
  });

  it('is what Python makes of the same images', async () => {
    const learner = await opened();
    const report = await learner.adapt('faint', await shown(faint));
    const python = told.adapted;
    expect([report.images, report.told, report.unknown]).toEqual([
      python.images,
      python.told,
      expect.closeTo(python.unknown!, 2),
    ]);
    expect(report.apart).toBeCloseTo(python.apart!, 3);
    expect(report.distance).toBeCloseTo(python.distance!, 3);
    expect(report.distanceBefore).toBeCloseTo(python.distance_before!, 3);
    const learned = await learner.learn(seen(await digitsTask('01-four-five', TAUGHT), faint));
    expect([learned.headsOnlyBecause, learned.warnings]).toEqual([told.because, told.warnings]);
    const theirs = await opened(new FolderStorage(join(WRITTEN, 'state')));
    const domain = ({ generation }: Learner) =>
      new Map([...generation.tensors].filter(([key]) => key.startsWith('domain/')));
    expect(domain(learner).size).toBe(4);
    expectSame(domain(learner), domain(theirs));
  });

  it('is read, and learned on, by Python, and asks for who sees through it', async () => {
    const state = join(temporaryFolder(), 'state');
    const storage = new FolderStorage(state);
    const learner = await opened(storage);
    await learner.adapt('faint', await shown(faint));
    await learner.learn(seen(await digitsTask('01-four-five', TAUGHT), faint));
    for (const number of [1, 2]) {
      expect(await unseal(storage, `generations/00000${number}.json`)).toMatchObject({
        min_reader: { text: '3' },
        min_writer: { text: '3' },
      });
    }
    const script = `
import json, sys
import numpy as np
from csk_sdk import Learner
from csk_sdk.demo import digits
from csk_sdk.workspace.verification import verify
bundle, state = sys.argv[1:]
learner, data = Learner.open(bundle, state), digits.load()
images = (data.test_images[..., None] >> 3) + np.uint8(60)
labels = learner.predict(images).labels.tolist()
ok = verify(bundle, state).ok
learner.adapt("dark", data.train_images[np.isin(data.train_labels, range(4))][..., None] >> 2)
print(json.dumps([ok, learner.domains, labels]))
`;
    const mine = (await learner.predict(seen((await digits()).test, faint).pictures)).labels;
    const [ok, domains, labels] = JSON.parse(python(script, BUNDLE, state)) as [boolean, string[], string[]];
    expect([ok, domains]).toEqual([true, ['dark', 'faint']]);
    expect(alike(mine, labels)).toBeGreaterThan(0.995);
    await learner.refresh();
    expect(learner.domains).toEqual(['dark', 'faint']);
    expect(await right(learner, dark)).toBeGreaterThan(0.9);
  });
});
