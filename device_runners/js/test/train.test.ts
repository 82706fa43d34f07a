/** `train`: heads, centers, or what held-out images say; each is to the bit what it is called. */

import { afterEach, expect, test } from 'vitest';
import { GAIN } from '../src/contract/thresholds.js';
import type { Json } from '../src/formats/json.js';
import type { Tensors } from '../src/formats/tensors.js';
import type { Learner } from '../src/learner.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { readProgress, writeProgress } from '../src/state/progress.js';
import { SETTINGS } from '../tools/digits.js';
import { device, HEADS, TASKS, task } from './teaching.js';

// 80 images in batches of 16: 5 steps an epoch, of which two are taken before the decision.
const PROBE = 2;
const CENTERS = {
  ...SETTINGS,
  epochs: 3,
  fewShot: 0,
  train: 'centers',
  gradientShare: 1,
  checkpointSeconds: 0,
};
/** So small that nothing can come of it. */
const NOTHING = { ...CENTERS, learningRate: 1e-7 };
const { sure, worth } = GAIN;

/** Every gain is enough: the digits are too easy for a real one. */
function anyGainWillDo(): void {
  Object.assign(GAIN, { sure: Number.NEGATIVE_INFINITY, worth: Number.NEGATIVE_INFINITY });
}

afterEach(() => {
  Object.assign(GAIN, { sure, worth });
});

function bits(learner: Learner): Record<string, unknown> {
  const { tensors } = learner.generation;
  return Object.fromEntries([...(tensors as Tensors)].map(([name, { data }]) => [name, data]));
}

const learned = () => task('01', TASKS['01']);

test('heads take no step', async () => {
  const few = await device(['01'], HEADS);
  const heads = await device([], { ...CENTERS, train: 'heads' });
  const phases: string[] = [];
  const report = await heads.learn(await learned(), { onProgress: ({ phase }) => void phases.push(phase) });
  expect(phases).toEqual(['check', 'consolidate']);
  expect(bits(heads)).toEqual(bits(few));
  expect(report).toMatchObject({ headsOnly: true, headsOnlyBecause: 'train', epochs: 0, protected: {} });
  expect(report).toMatchObject({ gain: undefined, choice: '', warnings: [] });
});

test('where training does not pay it is heads, to the bit', async () => {
  const heads = await device(['01'], { ...NOTHING, train: 'heads' });
  const auto = await device([], { ...NOTHING, train: 'auto' });
  let steps = 0;
  const report = await auto.learn(await learned(), {
    onProgress: ({ phase }) => {
      steps += Number(phase === 'train');
    },
  });
  expect(steps).toBe(PROBE);
  expect(bits(auto)).toEqual(bits(heads));
  expect(report).toMatchObject({ headsOnly: true, headsOnlyBecause: 'no-gain', epochs: 0, protected: {} });
  expect(report.gain!.images).toBe(80 - 16 * PROBE);
  expect(report.choice).toMatch(/^training would not pay: after .* train: 'centers' trains all the same/);
});

test('where it pays it is centers, to the bit', async () => {
  anyGainWillDo();
  const centers = await device(['01'], { ...CENTERS, train: 'centers' });
  const auto = await device([], { ...CENTERS, train: 'auto' });
  const report = await auto.learn(await learned());
  expect(bits(auto)).toEqual(bits(centers));
  expect(report).toMatchObject({ headsOnly: false, headsOnlyBecause: '', epochs: 3 });
  expect(report.choice).toMatch(/^training pays: after /);
});

test('an older task may be about to lose too much', async () => {
  anyGainWillDo();
  // Labels that say nothing: their gradients are large.
  const config = {
    ...{ ...CENTERS, train: 'auto', energy: 0, channelRatio: 1, learningRate: 1, maxForgetting: 0 },
    labelCheck: false,
  };
  const { labels, ...rest } = await learned();
  const shuffled = { ...rest, labels: Array.from(labels!, (_, i) => i % 2) };
  const report = await (await device([], config)).learn(shuffled);
  expect(report.gain!.lost).toBeGreaterThan(0);
  expect(report.headsOnlyBecause).toBe('no-gain');
  expect(report.choice).toContain('maxForgetting');
});

test.each([
  [false, 1],
  [false, 2],
  [true, 1],
  [true, 2],
  [true, 3],
])('a stopped lesson makes the same choice (pays: %s, step %i)', async (enough, at) => {
  if (enough) anyGainWillDo();
  const config = { ...CENTERS, train: 'auto', ...(enough ? {} : { learningRate: 1e-7 }) };
  const whole = await device([], config);
  const expected = await whole.learn(await learned());
  const storage = new MemoryStorage();
  const stopped = await device([], config, storage);
  const stop = new AbortController();
  const phone = new Error('the phone rang');
  const onProgress = ({ step }: { step: number }): void => {
    if (step === at) stop.abort(phone);
  };
  await expect(stopped.learn(await learned(), { signal: stop.signal, onProgress })).rejects.toThrow(phone);
  const again = await device([], config, storage);
  const report = await again.learn(await learned());
  expect(report.resumedAtStep).toBe(at);
  expect([report.headsOnlyBecause, report.gain, report.choice]).toEqual([
    enough ? '' : 'no-gain',
    expected.gain,
    expected.choice,
  ]);
  expect(bits(again)).toEqual(bits(whole));
});

test('a checkpoint that was written before there was a setting is gone on from', async () => {
  const storage = new MemoryStorage();
  const stopped = await device([], CENTERS, storage);
  const stop = new AbortController();
  const onProgress = ({ step }: { step: number }): void => {
    if (step === 3) stop.abort(new Error('the phone rang'));
  };
  await expect(stopped.learn(await learned(), { signal: stop.signal, onProgress })).rejects.toThrow('rang');
  const { tensors, spelled } = (await readProgress(storage))!;
  const { train: _, ...before } = spelled.config as Record<string, Json>;
  await writeProgress(storage, tensors, { ...spelled, config: before });
  const again = await device([], CENTERS, storage);
  expect((await again.learn(await learned())).resumedAtStep).toBe(3);
});

test('of one batch nothing can be held out', async () => {
  const auto = await device([], { ...CENTERS, train: 'auto', batchSize: 80 });
  const report = await auto.learn(await learned());
  expect(report).toMatchObject({ headsOnlyBecause: 'no-gain', gain: { images: 0 } });
  expect(report.choice).toMatch(
    /^of 80 images, none could be held out that would tell whether training pays: /,
  );
  expect(report.choice).toContain('batchSize');
});

test.each([false, true])('time may be over before it is decided (dropped: %s)', async (dropped) => {
  // Labels that say nothing have large gradients, and nothing is protected: older tasks lose something.
  const harmful = { energy: 0, channelRatio: 1, learningRate: 30, maxForgetting: 0, labelCheck: false };
  const over = { ...CENTERS, seconds: 1e-6, ...(dropped ? harmful : {}) };
  const given = await learned();
  const labels = dropped ? given.pictures.map((_, i) => i % 2) : given.labels!;
  const auto = await device([], { ...over, train: 'auto' });
  const report = await auto.learn({ ...given, labels });
  expect(report).toMatchObject({ stopped: 'seconds', epochs: 1, gain: undefined, headsOnly: dropped });
  expect(report.choice).toBe(
    'the time that seconds gives (1e-06 s) was over after 1 of 15 steps, before it could be told whether training pays: what ' +
      `these have trained is ${dropped ? 'dropped, as older tasks would have lost too much' : 'kept'}.`,
  );
  expect(auto.generation.tasks[0]!.notes).toContain(report.choice);
  expect((await (await device([], over)).learn({ ...given, labels })).choice).toBe('');
});

test('of one image nothing is promised', async () => {
  const said = (names: string): string =>
    `there is one image only of ${names}: how often that is recognised cannot be estimated, and is likely seldom. 20 or ` +
    'more of each class are advised.';
  const learner = await device([], { ...CENTERS, fewShot: 20 });
  const report = await learner.learn(await task('01', [4, 5], undefined, { count: 1 }));
  expect(report.expected.classes).toEqual({});
  expect(report.warnings.at(-2)).toBe(said("'four', 'five'"));
  expect(report.warnings.at(-1)).toMatch(/^1 image a class: too few for training to gain much\. /);
  const { pictures, labels, ...two } = await task('02', [6, 7], undefined, { count: 5 });
  const some = { ...two, pictures: pictures.slice(0, 6), labels: Array.from(labels!).slice(0, 6) };
  expect((await learner.learn(some)).warnings).toContain(said("'seven'"));
  const again = await learner.learn(await task('03', [6, 7], undefined, { count: 1 }));
  expect(again.warnings.join()).not.toContain('one image only');
});

/** Learn on this storage until a step. */
async function stopAt(step: number, config: object, storage: MemoryStorage): Promise<void> {
  const phone = new Error('the phone rang');
  const stop = new AbortController();
  const onProgress = (progress: { step: number }): void => {
    if (progress.step === step) stop.abort(phone);
  };
  const learner = await device([], config, storage);
  await expect(learner.learn(await learned(), { signal: stop.signal, onProgress })).rejects.toThrow(phone);
}

test.each(['said', 'implied'])(
  'what a build began that trained by default goes on so, %s by its checkpoint',
  async (kind) => {
    const whole = await device([], CENTERS);
    await whole.learn(await learned());
    const storage = new MemoryStorage();
    await stopAt(3, CENTERS, storage);
    const { tensors, spelled } = (await readProgress(storage))!;
    const { default_train: _, ...rest } = spelled;
    const { train, ...others } = rest.config as Record<string, Json>;
    const config = kind === 'said' ? { ...others, train: train! } : others;
    await writeProgress(storage, tensors, { ...rest, config });
    // And is interrupted once more.
    await stopAt(5, { ...CENTERS, train: 'auto' }, storage);
    const auto = await device([], { ...CENTERS, train: 'auto' }, storage);
    const report = await auto.learn(await learned());
    expect(report).toMatchObject({ resumedAtStep: 5, epochs: 3, headsOnly: false, gain: undefined });
    expect(report.choice).toMatch(/^an earlier build of csk-sdk began this lesson and trained the centers/);
    expect(bits(auto)).toEqual(bits(whole));
    expect(auto.tasks[0]!.notes).toEqual([report.choice]);
    expect(auto.tasks[0]!.config).toEqual(whole.tasks[0]!.config);
  },
);

test('another wish begins the lesson anew', async () => {
  const storage = new MemoryStorage();
  await stopAt(3, CENTERS, storage);
  const auto = await device([], { ...CENTERS, train: 'auto' }, storage);
  const report = await auto.learn(await learned());
  expect(report.resumedAtStep).toBe(0);
  expect(report.gain!.images).toBeGreaterThan(0);
});

test('the device decides by default', async () => {
  const { train: _, ...rest } = CENTERS;
  const report = await (await device([], rest)).learn(await learned());
  expect(report.gain!.images).toBeGreaterThan(0);
});
