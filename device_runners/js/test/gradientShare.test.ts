/** Steps go over the images that most of the gradient comes from, and over no others. */

import { expect, test } from 'vitest';
import type { Task } from '../src/data/task.js';
import type { Json } from '../src/formats/json.js';
import { type Tensors, uint8 } from '../src/formats/tensors.js';
import type { Learner } from '../src/learner.js';
import type { Progress } from '../src/learning/report.js';
import { carrying } from '../src/method/importance.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { readProgress, writeProgress } from '../src/state/progress.js';
import { SETTINGS } from '../tools/digits.js';
import { device, TASKS, task } from './teaching.js';

const [EPOCHS, BATCH, IMAGES] = [3, 16, 80];
const WRONG = [3, 21, 50, 77];
const DEFAULT = { ...SETTINGS, epochs: EPOCHS, fewShot: 0, train: 'centers', checkpointSeconds: 0 };
const phone = new Error('the phone rang');

/** Two classes of 40 images, four of which have the other's label. */
async function given(): Promise<Task> {
  const { labels, ...rest } = await task('01', TASKS['01']);
  return { ...rest, labels: Array.from(labels!, (label, i) => (WRONG.includes(i) ? 1 - label : label)) };
}

function bits(learner: Learner): Record<string, unknown> {
  const tensors = learner.generation.tensors as Tensors;
  return Object.fromEntries([...tensors].map(([name, { data }]) => [name, data]));
}

/** Learn until a step, on this storage. */
async function stopAt(step: number, config: object, storage: MemoryStorage): Promise<void> {
  const stop = new AbortController();
  const onProgress = (progress: Progress): void => {
    if (progress.step === step) stop.abort(phone);
  };
  const stopped = await device([], config, storage);
  await expect(stopped.learn(await given(), { signal: stop.signal, onProgress })).rejects.toThrow(phone);
}

test('steps go over fewer images, the doubtful among them', async () => {
  const storage = new MemoryStorage();
  await stopAt(1, DEFAULT, storage);
  const { data } = (await readProgress(storage))!.tensors.get('stepped')!;
  const chosen = [...data].flatMap((one, image) => (Number(one) ? [image] : []));
  expect(chosen).toEqual(expect.arrayContaining(WRONG));
  const told: Progress[] = [];
  const learner = await device([], DEFAULT);
  const report = await learner.learn(await given(), { onProgress: (one) => void told.push(one) });
  expect(report.stepped).toBe(chosen.length);
  expect(report.stepped).toBeLessThan(IMAGES);
  expect(report).toMatchObject({ images: IMAGES, epochs: EPOCHS });
  const steps = EPOCHS * Math.ceil(report.stepped / BATCH);
  const trained = told.filter(({ phase }) => phase === 'train');
  expect(trained.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  expect(new Set(trained.map((one) => one.steps))).toEqual(new Set([steps]));
});

test('a share of 1 is all of them, and heads alone take no step', async () => {
  const whole = await device([], { ...DEFAULT, gradientShare: 1 });
  expect((await whole.learn(await given())).stepped).toBe(IMAGES);
  const heads = await device([], { ...DEFAULT, train: 'heads' });
  expect((await heads.learn(await given())).stepped).toBe(0);
});

test.each([1, 3, 4])('a run that was stopped at step %i goes on to the bit', async (step) => {
  const storage = new MemoryStorage();
  await stopAt(step, DEFAULT, storage);
  const again = await device([], DEFAULT, storage);
  const whole = await device([], DEFAULT);
  const [report, expected] = [await again.learn(await given()), await whole.learn(await given())];
  expect(report).toMatchObject({ resumedAtStep: step, stepped: expected.stepped, loss: expected.loss });
  expect(bits(again)).toEqual(bits(whole));
});

test('a checkpoint of before goes over all images', async () => {
  const storage = new MemoryStorage();
  await stopAt(2, { ...DEFAULT, gradientShare: 1 }, storage);
  const { tensors, spelled } = (await readProgress(storage))!;
  const { gradient_share: _, ...before } = spelled.config as Record<string, Json>;
  const rest = new Map([...tensors].filter(([name]) => name !== 'stepped'));
  await writeProgress(storage, rest, { ...spelled, config: before });
  const report = await (await device([], DEFAULT, storage)).learn(await given());
  expect(report).toMatchObject({ resumedAtStep: 2, stepped: IMAGES });
});

test('a checkpoint that no step can go on from is not gone on from', async () => {
  for (const stepped of [new Uint8Array(IMAGES), new Uint8Array(IMAGES - 1).fill(1)]) {
    const storage = new MemoryStorage();
    await stopAt(2, DEFAULT, storage);
    const { tensors, spelled } = (await readProgress(storage))!;
    await writeProgress(storage, new Map([...tensors, ['stepped', uint8(stepped)]]), spelled);
    expect((await (await device([], DEFAULT, storage)).learn(await given())).resumedAtStep).toBe(0);
  }
});

test('of one batch that is worth a step another is held out', async () => {
  const auto = await device([], { ...DEFAULT, gradientShare: 1e-9, train: 'auto' });
  expect((await auto.learn(await given())).gain!.images).toBeGreaterThan(0);
  const centers = await device([], { ...DEFAULT, gradientShare: 1e-9 });
  expect((await centers.learn(await given())).stepped).toBe(2 * BATCH);
});

test("a budget for one step is one step's images", async () => {
  const { manifest } = (await device()).bundle;
  const flops = 1.5 * manifest.costs.step_centers! * BATCH;
  const report = await (await device([], { ...DEFAULT, flops })).learn(await given());
  expect(report).toMatchObject({ stopped: 'flops', stepped: BATCH, images: IMAGES });
});

test('of equals the first, as many as are asked for at least', () => {
  const norms = Float64Array.of(0, 2, 1, 2, 0);
  expect(carrying(norms, 1)).toEqual([0, 1, 2, 3, 4]);
  expect(carrying(norms, 0.3)).toEqual([1]);
  expect(carrying(norms, 0.3, 4)).toEqual([0, 1, 2, 3]);
  expect(carrying(new Float64Array(3), 0.9, 2)).toEqual([0, 1]);
  expect(carrying(new Float64Array(0), 0.9, 2)).toEqual([]);
});
