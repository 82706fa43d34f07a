/** The kind `graphs` of the conformance cases: each graph of a bundle, and all that it gives. */

import { Bundle } from '../src/bundle/bundle.js';
import {
  DOMAIN_DEVIATION,
  DOMAIN_MEAN,
  DOMAIN_MODEL,
  DOMAIN_SCALE,
  DOMAIN_SHIFT,
  DOMAIN_STATISTICS,
  EVAL_MODEL,
  EXPORT_TEMPLATE,
  MEMORY_MODEL,
  rowsOf,
  TRAINING_MODEL,
} from '../src/bundle/manifest.js';
import { inRightPrecision } from '../src/device/int8Sums.js';
import { float32, int64 } from '../src/formats/tensors.js';
import { exportModel } from '../src/network/export.js';
import type { LinearHead } from '../src/network/predicting.js';
import { type Feed, Graph, type Runtime } from '../src/runtime/sessions.js';
import { floats, type Given, numbers, type Results, result, tensor } from './given.js';

/** Every output of the graphs that the case names, as `GRAPH/OUTPUT`, in the case's precision. */
export async function graphs(given: Given): Promise<Results> {
  const wanted = given.settings as { graphs: string[]; precision: string; input?: string };
  const bundle = await inPrecision(wanted.precision, given);
  const { sites, head: names } = bundle.manifest;
  const { runtime, shapes } = watched(given.runtime);
  const own = { ...given, runtime };
  const bias = floats(own, 'bias');
  const weight = floats(own, 'weight');
  const images = float32(tensor(own, 'images').shape, floats(own, 'images'));
  const head: Record<string, Feed> = {
    [names.weight]: float32([bias.length, names.features], weight),
    [names.bias]: float32([bias.length], bias),
  };
  const moved: Record<string, Feed> = {};
  for (const site of sites) {
    const selected = numbers(own, `selected/${site.name}`);
    moved[site.indices] = int64(selected);
    moved[site.delta] = float32([rowsOf(site), selected.length], floats(own, `delta/${site.name}`));
  }
  const label = { label: int64(numbers(own, 'labels')) };
  const feeds: Readonly<Record<string, Record<string, Feed>>> = {
    [TRAINING_MODEL]: { image: images, ...moved, ...head, ...label },
    [EVAL_MODEL]: { image: images, ...moved, ...head },
    [MEMORY_MODEL]: { image: images, ...moved },
    [EXPORT_TEMPLATE]: { [wanted.input ?? '']: images },
    [DOMAIN_MODEL]: { image: images, ...ofChannels(own, [DOMAIN_SCALE, DOMAIN_SHIFT]) },
    [DOMAIN_STATISTICS]: { image: images, ...ofChannels(own, [DOMAIN_MEAN, DOMAIN_DEVIATION]) },
  };
  const found: Results = new Map();
  for (const name of wanted.graphs) {
    const fed = feeds[name];
    if (!fed) throw new Error(`the graph ${name} is not known here`);
    const graph =
      name === EXPORT_TEMPLATE
        ? await exported(own, bundle, { classes: Array.from(bias, (_, i) => String(i)), weight, bias })
        : await bundle.graph(name, bundle.checkpoint, runtime, { threads: 1 });
    const outputs = await graph.run(fed, shapes.names);
    await graph.close();
    const short = name.replace('.onnx', '');
    for (const output of shapes.names) {
      const shape = shapes.of.get(output)!;
      const called = name === EXPORT_TEMPLATE ? 'logits' : output;
      found.set(`${short}/${called}`, result(shape.length ? shape : [1], outputs[output]!));
    }
  }
  return found;
}

/** What a case of a bundle with domains has of these inputs. */
function ofChannels(given: Given, names: readonly string[]): Record<string, Feed> {
  const there = names.filter((name) => given.inputs.has(name));
  return Object.fromEntries(
    there.map((name) => [name, float32(tensor(given, name).shape, floats(given, name))]),
  );
}

/** The case's bundle, its int8 graphs opened as this CPU adds them up right. */
async function inPrecision(precision: string, { source, runtime }: Given): Promise<Bundle> {
  const opened = await Bundle.open(source);
  if (precision !== opened.manifest.precision) return opened.view({ precision });
  return (await inRightPrecision(opened, { runtime, settings: { threads: 1 } })).bundle;
}

/** The template completed as an application completes it, with the case's head. */
function exported(given: Given, bundle: Bundle, head: LinearHead): Promise<Graph> {
  const base = {
    number: 0,
    parent: undefined,
    tasks: [],
    tensors: bundle.checkpoint,
    created: '',
    hidden: [],
  };
  return Graph.open(given.runtime, exportModel(bundle, base, head), EXPORT_TEMPLATE, { threads: 1 });
}

/** The runtime, and beside it names and shapes of the outputs of the session that was opened and run last. */
function watched(runtime: Runtime): {
  runtime: Runtime;
  shapes: { names: string[]; of: Map<string, readonly number[]> };
} {
  const shapes = { names: [] as string[], of: new Map<string, readonly number[]>() };
  const create = async (model: Uint8Array, options?: object) => {
    const session = await runtime.InferenceSession.create(model, options);
    shapes.names = [...(session as unknown as { outputNames: readonly string[] }).outputNames];
    shapes.of.clear();
    return {
      run: async (...run: Parameters<typeof session.run>) => {
        const outputs = await session.run(...run);
        for (const [name, { dims }] of Object.entries(outputs)) shapes.of.set(name, dims);
        return outputs;
      },
      release: () => session.release(),
    };
  };
  return { runtime: { Tensor: runtime.Tensor, InferenceSession: { create } }, shapes };
}
