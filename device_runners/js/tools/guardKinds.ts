/** The kinds of conformance cases that are guards (docs/conformance.md), each asked of this runner. */

import type { Manifest } from '../src/bundle/manifest.js';
import { DEFAULTS, trainingConfig } from '../src/config.js';
import { warningsAbout } from '../src/learning/acceptance.js';
import { isFewShot } from '../src/learning/fewShot.js';
import { Stopping } from '../src/learning/stopping.js';
import { type Draws, estimatedForgetting } from '../src/method/forgetting.js';
import { gainOf, isClear, judgedBy, pays } from '../src/method/gain.js';
import { ClassStatistics } from '../src/method/heads.js';
import { carrying, gradientNorms } from '../src/method/importance.js';
import { classEvidence, isRefuted } from '../src/method/labelCheck.js';
import { WholeMap } from '../src/method/linearMap.js';
import type { HeadArrays } from '../src/method/logistic.js';
import { mirroredBeside, spreadOver } from '../src/method/mirroring.js';
import { novelty } from '../src/method/novelty.js';
import { PRIOR_IMAGES } from '../src/network/predicting.js';
import { doubles, floats, type Given, numbers, type Results, result, tensor } from './given.js';
import { lessonOf } from './ledgerKinds.js';

type Row = Readonly<Record<string, number>>;
const REASONS = ['epochs', 'seconds', 'flops', 'plateau'] as const;

function one(values: Row): Results {
  return new Map(Object.entries(values).map(([name, value]) => [name, result([1], [value])]));
}

async function labelCheck(given: Given): Promise<Results> {
  const f = tensor(given, 'features').shape[1]!;
  const classes = given.settings.classes as number;
  const found = classEvidence(floats(given, 'features'), f, numbers(given, 'labels'), classes);
  const { accuracy, chance, pictures: images } = found;
  return one({ accuracy, chance, images, refuted: Number(isRefuted(found)) });
}

async function labelVerdict(given: Given): Promise<Results> {
  const [accuracy, chance, images] = ['accuracy', 'chance', 'images'].map((name) => numbers(given, name));
  const refuted = accuracy!.map((_, i) => {
    return Number(isRefuted({ accuracy: accuracy![i]!, chance: chance![i]!, pictures: images![i]! }));
  });
  return new Map([['refuted', result([refuted.length], refuted)]]);
}

function statistics(given: Given, names: readonly string[]): ClassStatistics {
  const [gram, sums, counts] = ['gram', 'sums', 'counts'].map((name) => doubles(given, name));
  return new ClassStatistics(tensor(given, 'gram').shape[0]!, names, gram!, sums!, counts!);
}

async function distance(given: Given): Promise<Results> {
  const names = Array.from(numbers(given, 'counts'), (_, i) => String(i));
  const score = novelty(statistics(given, names), floats(given, 'features'));
  const warned = warningsAbout(score, { forgetting: new Map(), headsOnly: false, apart: [] }, DEFAULTS);
  return one({ told: Number(score !== undefined), score: score ?? 0, unfamiliar: warned.length });
}

async function gradientShare(given: Given): Promise<Results> {
  const [weight, bias] = ['weight', 'bias'].map((name) => floats(given, name));
  const norms = gradientNorms(floats(given, 'features'), Int32Array.from(numbers(given, 'labels')), {
    weight: weight!,
    bias: bias!,
  });
  const { share, least } = given.settings as Record<string, number>;
  const chosen = carrying(norms, share!, least);
  return new Map([
    ['norms', result([norms.length], norms)],
    ['chosen', result([chosen.length], chosen)],
  ]);
}

async function mirroring(given: Given): Promise<Results> {
  const images = numbers(given, 'images');
  const counts = Array.from(images, mirroredBeside);
  const chosen = counts.flatMap((count, at) => spreadOver(images[at]!, count));
  return new Map([
    ['counts', result([counts.length], counts)],
    ['chosen', result([chosen.length], chosen)],
  ]);
}

/** Stands where a random generator is expected, and says what the case gives, task by task. */
class Replayed implements Draws {
  private task = -1;
  private drawn = new Float64Array(0);
  private movements: number[] = [];
  private used = 0;
  private moved = 0;

  constructor(private readonly given: Given) {}

  permutation(): number[] {
    this.requireAllUsed();
    this.task += 1;
    this.drawn = Float64Array.from(numbers(this.given, `normals/${this.task}`));
    this.movements = numbers(this.given, `movements/${this.task}`);
    this.used = 0;
    this.moved = 0;
    return numbers(this.given, `permutation/${this.task}`);
  }

  normals(count: number): Float64Array {
    return this.drawn.subarray(this.used, (this.used += count));
  }

  integer(): number {
    return this.movements[this.moved++]!;
  }

  requireAllUsed(): void {
    if (this.used !== this.drawn.length || this.moved !== this.movements.length) {
      throw new Error('other numbers were drawn than the case gives');
    }
  }
}

async function forgetting(given: Given): Promise<Results> {
  const { classes, tasks } = given.settings as { classes: string[]; tasks: string[][] };
  const heads = (when: string): Map<string, HeadArrays> =>
    new Map(
      tasks.map((_, task) => {
        const [weight, bias] = ['weight', 'bias'].map((part) => floats(given, `${when}/${task}/${part}`));
        return [String(task), { weight: weight!, bias: bias! }];
      }),
    );
  const old = new Map(tasks.map((names, task) => [String(task), names]));
  const draws = new Replayed(given);
  const known = statistics(given, classes);
  const forward = new WholeMap(doubles(given, 'forward'), known.features);
  const drift = { forward, unexplained: doubles(given, 'unexplained') };
  const lost = estimatedForgetting(known, old, heads('before'), heads('after'), drift, draws);
  draws.requireAllUsed();
  return new Map([['lost', result([tasks.length], [...lost.values()])]]);
}

async function knownClasses(given: Given): Promise<Results> {
  const { old: before, classes } = given.settings as { old: string[]; classes: string[] };
  const old = statistics(given, before);
  const [features, labels] = [floats(given, 'features'), numbers(given, 'labels')];
  const lesson = lessonOf(features, labels, classes);
  const { features: f, gram, sums, counts } = lesson.after(old);
  return new Map([
    ['gram', result([f, f], gram)],
    ['sums', result([counts.length, f], sums)],
    ['counts', result([counts.length], counts)],
  ]);
}

async function fewShot(given: Given): Promise<Results> {
  const [images, classes, epochs, wanted] = ['images', 'classes', 'epochs', 'few_shot'].map((name) =>
    numbers(given, name),
  );
  const found = images!.map((count, i) => {
    const names = new Array<string>(classes![i]!).fill('x');
    return Number(isFewShot(count, names, trainingConfig({ epochs: epochs![i]!, fewShot: wanted![i]! })));
  });
  return new Map([['heads_only', result([found.length], found)]]);
}

async function gain(given: Given): Promise<Results> {
  const { classes: count, done, lost, max_forgetting: most } = given.settings as Record<string, number>;
  const classes = Array.from({ length: count! }, (_, i) => String(i));
  const [before, after] = (['before', 'after'] as const).map((when) => {
    const f = tensor(given, `fitted/${when}`).shape[1]!;
    const fitted = floats(given, `fitted/${when}`);
    const known = ClassStatistics.empty(f).add(fitted, numbers(given, 'fitted/labels'), classes);
    return judgedBy(
      known,
      floats(given, `held/${when}`),
      numbers(given, 'held/labels'),
      classes,
      PRIOR_IMAGES,
    );
  });
  const found = { ...gainOf(before!, after!, done!), lost: lost! };
  const { images, heads, centers, likelihood, sure } = found;
  const said = { clear: Number(isClear(found)), pays: Number(pays(found, most!)) };
  return one({ images, heads, centers, likelihood, sure, ...said });
}

async function stopping(given: Given): Promise<Results> {
  const { epochs, patience, seconds, flops, per_epoch, batch_size } = given.settings as Record<
    string,
    number
  >;
  const costs = { step_centers: 100 };
  const config = trainingConfig({
    ...{ epochs: epochs!, patience: patience!, seconds: seconds ?? null },
    flops: flops === null ? null : flops! * batch_size! * costs.step_centers,
  });
  const found = new Stopping(config, { costs } as unknown as Manifest, per_epoch!, batch_size!);
  const planned = found.steps;
  const losses = numbers(given, 'loss');
  const times = numbers(given, 'seconds');
  let stopped = 0;
  while (stopped < losses.length) {
    stopped += 1;
    if (found.over(stopped, times[stopped - 1]!, losses[stopped - 1]!)) break;
  }
  return one({ planned, stopped, reason: REASONS.indexOf(found.reason) });
}

export const GUARDS: Readonly<Record<string, (given: Given) => Promise<Results>>> = {
  label_check: labelCheck,
  label_verdict: labelVerdict,
  novelty: distance,
  gradient_share: gradientShare,
  forgetting,
  known_classes: knownClasses,
  few_shot: fewShot,
  gain,
  mirroring,
  stopping,
};
