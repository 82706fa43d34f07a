/**
 * The files of tasks that lie further back, `blocks/SHA256.safetensors`: never changed, and named by what is in them.
 *
 * A commit writes what changed, so what a generation has in common with the one before lies in files that both list: the
 * records of these tasks, their heads, and rows of what has one for each class. Many generations share a block, which is
 * there twice then. docs/decisions/0037-blocks.md.
 */

import { STATE } from '../contract/thresholds.js';
import { reasonOf, StateError } from '../errors.js';
import { concatenate, textOf, utf8 } from '../formats/bytes.js';
import { dumps, type Json, parseJson } from '../formats/json.js';
import { decode, encode } from '../formats/safetensors.js';
import { bytesOf, type StoredTensor, sizeOf, type Tensors, uint8 } from '../formats/tensors.js';
import { NamedFiles } from './named.js';
import { type Block, type Extent, type LearnedTask, taskJson, tasksFrom } from './record.js';
import type { Storage } from './storage.js';

export const BLOCKS = 'blocks';

const TASKS = 'tasks';
// A row for each class, and those of old classes stay as they are when others are learned.
const ROWS: ReadonlySet<string> = new Set(['statistics.means', 'familiarity.margins', 'familiarity.oddness']);

/** A block whose tasks are read; they are `listed` as its file has them. */
export interface KnownBlock {
  readonly block: Block;
  readonly tasks: readonly LearnedTask[];
  readonly listed: Uint8Array;
}

/** Tensors of one file. */
interface Part {
  readonly where: string;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/**
 * What blocks the next generation has, oldest first, behind one with those of `before`: of `classes` in each of its tasks,
 * and so many `rows`. Those of before stay as long as they fit; then each time that enough classes lie outside, the oldest
 * get a block.
 */
export function layoutOf(before: readonly Extent[], classes: readonly number[], rows: number): Extent[] {
  const closed = STATE.blockClasses;
  const layout: Extent[] = [];
  let [task, row] = [0, 0];
  const add = (extent: Extent): void => {
    layout.push({ tasks: extent.tasks, rows: extent.rows });
    task += extent.tasks;
    row += extent.rows;
  };
  for (const extent of before) {
    if (task + extent.tasks > classes.length || row + extent.rows > rows) break;
    add(extent);
  }
  for (;;) {
    const tasks = oldest(classes.slice(task), closed);
    if (!tasks && rows - row <= 2 * closed) return layout;
    add({ tasks, rows: Math.min(closed, rows - row) });
  }
}

/** How many tasks it takes, from the oldest on, for so many classes; 0 where all have fewer. */
function oldest(classes: readonly number[], wanted: number): number {
  let sum = 0;
  const last = classes.findIndex((count) => (sum += count) >= wanted);
  return last + 1;
}

/** `blocks/` of a state. Locking is the business of `State`. */
export class BlockFiles {
  private readonly files: NamedFiles;
  // The records of a state's generations list the same ones.
  private readonly known = new Map<string, KnownBlock>();

  constructor(storage: Storage) {
    this.files = new NamedFiles(storage, BLOCKS, { twice: true });
  }

  /**
   * Keep of a generation what lies in its blocks, where the one that it was learned from has those of `parent`: the blocks,
   * and the tensors that are left. Throws StateError where one of these is lost, StorageError.
   */
  async write(
    parent: readonly string[],
    tasks: readonly LearnedTask[],
    tensors: Tensors,
  ): Promise<{ blocks: Block[]; own: Tensors }> {
    const before = await this.find(parent);
    const classes = tasks.map((one) => one.classes.length);
    const extents = layoutOf(
      before.map(({ block }) => block),
      classes,
      rowsOf(tensors),
    );
    const own = new Map(tensors);
    const blocks: Block[] = [];
    let first = 0;
    for (const [at, extent] of extents.entries()) {
      const within = tasks.slice(first, first + extent.tasks);
      first += extent.tasks;
      const old = before[at];
      const listed = old && sameTasks(old.tasks, within) ? old.listed : listOf(within);
      const content = new Map<string, StoredTensor>([[TASKS, uint8(listed)]]);
      for (const [key, tensor] of [...takeHeads(own, within), ...takeRows(own, extent.rows)]) {
        content.set(key, tensor);
      }
      const block = { name: await this.files.write(encode(content)), ...extent };
      this.known.set(block.name, { block, tasks: within, listed });
      blocks.push(block);
    }
    return { blocks, own };
  }

  /** Blocks by their names, with their tasks. Throws StateError where one is missing or damaged, twice. */
  async find(names: readonly string[]): Promise<KnownBlock[]> {
    const found: KnownBlock[] = [];
    for (const name of names) found.push(this.known.get(name) ?? this.parsed(name, await this.read(name)));
    return found;
  }

  /**
   * The tensors of a generation: those of its blocks, and its `own`, which were read from `where`. Throws StateError as
   * `find`.
   */
  async joined(
    names: readonly string[],
    own: Map<string, StoredTensor>,
    where: string,
  ): Promise<Map<string, StoredTensor>> {
    const parts: Part[] = [];
    for (const name of names) {
      const tensors = await this.read(name);
      // Its tasks are asked for next.
      if (!this.known.has(name)) this.parsed(name, tensors);
      parts.push({ where: this.files.where(name), tensors });
    }
    const tensors = new Map(parts.flatMap((part) => [...part.tensors]));
    tensors.delete(TASKS);
    for (const [key, tensor] of own) tensors.set(key, tensor);
    parts.push({ where, tensors: own });
    for (const key of ROWS) {
      const rows = stacked(key, parts);
      if (rows) tensors.set(key, rows);
    }
    return tensors;
  }

  /** Remove all others; the paths of those that could not be removed. Call it only with the lock held. */
  async keep(wanted: ReadonlySet<string>): Promise<string[]> {
    for (const name of this.known.keys()) if (!wanted.has(name)) this.known.delete(name);
    return this.files.keep(wanted);
  }

  private parsed(name: string, content: Tensors): KnownBlock {
    const where = this.files.where(name);
    const found = content.get(TASKS);
    const listed = found?.dtype === 'uint8' ? found.data : new Uint8Array();
    let raw: Json;
    try {
      raw = parseJson(textOf(listed));
    } catch (error) {
      throw new StateError(`${where} cannot be read (${reasonOf(error)}).`, { cause: error });
    }
    const tasks = tasksFrom(raw, where);
    const rows = Math.max(0, ...rowCounts(content));
    const known = { block: { name, tasks: tasks.length, rows }, tasks, listed };
    this.known.set(name, known);
    return known;
  }

  private async read(name: string): Promise<Map<string, StoredTensor>> {
    const data = await this.files.read(name);
    const where = this.files.where(name);
    if (!data) throw new StateError(`${where} is missing or damaged, and so is its copy.`);
    try {
      return decode(data).tensors;
    } catch (error) {
      throw new StateError(`${where} cannot be read (${reasonOf(error)}).`, { cause: error });
    }
  }
}

/** Whether they are the very same objects: then a block need not be put into words again. */
function sameTasks(one: readonly LearnedTask[], other: readonly LearnedTask[]): boolean {
  return one.length === other.length && one.every((task, at) => task === other[at]);
}

function listOf(tasks: readonly LearnedTask[]): Uint8Array {
  return utf8(dumps(tasks.map(taskJson), { compact: true }));
}

/** The heads of these tasks, taken out of `tensors`. */
function takeHeads(
  tensors: Map<string, StoredTensor>,
  tasks: readonly LearnedTask[],
): [string, StoredTensor][] {
  const names = new Set(tasks.map(({ name }) => name));
  const heads = [...tensors].filter(
    ([key]) => key.startsWith('head/') && names.has(key.slice('head/'.length, key.lastIndexOf('/'))),
  );
  for (const [key] of heads) tensors.delete(key);
  return heads;
}

/** So many first rows of each tensor that has them, taken out of `tensors`. */
function takeRows(tensors: Map<string, StoredTensor>, rows: number): [string, StoredTensor][] {
  const found = [...tensors].filter(([key]) => rows && ROWS.has(key));
  for (const [key, tensor] of found) {
    const rest = rowsFrom(tensor, rows);
    if (rest.shape[0]) tensors.set(key, rest);
    else tensors.delete(key);
  }
  return found.map(([key, tensor]) => [key, rowsFrom(tensor, 0, rows)]);
}

/** How many rows can be parted from others: those that all tensors of rows have. */
function rowsOf(tensors: Tensors): number {
  const counts = rowCounts(tensors);
  return counts.length ? Math.min(...counts) : 0;
}

function rowCounts(tensors: Tensors): number[] {
  return [...tensors].flatMap(([key, { shape }]) => (ROWS.has(key) ? [shape[0] ?? 0] : []));
}

/** The rows of a tensor from `begin` to `end`. */
function rowsFrom(tensor: StoredTensor, begin: number, end = tensor.shape[0] ?? 0): StoredTensor {
  const row = tensor.shape.slice(1);
  const width = sizeOf(row);
  const data = tensor.data.subarray(begin * width, end * width);
  return { ...tensor, shape: [end - begin, ...row], data } as StoredTensor;
}

/** A tensor of which each part has some rows; undefined where none has any. Throws StateError where these do not fit. */
function stacked(key: string, parts: readonly Part[]): StoredTensor | undefined {
  const pieces: StoredTensor[] = [];
  for (const { where, tensors } of parts) {
    const piece = tensors.get(key);
    if (!piece) continue;
    if (kindOf(piece) !== kindOf(pieces[0] ?? piece)) {
      throw new StateError(`${where}: the parts of tensor '${key}' do not fit together.`);
    }
    pieces.push(piece);
  }
  const [first] = pieces;
  if (!first || pieces.length === 1) return first;
  const { buffer } = concatenate(pieces.map(bytesOf));
  const count = pieces.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const Kind = first.data.constructor as new (buffer: ArrayBufferLike) => StoredTensor['data'];
  return { ...first, shape: [count, ...first.shape.slice(1)], data: new Kind(buffer) } as StoredTensor;
}

/** What all rows of a tensor have in common. */
function kindOf({ dtype, shape }: StoredTensor): string {
  return String([dtype, shape.length, ...shape.slice(1)]);
}
