/** What was never taught: told in predictions and exported models as the Python SDK tells it. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../src/errors.js';
import { float32 } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { ClassStatistics, ldaHead } from '../src/method/heads.js';
import { distanceFrom, Familiarity, QUANTILES } from '../src/method/unknown.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { only, SETTINGS } from '../tools/digits.js';
import { BUNDLE, digits, digitsTask, FIXTURES, python, runtime, temporaryFolder } from './fixtures.js';

const bundle = new FolderBundle(BUNDLE);

const SCRIPT = `
import json, sys
import numpy as np, onnx, onnxruntime as ort
from csk_sdk import Learner
from safetensors.numpy import load_file
bundle, state, images, model = sys.argv[1:]
images = load_file(images)["test/images"][..., None]
learner = Learner.open(bundle, state)
found = learner.predict(images, reject=0.1)
onnx.checker.check_model(onnx.load(model), full_check=True)
session = ort.InferenceSession(model)
feeds = {session.get_inputs()[0].name: learner.bundle.preprocessing(images)}
_, known, distance = session.run(None, feeds)
said = {"distance": found.distance.tolist(), "known": found.known.tolist()}
said |= {"exported": distance.tolist(), "kept": known.tolist()}
print(json.dumps(said))
`;

function close(found: ArrayLike<number>, expected: readonly number[]): void {
  expect(found.length).toBe(expected.length);
  expected.forEach((value, at) => {
    expect(Math.abs(found[at]! / value - 1)).toBeLessThan(1e-3);
  });
}

describe('what was never taught', () => {
  it('is told as the Python SDK tells it, of a task learned here, and in an exported model', async () => {
    const folder = temporaryFolder();
    const state = join(folder, 'state');
    const learner = await Learner.open({
      runtime,
      bundle,
      storage: new FolderStorage(state),
      config: SETTINGS,
    });
    const { tasks, test } = await digits();
    const [first] = Object.keys(tasks);
    await learner.learn(await digitsTask(first!));
    const pictures = only(test, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).pictures;
    const found = await learner.predict(pictures, { reject: 0.1 });
    writeFileSync(join(folder, 'model.onnx'), await learner.export({ reject: 0.1 }));
    const files = [BUNDLE, state, join(FIXTURES, 'digits.safetensors'), join(folder, 'model.onnx')];
    const said = JSON.parse(python(SCRIPT, ...files));
    close(found.distance!, said.distance);
    close(found.distance!, said.exported);
    const differ = (other: readonly boolean[]) => other.filter((one, at) => one !== found.known![at]).length;
    expect(differ(said.known)).toBeLessThanOrEqual(1);
    expect(differ(said.kept)).toBeLessThanOrEqual(1);
    expect(found.known!.filter((one) => one).length).toBeGreaterThan(0);
    expect(found.known!.filter((one) => !one).length).toBeGreaterThan(pictures.length / 5);
    expect((await learner.predict(pictures, { reject: 0 })).known!.every((one) => one)).toBe(true);
  });

  it('is refused a share that is none', async () => {
    const learner = await Learner.open({ runtime, bundle, storage: new MemoryStorage() });
    const [picture] = (await digits()).test.pictures;
    for (const reject of [-0.1, 1, Number.NaN]) {
      await expect(learner.predict([picture!], { reject })).rejects.toThrow(ConfigError);
      await expect(learner.export({ reject })).rejects.toThrow('from 0 to below 1');
    }
    await learner.close();
  });
});

describe('the sketch of known images', () => {
  const table = Float32Array.from({ length: 64 }, (_, at) => at + 1);
  const sketch = new Familiarity(['é', 'b'], table, table);

  it('is stored and read back', () => {
    const read = Familiarity.from(sketch.tensors())!;
    expect(read.classes).toEqual(['é', 'b']);
    expect(read.margins).toEqual(table);
    expect(Familiarity.from(new Map())).toBeUndefined();
  });

  it('is the mean of both where a class is in both', () => {
    const merged = sketch.merge(new Familiarity(['b', 'c'], table, table));
    expect(merged.classes).toEqual(['é', 'b', 'c']);
    expect([merged.margins[0], merged.margins[32], merged.margins[64]]).toEqual([1, 17, 33]);
  });

  it('is refused where it does not fit', () => {
    for (const damage of [float32([1, 32], table.slice(0, 32)), float32([2, 32]), undefined]) {
      const tensors = sketch.tensors();
      if (damage) tensors.set('familiarity.oddness', damage);
      else tensors.delete('familiarity.oddness');
      expect(() => Familiarity.from(tensors)).toThrow('the sketch of known images cannot be read');
    }
  });

  it.each([[[5, 5, 5, 5]], [[3, 9, 4, 30]], [[2, 2, 90, 40]]])(
    'has the margins at means of all classes with all, of %j images each',
    (images) => {
      // Classes that lie close to each other, so that one of fewer images may stand above another at its own mean.
      const [f, classes] = [6, 320];
      let seed = 1;
      const random = (): number => {
        seed = (seed * 48271) % 2147483647;
        return seed / 2147483647 - 0.5;
      };
      const labels = Array.from({ length: classes }, (_, c) => Array<number>(images[c % 4]!).fill(c)).flat();
      const means = Float64Array.from({ length: classes * f }, (_, at) => (at < 1200 ? 0.1 : 9) * random());
      const features = Float32Array.from(
        labels.flatMap((c) => Array.from({ length: f }, (_, j) => means[c * f + j]! + 3 * random())),
      );
      const names = Array.from({ length: classes }, (_, c) => `${c}`);
      const known = ClassStatistics.empty(f).add(features, Int32Array.from(labels), names);
      const head = ldaHead(known, 100);
      let sum = 0;
      let above = 0;
      for (let c = 0; c < classes; c++) {
        const logits = names.map((_, other) => {
          let logit = head.bias[other]!;
          for (let j = 0; j < f; j++) {
            logit += (known.sums[c * f + j]! / known.counts[c]!) * head.weight[other * f + j]!;
          }
          return logit;
        });
        const highest = Math.max(...logits);
        above += highest > logits[c]! ? 1 : 0;
        sum += highest - logits.reduce((all, one) => all + one, 0) / classes;
      }
      expect(above > 0).toBe(new Set(images).size > 1);
      const even = new Float32Array(classes * QUANTILES).fill(1);
      const found = distanceFrom(known, new Familiarity(names, even, even), head)!;
      expect(found.margin / (sum / classes)).toBeCloseTo(1, 6);
    },
  );
});
