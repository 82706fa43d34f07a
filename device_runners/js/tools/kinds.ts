/** The kinds of conformance cases (docs/conformance.md), each computed as a device computes it. */

import { Bundle } from '../src/bundle/bundle.js';
import { EVAL_MODEL, MEMORY_MODEL, rowsOf, TRAINING_MODEL, widthOf } from '../src/bundle/manifest.js';
import { type TrainingConfig, trainingConfig } from '../src/config.js';
import { UNRECORDED } from '../src/contract/recordSchema.js';
import { moved } from '../src/data/augment.js';
import { Preprocessing } from '../src/data/pictures.js';
import { inRightPrecision } from '../src/device/int8Sums.js';
import { float32, int64, type StoredTensor } from '../src/formats/tensors.js';
import { consolidate } from '../src/learning/consolidation.js';
import { TaskTraining } from '../src/learning/training.js';
import { calibrated } from '../src/method/calibration.js';
import { DriftEstimate } from '../src/method/drift.js';
import { ClassStatistics, ldaHead, shrunkCovariance } from '../src/method/heads.js';
import { JudgedImages } from '../src/method/leftOut.js';
import { knownHead, logisticHead } from '../src/method/logistic.js';
import { timesTransposed, transposed } from '../src/method/matrix.js';
import { cosine, optimizerOf, warmUpSteps } from '../src/method/optimizers.js';
import { basisOf, project, restrict } from '../src/method/projection.js';
import { Sensitivity, selectChannels } from '../src/method/selection.js';
import { distanceFrom, distancesOf, limitOf, measured } from '../src/method/unknown.js';
import type { Batch } from '../src/network/features.js';
import type { Opening } from '../src/network/feeds.js';
import { PRIOR_IMAGES, Predictor } from '../src/network/predicting.js';
import type { Feed } from '../src/runtime/sessions.js';
import { DECISIONS } from './decisionKinds.js';
import { DOMAINS } from './domainKinds.js';
import { FLEETS } from './fleetKinds.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';
import { graphs } from './graphs.js';
import { GUARDS } from './guardKinds.js';
import { LEDGER } from './ledgerKinds.js';
import { UPGRADES } from './upgradeKinds.js';

type Kind = (given: Given) => Promise<Results>;

function opening(given: Given): Opening {
  return { runtime: given.runtime, settings: { threads: 1 } };
}

async function opened(given: Given): Promise<{ bundle: Bundle; preprocessing: Preprocessing }> {
  const { bundle } = await inRightPrecision(await Bundle.open(given.source), opening(given));
  return { bundle, preprocessing: new Preprocessing(bundle.manifest.preprocessing, bundle.manifest.input) };
}

async function preprocess(given: Given): Promise<Results> {
  const { preprocessing } = await opened(given);
  const pictures = Array.from({ length: given.settings.pictures as number }, (_, index) => {
    const { shape, data } = tensor(given, `picture/${index}`);
    return { height: shape[0]!, width: shape[1]!, channels: shape[2] ?? 1, data: data as Uint8Array };
  });
  const image = preprocessing.normalize(preprocessing.stack(pictures));
  const { channels, height, width } = preprocessing;
  return new Map([['image', result([pictures.length, channels, height, width], image)]]);
}

async function augment(given: Given): Promise<Results> {
  const { shape, data } = tensor(given, 'pictures');
  const [count, height, width, channels] = shape as [number, number, number, number];
  const [down, right, flipped] = ['down', 'right', 'flipped'].map((name) => numbers(given, name));
  const moves = down!.map((_, i) => ({ down: down![i]!, right: right![i]!, flip: flipped![i]! !== 0 }));
  const size = { height, width, channels, size: height * width * channels } as Preprocessing;
  return new Map([['pictures', result(shape, moved({ count, data: data as Uint8Array }, moves, size).data)]]);
}

async function head(given: Given): Promise<Results> {
  const classes = given.settings.classes as number;
  const f = tensor(given, 'features').shape[1]!;
  const found = logisticHead(floats(given, 'features'), f, numbers(given, 'labels'), classes);
  return headResults(found.weight, found.bias, f);
}

async function known_head(given: Given): Promise<Results> {
  const classes = given.settings.classes as number;
  const f = tensor(given, 'features').shape[1]!;
  const [features, labels] = [floats(given, 'features'), numbers(given, 'labels')];
  const shrunk = shrunkCovariance(statisticsOf(given, f), PRIOR_IMAGES)!;
  const found = knownHead(logisticHead(features, f, labels, classes), features, labels, shrunk);
  return headResults(found.weight, found.bias, f);
}

function headResults(weight: ArrayLike<number>, bias: ArrayLike<number>, f: number): Results {
  return new Map([
    ['weight', result([bias.length, f], weight)],
    ['bias', result([bias.length], bias)],
  ]);
}

async function select(given: Given): Promise<Results> {
  const channels = tensor(given, 'gradient/0').shape[1]!;
  const sensitivity = new Sensitivity(channels);
  for (let batch = 0; batch < (given.settings.batches as number); batch++) {
    sensitivity.add(floats(given, `gradient/${batch}`));
  }
  const selected = selectChannels(sensitivity.values, given.settings.channel_ratio as number);
  return new Map([
    ['sensitivity', result([channels], sensitivity.values)],
    ['selected', result([selected.length], selected)],
  ]);
}

async function projection(given: Given): Promise<Results> {
  const selected = numbers(given, 'selected');
  const k = selected.length;
  const moment = float32(tensor(given, 'moment').shape, floats(given, 'moment'));
  const basis = basisOf(restrict(moment, selected), k, given.settings.energy as number);
  const step = floats(given, 'step');
  project(step, basis);
  const columns = transposed(basis.kept, basis.r, k);
  return new Map([
    ['rank', result([1], [basis.r])],
    ['projector', result([k, k], timesTransposed(columns, columns, k, k, basis.r))],
    ['projected', result(tensor(given, 'step').shape, step)],
  ]);
}

async function optimizer(given: Given): Promise<Results> {
  const config = configOf(given.settings);
  const own = optimizerOf(config);
  const { steps, warmup } = given.settings as { steps: number; warmup: number };
  const { shape } = tensor(given, 'parameter');
  const parameter = floats(given, 'parameter');
  const found: Results = new Map();
  for (let step = 0; step < steps; step++) {
    const factor = cosine(step, steps, warmup);
    const update = floats(given, `gradient/${step}`);
    own.step('parameter', update, parameter, config.learningRate * factor);
    for (let i = 0; i < update.length; i++) parameter[i] = parameter[i]! - update[i]!;
    found.set(`schedule/${step}`, result([1], [factor]));
    found.set(`update/${step}`, result(shape, update));
  }
  return found.set('parameter', result(shape, parameter));
}

async function drift(given: Given): Promise<Results> {
  const f = tensor(given, 'before').shape[1]!;
  const estimate = new DriftEstimate(f);
  estimate.add(floats(given, 'before'), floats(given, 'after'));
  const map = estimate.fit();
  const old = tensor(given, 'sums');
  const names = Array.from({ length: old.shape[0]! }, (_, i) => String(i));
  const counts = new Float64Array(names.length).fill(1);
  const followed = map.statistics(
    new ClassStatistics(f, names, doubles(given, 'gram'), doubles(given, 'sums'), counts),
  );
  return new Map([
    ['weight', result(tensor(given, 'weight').shape, map.head(floats(given, 'weight')))],
    ['sums', result(old.shape, followed.sums)],
    ['gram', result([f, f], followed.gram)],
  ]);
}

async function discriminant(given: Given): Promise<Results> {
  const f = tensor(given, 'gram').shape[0]!;
  const found = ldaHead(statisticsOf(given, f, given.settings.temperature as number), PRIOR_IMAGES);
  return headResults(found.weight, found.bias, f);
}

function statisticsOf(given: Given, f: number, temperature?: number): ClassStatistics {
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  const names = Array.from(counts!, (_, i) => String(i));
  return new ClassStatistics(f, names, gram!, sums!, counts!, temperature);
}

async function calibration(given: Given): Promise<Results> {
  const f = tensor(given, 'features').shape[1]!;
  const names = Array.from({ length: given.settings.classes as number }, (_, i) => String(i));
  const empty = ClassStatistics.empty(f);
  const found = calibrated(empty, floats(given, 'features'), numbers(given, 'labels'), names, PRIOR_IMAGES);
  return new Map([['temperature', result([1], [found.temperature!])]]);
}

async function unknown(given: Given): Promise<Results> {
  const f = tensor(given, 'features').shape[1]!;
  const names = Array.from({ length: given.settings.classes as number }, (_, i) => String(i));
  const [features, labels] = [floats(given, 'features'), numbers(given, 'labels')];
  const statistics = ClassStatistics.empty(f).add(features, labels, names);
  const images = JudgedImages.of(
    statistics,
    features,
    labels,
    names,
    shrunkCovariance(statistics, PRIOR_IMAGES),
  )!;
  const sketch = measured(undefined, statistics, images)!;
  const found = distanceFrom(statistics, sketch, ldaHead(statistics, PRIOR_IMAGES))!;
  const shape = [names.length, sketch.margins.length / names.length];
  const distance = distancesOf(found, floats(given, 'tested'));
  return new Map([
    ['margins', result(shape, sketch.margins)],
    ['oddness', result(shape, sketch.oddness)],
    ['distance', result([distance.length], distance)],
    ['limit', result([1], [limitOf(found, given.settings.reject as number)])],
  ]);
}

/** All three graphs at one point. */
async function step(given: Given): Promise<Results> {
  const { bundle } = await opened(given);
  const { sites, head: names } = bundle.manifest;
  const { runtime } = given;
  const settings = { threads: 1 };
  const images = float32(tensor(given, 'images').shape, floats(given, 'images'));
  const classes = tensor(given, 'bias').shape[0]!;
  const deltas: Record<string, Feed> = { image: images };
  for (const site of sites) {
    const selected = numbers(given, `selected/${site.name}`);
    deltas[site.indices] = int64(selected);
    deltas[site.delta] = float32([rowsOf(site), selected.length], floats(given, `delta/${site.name}`));
  }
  const feeds = {
    ...deltas,
    [names.weight]: float32([classes, names.features], floats(given, 'weight')),
    [names.bias]: float32([classes], floats(given, 'bias')),
  };
  const training = await bundle.graph(TRAINING_MODEL, bundle.checkpoint, runtime, settings);
  const gradients = sites.map((site) => site.gradient);
  const wanted = ['loss', 'logits', names.weight_gradient, names.bias_gradient, ...gradients];
  const out = await training.run({ ...feeds, label: int64(numbers(given, 'labels')) }, wanted);
  await training.close();
  const found: Results = new Map([
    ['loss', result([1], out.loss!)],
    ['logits', result([images.shape[0]!, classes], out.logits!)],
    ['gradient/weight', result([classes, names.features], out[names.weight_gradient]!)],
    ['gradient/bias', result([classes], out[names.bias_gradient]!)],
  ]);
  for (const site of sites) {
    const { shape } = tensor(given, `delta/${site.name}`);
    found.set(`gradient/${site.name}`, result(shape, out[site.gradient]!));
  }
  if (!given.settings.moments) return found;
  const evaluation = await bundle.graph(EVAL_MODEL, bundle.checkpoint, runtime, settings);
  const { features } = await evaluation.run(feeds, ['features']);
  await evaluation.close();
  found.set('features', result([images.shape[0]!, names.features], features));
  const memory = await bundle.graph(MEMORY_MODEL, bundle.checkpoint, runtime, settings);
  const moments = await memory.run(
    deltas,
    sites.map((site) => site.moment),
  );
  await memory.close();
  for (const site of sites) {
    const width = widthOf(site);
    found.set(`moment/${site.name}`, result([site.groups, width, width], moments[site.moment]!));
  }
  return found;
}

/** From given head and channels, as a run continues from its progress checkpoint. */
async function steps(given: Given): Promise<Results> {
  const { bundle } = await opened(given);
  const { sites } = bundle.manifest;
  const classes = Array.from({ length: tensor(given, 'bias').shape[0]! }, (_, i) => String(i));
  const training = new TaskTraining(
    bundle,
    bundle.checkpoint,
    classes,
    configOf(given.settings),
    opening(given),
  );
  const saved = new Map<string, StoredTensor>([
    ['head.weight', float32(tensor(given, 'weight').shape, floats(given, 'weight'))],
    ['head.bias', float32([classes.length], floats(given, 'bias'))],
  ]);
  for (const site of sites) {
    const selected = numbers(given, `selected/${site.name}`);
    saved.set(`selected/${site.name}`, int64(selected));
    saved.set(`delta/${site.name}`, float32([rowsOf(site), selected.length]));
  }
  training.resume(saved);
  const losses: number[] = [];
  const { steps: total, warmup } = given.settings as { steps: number; warmup: number };
  for (let i = 0; i < total; i++) {
    const batch = {
      images: floats(given, `images/${i}`),
      labels: Int32Array.from(numbers(given, `labels/${i}`)),
    };
    losses.push(await training.step(batch, cosine(i, total, warmup)));
  }
  await training.close();
  const found = headResults(training.head.weight, training.head.bias, bundle.manifest.head.features);
  found.set('loss', result([total], losses));
  for (const [name, { site, selected, delta }] of training.sites) {
    found.set(`delta/${name}`, result([rowsOf(site), selected.length], delta));
  }
  return found;
}

/** A whole task, in the order and with the flips and shifts that the case gives. */
async function task(given: Given): Promise<Results> {
  const { bundle, preprocessing } = await opened(given);
  const classes = given.settings.classes as string[];
  const name = given.settings.task as string;
  const training = new TaskTraining(
    bundle,
    bundle.checkpoint,
    classes,
    configOf(given.settings),
    opening(given),
  );
  const batchSize = given.settings.batch_size as number;
  const pick = pictureBatches(given, preprocessing);
  const order = numbers(given, 'order');
  function* plain(): Generator<Batch> {
    for (let start = 0; start < order.length; start += batchSize) {
      yield pick(order.slice(start, start + batchSize));
    }
  }
  await training.warmUp(plain);
  const found: Results = new Map();
  for (const [site, { selected }] of training.sites) {
    found.set(`selected/${site}`, result([selected.length], [...selected]));
  }
  const losses = await trainAsGiven(given, training, pick);
  found.set('loss', result([losses.length], losses));
  const { tensors } = await consolidate(training, name, plain);
  for (const [key, { shape, data }] of tensors) {
    if (key !== 'statistics.classes') found.set(`state/${key}`, result(shape, data as Float32Array));
  }
  const learned = {
    ...{ name, classes, epochs: 1, images: order.length, seconds: 0, loss: 0, peakRssBytes: 0, config: {} },
    ...{ ...UNRECORDED, contributions: new Map(), carried: new Map() },
  };
  const generation = { number: 1, parent: 0, tasks: [learned], tensors, created: '', hidden: [] };
  const predictor = new Predictor(bundle, preprocessing, generation, opening(given));
  const shown = tensor(given, 'test_pictures');
  const { size, height, width, channels } = preprocessing;
  const pictures = Array.from({ length: shown.shape[0]! }, (_, i) => ({
    ...{ height, width, channels, data: (shown.data as Uint8Array).subarray(i * size, (i + 1) * size) },
  }));
  for (const [label, key] of [
    ['task', name],
    ['base', 'base'],
    ['all', undefined],
  ] as const) {
    const said = await predictor.predict(pictures, key);
    const count = said.classes.length;
    found.set(`probabilities/${label}`, result([pictures.length, count], said.probabilities));
    const best = said.labels.map((one) => said.classes.indexOf(one));
    found.set(`prediction/${label}`, result([pictures.length], best));
  }
  await predictor.close();
  return found;
}

type Pick = (
  index: readonly number[],
  moves?: { down: number[]; right: number[]; flipped: number[] },
) => Batch;

function pictureBatches(given: Given, preprocessing: Preprocessing): Pick {
  const pixels = tensor(given, 'pictures').data as Uint8Array;
  const labels = numbers(given, 'labels');
  const { size } = preprocessing;
  return (index, moves) => {
    const data = new Uint8Array(index.length * size);
    index.forEach((from, to) => {
      data.set(pixels.subarray(from * size, (from + 1) * size), to * size);
    });
    let batch = { count: index.length, data };
    if (moves) {
      const { down, right, flipped } = moves;
      const each = index.map((_, i) => ({ down: down[i]!, right: right[i]!, flip: flipped[i]! !== 0 }));
      batch = {
        count: index.length,
        data: moved(batch, each, preprocessing).data as Uint8Array<ArrayBuffer>,
      };
    }
    return { images: preprocessing.normalize(batch), labels: Int32Array.from(index, (i) => labels[i]!) };
  };
}

async function trainAsGiven(given: Given, training: TaskTraining, pick: Pick): Promise<number[]> {
  const { epochs, batch_size: batchSize } = given.settings as { epochs: number; batch_size: number };
  const count = numbers(given, 'labels').length;
  const perEpoch = Math.ceil(count / batchSize);
  const total = perEpoch * epochs;
  const [order, down, right, flipped] = ['epoch_order', 'down', 'right', 'flipped'].map((name) =>
    numbers(given, name),
  );
  const losses: number[] = [];
  for (let at = 0; at < total; at++) {
    const start = Math.floor(at / perEpoch) * count + (at % perEpoch) * batchSize;
    const end = Math.min(start + batchSize, (Math.floor(at / perEpoch) + 1) * count);
    const part = (all: number[] | undefined): number[] => all!.slice(start, end);
    const batch = pick(part(order), { down: part(down), right: part(right), flipped: part(flipped) });
    const factor = cosine(at, total, warmUpSteps(perEpoch));
    losses.push(await training.step(batch, factor));
  }
  return losses;
}

const SETTINGS: Record<string, keyof TrainingConfig> = {
  optimizer: 'optimizer',
  learning_rate: 'learningRate',
  head_learning_rate: 'headLearningRate',
  momentum: 'momentum',
  weight_decay: 'weightDecay',
  energy: 'energy',
  epochs: 'epochs',
  batch_size: 'batchSize',
  channel_ratio: 'channelRatio',
  flip: 'flip',
  shift: 'shift',
};

function configOf(settings: Record<string, unknown>): TrainingConfig {
  const known = Object.entries(settings).filter(([name]) => Object.hasOwn(SETTINGS, name));
  return trainingConfig(Object.fromEntries(known.map(([name, value]) => [SETTINGS[name]!, value])));
}

export const KINDS: Readonly<Record<string, Kind>> = {
  preprocess,
  augment,
  head,
  known_head,
  select,
  project: projection,
  optimizer,
  drift,
  discriminant,
  calibration,
  unknown,
  ...GUARDS,
  ...LEDGER,
  ...DECISIONS,
  ...UPGRADES,
  ...DOMAINS,
  ...FLEETS,
  graphs,
  step,
  steps,
  task,
};
