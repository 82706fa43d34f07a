/** The main job, on the digits: learn, predict, export, and go on where the Python SDK stopped. */

import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { trainingConfig } from '../src/config.js';
import { ConfigError, TaskError } from '../src/errors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { accuracyOf, learnDigits, openDigits, SETTINGS } from '../tools/digits.js';
import {
  BUNDLE,
  digits,
  digitsTask,
  FIXTURES,
  memoryBundle,
  python,
  runtime,
  temporaryFolder,
} from './fixtures.js';

const fixtures = new FolderBundle(FIXTURES);

/** What the Python SDK says of a state: its tasks, accuracy over all classes, and the first probabilities. */
function asPythonSees(state: string): {
  tasks: string[];
  accuracy: number;
  first: number[];
  verified: boolean;
} {
  const script = `
import json, sys
import numpy as np
from csk_sdk import Learner
from csk_sdk.workspace.verification import verify
from safetensors.numpy import load_file
bundle, state, images, facts = sys.argv[1:]
data, names = load_file(images), json.load(open(facts))["names"]
learner = Learner.open(bundle, state)
found = learner.predict(data["test/images"][..., None])
right = found.labels == np.array(names)[data["test/labels"]]
said = {"tasks": [task.name for task in learner.tasks], "accuracy": 100 * float(right.mean())}
said |= {"first": found.probabilities[0].tolist(), "verified": verify(bundle, state).ok}
print(json.dumps(said))
`;
  const files = [BUNDLE, state, join(FIXTURES, 'digits.safetensors'), join(FIXTURES, 'digits.json')];
  return JSON.parse(python(script, ...files));
}

describe('the digits', () => {
  it('are learned as well as by the Python SDK, which opens the result', async () => {
    const state = join(temporaryFolder(), 'state');
    const { accuracy } = await learnDigits(fixtures, runtime, new FolderStorage(state));
    const all = await digits();
    expect(Math.abs(accuracy - all.accuracy)).toBeLessThanOrEqual(1);
    const seen = asPythonSees(state);
    expect(seen.tasks).toEqual(Object.keys(all.tasks));
    expect(seen.verified).toBe(true);
    expect(seen.accuracy).toBeCloseTo(accuracy, 1);
    const learner = await openDigits(fixtures, runtime, new FolderStorage(state));
    const { probabilities, classes } = await learner.predict(all.test.pictures.slice(0, 1));
    expect(seen.first).toHaveLength(classes.length);
    seen.first.forEach((value, i) => {
      expect(probabilities[i]).toBeCloseTo(value, 4);
    });
    await learner.close();
  });

  it('are learned on where the Python SDK stopped, and on by it again', async () => {
    const state = join(temporaryFolder(), 'state');
    cpSync(join(FIXTURES, 'state'), state, { recursive: true });
    const before = asPythonSees(state);
    const learner = await openDigits(fixtures, runtime, new FolderStorage(state));
    expect(learner.tasks.map(({ name }) => name)).toEqual(before.tasks);
    expect(await accuracyOf(learner, await digits())).toBeCloseTo(before.accuracy, 6);
    const report = await learner.learn(await digitsTask('02-six-seven'));
    expect(report.generation).toBe(2);
    expect(report.leak).toBeLessThan(1e-5);
    await learner.close();
    const pngs = `
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from csk_sdk import Learner, Task, TrainingConfig
from csk_sdk.demo import digits
with TemporaryDirectory() as folder:
    digits.write_folders(digits.load(), Path(folder) / "base", Path(folder) / "tasks")
    config = TrainingConfig(epochs=10, patience=0, learning_rate=0.05, threads=1, train="centers")
    learner = Learner.open(sys.argv[1], sys.argv[2], config)
    print(learner.learn(Task.from_folder(Path(folder) / "tasks" / "03-eight-nine")).generation)
`;
    expect(python(pngs, BUNDLE, state)).toBe('3\n');
    const again = await openDigits(fixtures, runtime, new FolderStorage(state));
    expect(again.tasks.map(({ name }) => name)).toEqual(Object.keys((await digits()).tasks));
    const all = await digits();
    expect(Math.abs((await accuracyOf(again, all)) - all.accuracy)).toBeLessThanOrEqual(1);
    await again.close();
  });
});

describe('a learner', () => {
  const small = { ...SETTINGS, epochs: 2 };

  async function open(storage = new MemoryStorage()): Promise<Learner> {
    return Learner.open({ runtime, bundle: await memoryBundle(), storage, config: small });
  }

  it('knows the base before the first task', async () => {
    const learner = await open();
    const { test, names } = await digits();
    expect(learner.classes).toEqual(names.slice(0, 4));
    const { labels } = await learner.predict(test.pictures.slice(0, 2), { task: 'base' });
    expect(labels).toHaveLength(2);
    expect((await learner.predict([])).labels).toEqual([]);
    await learner.close();
  });

  it('is continued where it was interrupted, with the same result to the bit', async () => {
    const task = await digitsTask('01-four-five', 60);
    const whole = await open();
    await whole.learn(task);
    const storage = new MemoryStorage();
    const stop = new AbortController();
    const learner = await open(storage);
    const onProgress = ({ step }: { step: number }): void => {
      if (step === 3) stop.abort(new Error('the phone rang'));
    };
    await expect(learner.learn(task, { onProgress, signal: stop.signal })).rejects.toThrow('the phone rang');
    expect(learner.generation.number).toBe(0);
    const again = await open(storage);
    expect((await again.learn(task)).resumedAtStep).toBe(3);
    const [found, expected] = [again, whole].map((one) => Object.fromEntries(one.generation.tensors));
    expect(found).toEqual(expected);
    expect(await storage.list('')).not.toContain('progress.safetensors');
    // Other settings are another run: it starts afresh.
    const other = await open();
    await other.learn(task, { seed: 1 });
    expect(Object.fromEntries(other.generation.tensors)).not.toEqual(expected);
  });

  it('ends where the loss does not fall, as after an interruption', async () => {
    const task = await digitsTask('01-four-five', 60);
    const flat = { learningRate: 0, headLearningRate: 0, shift: 0, flip: false, epochs: 9, patience: 2 };
    const learner = await open();
    const stop = new AbortController();
    const onProgress = ({ epoch, step }: { epoch: number; step: number }): void => {
      if (epoch === 2 && step % 2 === 1) stop.abort(new Error('the phone rang'));
    };
    await expect(learner.learn(task, { ...flat, onProgress, signal: stop.signal })).rejects.toThrow('rang');
    const { resumedAtStep, epochs, stopped } = await learner.learn(task, flat);
    expect({ resumed: resumedAtStep > 0, epochs, stopped }).toEqual({
      resumed: true,
      epochs: 3,
      stopped: 'plateau',
    });
    expect((await (await open()).learn(task, { ...flat, epochs: 4, patience: 0 })).stopped).toBe('epochs');
    await learner.close();
  });

  it.each(['select', 'train', 'consolidate'])('hears in %s that it should stop', async (wanted) => {
    const learner = await open();
    const stop = new AbortController();
    const phases: string[] = [];
    const onProgress = ({ phase }: { phase: string }): void => {
      phases.push(phase);
      if (phase === wanted && phases.indexOf(phase) === phases.length - 1) {
        setImmediate(() => stop.abort(new Error('the phone rang')));
      }
    };
    const task = await digitsTask('01-four-five', 600);
    await expect(learner.learn(task, { onProgress, signal: stop.signal })).rejects.toThrow('the phone rang');
    expect(phases.at(-1)).toBe(wanted);
    expect(learner.generation.number).toBe(0);
    await learner.close();
  });

  it('changes nothing in the channels that it did not select', async () => {
    const learner = await open();
    const before = learner.generation.tensors;
    await learner.learn(await digitsTask('01-four-five', 60));
    for (const { name, shape } of learner.bundle.manifest.sites) {
      const [old, now] = [before, learner.generation.tensors].map((one) => one.get(`center/${name}`)!.data);
      const columns = shape[1]!;
      const changed = new Set<number>();
      now!.forEach((value, i) => {
        if (value !== old![i]) changed.add(i % columns);
      });
      expect(changed.size).toBeGreaterThan(0);
      expect(changed.size).toBeLessThanOrEqual(Math.round(columns / 4));
    }
  });

  it('learns with every setting that changes the arithmetic', async () => {
    const task = await digitsTask('01-four-five', 40);
    for (const settings of [
      { optimizer: 'adamw', learningRate: 0.002, weightDecay: 0.01 },
      { energy: 0, channelRatio: 1, flip: true, shift: 1 },
      { energy: 1, followDrift: false, classStatistics: false },
      { batchSize: 7, epochs: 1, sensitivityBatches: 1 },
    ] as const) {
      const learner = await open();
      await learner.learn(task, settings);
      const { labels } = await learner.predict(task.pictures, { task: task.name });
      const right = labels.filter((label, i) => label === task.classes[task.labels[i]!]).length;
      expect(right / labels.length).toBeGreaterThan(0.9);
      expect(learner.classes).toHaveLength(6);
      await learner.close();
    }
  });

  it('exports a model that predicts the same, which ONNX finds in order', async () => {
    const learner = await open();
    const task = await digitsTask('01-four-five', 60);
    await learner.learn(task);
    for (const options of [{}, { task: task.name }]) {
      const model = await learner.export(options);
      const session = await runtime.InferenceSession.create(model);
      const batch = learner.preprocessing.normalize(learner.preprocessing.stack(task.pictures.slice(0, 4)));
      const image = new runtime.Tensor('float32', batch, [4, 1, 8, 8]);
      const output = await session.run({ [session.inputNames[0]!]: image });
      const logits = output[session.outputNames[0]!]!.data as Float32Array;
      const { probabilities, classes } = await learner.predict(task.pictures.slice(0, 4), options);
      const expected = softmax(logits, classes.length);
      probabilities.forEach((value, i) => {
        expect(value).toBeCloseTo(expected[i]!, 4);
      });
      const path = join(temporaryFolder(), 'model.onnx');
      writeFileSync(path, model);
      const check = `
import json, sys
import onnx
model = onnx.load(sys.argv[1])
onnx.checker.check_model(model, full_check=True)
print(json.dumps({one.key: one.value for one in model.metadata_props}))
`;
      const metadata = JSON.parse(python(check, path));
      expect(JSON.parse(metadata.classes)).toEqual(classes);
      expect(metadata.csk_sdk_generation).toBe('1');
    }
  });

  it('sees what another one committed, and rolls back', async () => {
    const storage = new MemoryStorage();
    const [one, other] = [await open(storage), await open(storage)];
    const task = await digitsTask('01-four-five', 40);
    await one.learn(task);
    expect((await other.predict(task.pictures.slice(0, 1))).classes).toHaveLength(6);
    await expect(other.learn(task)).rejects.toThrow("Task '01-four-five' is learned already.");
    await other.rollback('base');
    expect((await one.predict(task.pictures.slice(0, 1))).classes).toHaveLength(4);
    await expect(one.predict([], { task: '01-four-five' })).rejects.toThrow(
      "'01-four-five' is not learned. Learned: base.",
    );
  });

  it('does not learn two tasks at once', async () => {
    const learner = await open();
    const task = await digitsTask('01-four-five', 40);
    const first = learner.learn(task);
    await expect(learner.learn({ ...task, name: 'other' })).rejects.toThrow(/is writing to/);
    await first;
  });

  it('refuses what it cannot learn', async () => {
    const learner = await open();
    const task = await digitsTask('01-four-five', 20);
    const refused = async (change: object, message: string): Promise<void> => {
      const found = learner.learn({ ...task, ...change });
      await expect(found).rejects.toThrow(TaskError);
      await expect(found).rejects.toThrow(message);
    };
    await refused({ name: 'base' }, "cannot be called 'base'");
    await refused({ name: 'a/b' }, "cannot be called 'a/b'");
    await refused({ classes: [] }, 'has no class');
    await refused({ classes: ['one', 'one'] }, "has the class 'one' twice");
    await refused({ classes: ['four', 'five', 'six'] }, "no image of 'six'");
    await refused({ labels: task.labels.slice(1) }, '20 images and 19 labels');
    await refused({ labels: task.labels.map(() => 2) }, 'the label 2, but 2 classes, from 0');
    expect(learner.generation.number).toBe(0);
    await expect(learner.learn(task, { learningRate: 1e30 })).rejects.toThrow(/Nothing was committed/);
    expect(learner.generation.number).toBe(0);
  });
});

it('checks settings', () => {
  expect(trainingConfig({ epochs: 2 }).energy).toBe(0.8);
  for (const [wrong, message] of [
    [{ epochs: 0 }, 'epochs is 0; it must be a whole number, 1 or more.'],
    [{ epochs: 1.5 }, 'epochs is 1.5'],
    [{ energy: 2 }, 'between 0 and 1'],
    [{ optimizer: 'lbfgs' }, 'sgd, adamw or lion'],
    [{ onForgetting: 'nothing' }, "onForgetting is 'nothing'; it must be heads-only or refuse."],
    [{ maxForgetting: 101 }, 'maxForgetting is 101; it must be between 0 and 100.'],
    [{ fewShot: -1 }, 'fewShot is -1'],
    [{ seconds: 0 }, 'seconds is 0; it must be above 0, and finite.'],
    [{ flops: Number.NaN }, 'flops is NaN'],
    [{ labelCheck: 1 }, 'true or false'],
    [{ flip: 1 }, 'true or false'],
    [{ nonsense: 1 }, "'nonsense' is no setting. Known: epochs,"],
    [{ labelSmoothing: 0.1 }, 'labelSmoothing is set, and JavaScript builds'],
  ] as const) {
    expect(() => trainingConfig(wrong as object)).toThrow(ConfigError);
    expect(() => trainingConfig(wrong as object)).toThrow(message);
  }
});

function softmax(logits: Float32Array, classes: number): number[] {
  const out: number[] = [];
  for (let row = 0; row < logits.length; row += classes) {
    const own = [...logits.slice(row, row + classes)];
    const exponentials = own.map((value) => Math.exp(value - Math.max(...own)));
    const sum = exponentials.reduce((a, b) => a + b, 0);
    out.push(...exponentials.map((value) => value / sum));
  }
  return out;
}
