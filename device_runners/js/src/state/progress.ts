/** The checkpoint of a task that is being learned: one file, replaced as a whole, never believed when torn. */

import { Sha256 } from '../formats/bytes.js';
import { byCodePoint, dumps, isObject, type Json, jsonOf, parseJson, plain } from '../formats/json.js';
import { decode, encode } from '../formats/safetensors.js';
import { bytesOf, type StoredTensor, type Tensors } from '../formats/tensors.js';
import type { Storage } from './storage.js';

export const PROGRESS = 'progress.safetensors';

export interface SavedProgress {
  readonly tensors: Map<string, StoredTensor>;
  readonly meta: Record<string, unknown>;
  /** The same, numbers as they were spelled: what is carried on stays as it was. */
  readonly spelled: { readonly [key: string]: Json };
}

/** Replace the checkpoint. It is not made durable: it is written often, and the worst case is the one before. */
export async function writeProgress(storage: Storage, tensors: Tensors, meta: object): Promise<void> {
  const text = dumps(jsonOf(meta));
  const file = encode(tensors, { meta: text, sha256: checksum(tensors, text) });
  await storage.replace(PROGRESS, file, { durable: false });
}

/** What was last written; undefined when there is nothing, or it is damaged. */
export async function readProgress(storage: Storage): Promise<SavedProgress | undefined> {
  const file = await storage.read(PROGRESS);
  if (!file) return undefined;
  try {
    const { tensors, metadata } = decode(file);
    const text = metadata.get('meta') ?? '';
    const spelled = parseJson(text);
    if (!isObject(spelled) || metadata.get('sha256') !== checksum(tensors, text)) return undefined;
    return { tensors, meta: plain(spelled) as Record<string, unknown>, spelled };
  } catch {
    return undefined;
  }
}

/** sha256 over `text`, and names, types, shapes and values, as Python sums them up. */
function checksum(tensors: Tensors, text: string): string {
  const digest = new Sha256().update(text);
  for (const name of [...tensors.keys()].sort(byCodePoint)) {
    const tensor = tensors.get(name)!;
    const { shape } = tensor;
    const dimensions = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
    digest.update(`(${pythonRepr(name)}, '${tensor.dtype}', ${dimensions})`).update(bytesOf(tensor));
  }
  return digest.hex();
}

/** A string as Python's `repr` writes it, for names that can be printed. */
function pythonRepr(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replaceAll('\\', '\\\\');
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote;
}
