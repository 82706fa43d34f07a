/**
 * Writing an ordinary inference model on the device, without an ONNX library.
 *
 * An ONNX file is a protobuf message, and protobuf messages concatenate: the bundle's template, which holds every node
 * and no large tensor, is completed by appending the tensors (docs/bundle.md, "The export template").
 */

import type { Bundle } from '../bundle/bundle.js';
import { EXACT, EXPORT_TEMPLATE, INT8, QUANTISED_TEMPLATE } from '../bundle/manifest.js';
import { ConfigError, StorageError } from '../errors.js';
import { concatenate, utf8 } from '../formats/bytes.js';
import { dumps, jsonOf } from '../formats/json.js';
import { DELIMITED, delimited, tag, VARINT, varint } from '../formats/protobuf.js';
import { bytesOf, float32 } from '../formats/tensors.js';
import { limitOf } from '../method/unknown.js';
import type { Generation } from '../state/record.js';
import { type ExportedTensor, quantisedTensors } from './exportQuantised.js';
import { rejection } from './exportRejection.js';
import type { Doubt, LinearHead } from './predicting.js';

const MODEL_GRAPH = 7;
const MODEL_METADATA = 14;
const GRAPH_INITIALIZER = 5;
// TensorProto.DataType.
const TYPES = { float32: 1, int8: 3, int32: 6 };
const MAX_BYTES = 2 ** 31;

/**
 * The generation's network with `head` folded in: the bytes of a float32 ONNX model. Class names, in the order of the
 * outputs, are in its metadata as JSON under "classes". With a `doubt`, there are the outputs `known` and `distance` beside the
 * model's own, and the share to reject is in the metadata under "csk_sdk_reject". In `precision` int8 it is quantised as
 * the model was that the bundle was built from. Throws StorageError where it would be larger than 2 GiB, ConfigError for a precision
 * that the bundle has no form for.
 */
export function exportModel(
  bundle: Bundle,
  generation: Generation,
  head: LinearHead,
  doubt?: Doubt,
  precision: string = EXACT,
): Uint8Array {
  const { manifest } = bundle;
  requireForm(bundle, precision);
  const { features, weight, bias } = manifest.head;
  const tensors = new Map(manifest.weights_in_export.map((name) => [name, bundle.weight(name)]));
  for (const site of manifest.sites) tensors.set(site.weight, bundle.foldedKernel(site, generation.tensors));
  tensors.set(weight, float32([head.classes.length, features], head.weight));
  tensors.set(bias, float32([head.classes.length], head.bias));
  const template = bundle.file(precision === INT8 ? QUANTISED_TEMPLATE : EXPORT_TEMPLATE);
  const pieces = [template];
  if (doubt) {
    const more = rejection(template, weight, doubt.distance, limitOf(doubt.distance, doubt.reject));
    pieces.push(...more.pieces);
    for (const [name, tensor] of more.tensors) tensors.set(name, tensor);
  }
  const written = precision === INT8 ? quantisedTensors(manifest.quantised, tensors) : tensors;
  for (const [name, tensor] of written) pieces.push(...initializer(name, tensor));
  const metadata = {
    classes: dumps(jsonOf(head.classes)),
    csk_sdk_generation: String(generation.number),
    ...(doubt ? { csk_sdk_reject: String(doubt.reject) } : {}),
  };
  for (const [key, value] of Object.entries(metadata)) {
    pieces.push(...delimited(MODEL_METADATA, [...delimited(1, [utf8(key)]), ...delimited(2, [utf8(value)])]));
  }
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (bytes >= MAX_BYTES) {
    throw new StorageError(
      `The model would have ${Math.round(bytes / 1e6)} MB, and an ONNX file holds less than 2 GiB. ` +
        'Nothing was changed; build the bundle from a smaller network.',
    );
  }
  return concatenate(pieces);
}

/** Throw ConfigError where the bundle has no export template for a precision. */
function requireForm(bundle: Bundle, precision: string): void {
  if (precision !== EXACT && precision !== INT8) {
    throw new ConfigError(`precision is '${precision}'; an export's must be ${EXACT} or ${INT8}.`);
  }
  if (precision === INT8 && !bundle.manifest.quantised.length) {
    throw new ConfigError(
      `precision int8 is for bundles of quantised models, whose scales the export takes, and ${bundle.name} was built from a ` +
        'model without them. Export in float32, and quantise that with onnxruntime.quantization.',
    );
  }
}

/** A ModelProto that holds one initializer: name, shape, and its bytes, little-endian. */
function initializer(name: string, tensor: ExportedTensor): Uint8Array[] {
  const dims = tensor.shape.map((size) => concatenate([tag(1, VARINT), varint(size)]));
  const kind = concatenate([tag(2, VARINT), varint(TYPES[tensor.dtype])]);
  const data = bytesOf(tensor);
  const proto = [
    ...dims,
    kind,
    ...delimited(8, [utf8(name)]),
    concatenate([tag(9, DELIMITED), varint(data.length)]),
    data,
  ];
  return delimited(MODEL_GRAPH, delimited(GRAPH_INITIALIZER, proto));
}
