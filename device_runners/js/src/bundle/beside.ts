/**
 * Two networks in one graph, which differ in some kernels: what lies in front of these is computed once for both.
 *
 * Where two generations look at the same images, each layer behind a site is another one, and each in front of all sites the
 * same. So the nodes that depend on a kernel, and that the features depend on, are there a second time, with kernels of their own.
 */

import { concatenate, utf8 } from '../formats/bytes.js';
import { delimited, fields } from '../formats/protobuf.js';
import { message, rewritten, text } from './onnxFile.js';
import { GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_OUTPUT, type OnnxNode, readNode } from './onnxGraph.js';

const MODEL_GRAPH = 7;
const [NODE_INPUT, NODE_OUTPUT, NODE_NAME] = [1, 2, 3];
const TENSOR_NAME = 8;
const VALUE_NAME = 1;
const PREFIX = 'csk.beside.';
const FEATURES = 'features';
/** What the second network makes of the images. */
export const FEATURES_BESIDE = PREFIX + FEATURES;

/** The name of the first network's tensor of which this is the second one's; undefined for one of the first. */
export function besideOf(name: string): string | undefined {
  return name.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined;
}

/** The model with a second network beside it, whose `kernels` have other names and whose features are an output. Throws MalformedError. */
export function withBeside(model: Uint8Array, kernels: ReadonlySet<string>): Uint8Array {
  return concatenate(
    rewritten(model, ({ number, value }) =>
      number === MODEL_GRAPH ? graphWithBeside(message(value), kernels) : undefined,
    ),
  );
}

function graphWithBeside(graph: Uint8Array, kernels: ReadonlySet<string>): Uint8Array[] {
  const own = ownOf(
    [...fields(graph)].filter(isNode).map(({ value }) => readNode(message(value))),
    kernels,
  );
  const renamed = (bytes: Uint8Array, ...names: readonly number[]): Uint8Array[] =>
    rewritten(bytes, ({ number, value }) => {
      if (!names.includes(number)) return undefined;
      const name = text(value);
      return [utf8(own.has(name) || number === NODE_NAME ? PREFIX + name : name)];
    });
  return [...fields(graph)].flatMap(({ number, value, whole }) => {
    const another = (...names: readonly number[]): Uint8Array[] =>
      delimited(number, renamed(message(value), ...names));
    if (number === GRAPH_NODE && readNode(message(value)).outputs.some((name) => own.has(name))) {
      return [whole, ...another(NODE_INPUT, NODE_OUTPUT, NODE_NAME)];
    }
    if (number === GRAPH_INITIALIZER && own.has(nameIn(message(value), TENSOR_NAME))) {
      return [whole, ...another(TENSOR_NAME)];
    }
    if (number === GRAPH_OUTPUT && nameIn(message(value), VALUE_NAME) === FEATURES) {
      return [whole, ...another(VALUE_NAME)];
    }
    return [whole];
  });
}

/** Names of what the second network has of its own: the kernels, and what depends on them on the way to the features. */
function ownOf(nodes: readonly OnnxNode[], kernels: ReadonlySet<string>): ReadonlySet<string> {
  const behind = new Set(kernels);
  for (const { inputs, outputs } of nodes) {
    if (inputs.some((name) => behind.has(name))) for (const name of outputs) behind.add(name);
  }
  const wanted = new Set([FEATURES]);
  for (const { inputs, outputs } of [...nodes].reverse()) {
    if (outputs.some((name) => wanted.has(name))) for (const name of inputs) wanted.add(name);
  }
  return new Set([...behind].filter((name) => wanted.has(name)));
}

function isNode({ number }: { readonly number: number }): boolean {
  return number === GRAPH_NODE;
}

function nameIn(bytes: Uint8Array, field: number): string {
  return (
    [...fields(bytes)].flatMap(({ number, value }) => (number === field ? [text(value)] : [])).at(-1) ?? ''
  );
}
