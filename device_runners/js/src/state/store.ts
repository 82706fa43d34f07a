/**
 * The numbered generations of a state and HEAD: what is committed, what is intact, what is debris.
 *
 * Replacing HEAD is the commit. HEAD also holds the last number ever committed, so a file with a higher number is the
 * debris of a crash, and never that of a generation that was rolled back from. The files are those of docs/state.md.
 */

import { reasonOf, StateError } from '../errors.js';
import { sha256OfMany } from '../formats/bytes.js';
import { plain } from '../formats/json.js';
import { decode } from '../formats/safetensors.js';
import type { StoredTensor } from '../formats/tensors.js';
import { BlockFiles } from './blocks.js';
import {
  type GenerationRecord,
  inFile,
  type RecordFile,
  readRecord,
  recordBytes,
  seal,
  taskOf,
  unseal,
} from './record.js';
import type { Storage } from './storage.js';
import { bothOf, FIRST, type Needs, NewerStateError, needsOf, requireWriter } from './versions.js';

/** The name of what the bundle knew: generation 0. */
export const BASE = 'base';
export const HEAD = 'HEAD';
export const GENERATIONS = 'generations';
const NUMBERED = /^(\d{6,15})\.(json|safetensors)$/;

export interface HeadNumbers {
  /** The current generation. */
  readonly head: number;
  /** The last number ever committed. */
  readonly last: number;
}

export class GenerationStore {
  readonly blocks: BlockFiles;

  constructor(
    readonly storage: Storage,
    private readonly bundleId: string,
  ) {
    this.blocks = new BlockFiles(storage);
  }

  /** Write the first HEAD where there is nothing yet, so that a lost one can be told from a first. */
  async begin(): Promise<void> {
    if (await this.isFresh()) await this.writeHead(0, 0);
  }

  /** Throws StateError when HEAD is damaged, or lost although there are generations. */
  async readHead(): Promise<HeadNumbers> {
    if (await this.isFresh()) return { head: 0, last: 0 };
    const where = `${this.storage.name}/${HEAD}`;
    if ((await this.storage.size(HEAD)) === undefined) {
      throw new StateError(`${where} is missing although generations are stored.`);
    }
    const { head, last } = plain(await unseal(this.storage, HEAD)) as Partial<HeadNumbers>;
    if (!Number.isSafeInteger(head) || !Number.isSafeInteger(last) || !(0 <= head! && head! <= last!)) {
      throw new StateError(`${where} is damaged (head ${head}, last ${last}).`);
    }
    return { head: head!, last: last! };
  }

  /**
   * Make `head` the current generation, atomically. HEAD names the bundle, too, so that a lost state.json can be mended.
   * What else it says stays.
   */
  async writeHead(head: number, last: number): Promise<void> {
    const known = await this.quietly(() => unseal(this.storage, HEAD));
    await this.storage.replace(HEAD, seal({ ...known, head, last, bundle_id: this.bundleId }));
  }

  /**
   * Who may read and write this state: what the current record asks for, and the newest intact one. The newest counts
   * after a rollback, too: its csk-sdk may keep more here than generations.
   */
  async needs(): Promise<Needs> {
    const head = (await this.quietly(() => this.readHead()))?.head;
    const current = (head && (await this.needsOf(head))) || FIRST;
    const last = await this.last();
    const numbers = [...(await this.numbers('json'))].filter((number) => number <= last);
    for (const number of numbers.sort((a, b) => b - a)) {
      const needs = number === head ? current : await this.needsOf(number);
      if (needs) return bothOf(needs, current);
    }
    return current;
  }

  private async needsOf(number: number): Promise<Needs | undefined> {
    try {
      return needsOf(await unseal(this.storage, recordPath(number)));
    } catch (error) {
      if (error instanceof StateError || error instanceof RangeError) return undefined;
      throw error;
    }
  }

  /** The last number ever committed; when HEAD is damaged, the last one that has a record. */
  async last(): Promise<number> {
    try {
      return (await this.readHead()).last;
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      return Math.max(0, ...(await this.numbers('json')));
    }
  }

  /**
   * The record of a committed generation, with the tasks in its blocks. Throws StateError when it is unknown, or it or a
   * block is damaged, NewerStateError where only a newer csk-sdk may read it.
   */
  async record(number: number): Promise<GenerationRecord> {
    return this.withBlocks(await this.file(number));
  }

  private async withBlocks({ blocks: names = [], ...file }: RecordFile): Promise<GenerationRecord> {
    const found = await this.blocks.find(names).catch(async (error) => {
      // Without tensors, a generation has no use for them.
      if ((await this.isStored(file)) || !(error instanceof StateError)) throw error;
      return [];
    });
    const tasks = [...found.flatMap((one) => one.tasks), ...file.tasks];
    return { ...file, tasks, blocks: found.map(({ block }) => block) };
  }

  /** The same as its file has it. */
  private async file(number: number): Promise<RecordFile> {
    const last = await this.last();
    if (!(1 <= number && number <= last)) {
      throw new StateError(`${this.storage.name} has no generation ${number}; the last one is ${last}.`);
    }
    return this.fileOf(number);
  }

  private async fileOf(number: number): Promise<RecordFile> {
    const found = await readRecord(this.storage, recordPath(number));
    if (found.number !== number) {
      throw new StateError(
        `${this.storage.name}/${recordPath(number)} is the record of generation ${found.number}.`,
      );
    }
    return found;
  }

  /**
   * Record and tensors of a committed generation, checked against their checksums.
   * Throws StateError, naming the file, when it is unknown, pruned, truncated or otherwise damaged.
   */
  async read(number: number): Promise<{ record: GenerationRecord; tensors: Map<string, StoredTensor> }> {
    const record = await this.file(number);
    const where = `${this.storage.name}/${tensorsPath(number)}`;
    const file = await this.storage.read(tensorsPath(number));
    if (!file) throw new StateError(`${where} is missing (old generations are pruned).`);
    if (file.length !== record.size) {
      throw new StateError(`${where} is damaged: it has ${file.length} bytes instead of ${record.size}.`);
    }
    if ((await sha256OfMany(file)) !== record.sha256) {
      throw new StateError(`${where} is damaged: its checksum does not match.`);
    }
    let own: Map<string, StoredTensor>;
    try {
      own = decode(file).tensors;
    } catch (error) {
      throw new StateError(`${where} cannot be read (${reasonOf(error)}).`, { cause: error });
    }
    const tensors = await this.blocks.joined(record.blocks ?? [], own, where);
    return { record: await this.withBlocks(record), tensors };
  }

  /** The records of all committed generations, oldest first, as their files have them; none that are damaged. */
  async files(): Promise<Map<number, RecordFile>> {
    const found = new Map<number, RecordFile>();
    for (const number of await this.committed('json')) {
      const file = await this.quietly(() => this.fileOf(number));
      if (file) found.set(number, file);
    }
    return found;
  }

  /** One of these; undefined where it is unknown or damaged. */
  async readableFile(number: number): Promise<RecordFile | undefined> {
    return this.quietly(() => this.file(number));
  }

  /** The record of a generation; undefined where it is unknown or damaged. */
  async readable(number: number): Promise<GenerationRecord | undefined> {
    return this.quietly(() => this.record(number));
  }

  /** The same. Throws StateError where the storage does not give back what is there. */
  async certainly(number: number): Promise<GenerationRecord | undefined> {
    await this.storage.read(recordPath(number));
    return this.readable(number);
  }

  /** Whether the tensors of a generation are there, whole. */
  async isStored({ number, size }: Pick<RecordFile, 'number' | 'size'>): Promise<boolean> {
    return (await this.storage.size(tensorsPath(number))) === size;
  }

  /** With `forgets`, nothing of what it said before is kept anywhere. */
  async writeRecord(record: RecordFile, options: { forgets?: boolean } = {}): Promise<void> {
    await this.storage.replace(recordPath(record.number), recordBytes(record), options);
  }

  async isIntact(number: number): Promise<boolean> {
    return (await this.quietly(() => this.read(number))) !== undefined;
  }

  /**
   * The records from the current generation back to 0, newest first, as far as damage allows. Where a record is
   * unreadable, or HEAD is, all the other readable records follow, newest first. Throws NewerStateError where only a newer
   * csk-sdk may read one.
   */
  async way(): Promise<GenerationRecord[]> {
    const records: GenerationRecord[] = [];
    try {
      let number = (await this.readHead()).head;
      while (number !== 0) {
        records.push(await this.record(number));
        number = records.at(-1)!.parent;
      }
    } catch (error) {
      if (!(error instanceof StateError) || error instanceof NewerStateError) throw error;
      const seen = new Set(records.map((found) => found.number));
      for (const number of [...(await this.numbers('json'))].sort((a, b) => b - a)) {
        const found = seen.has(number) ? undefined : await this.readable(number);
        if (found) records.push(found);
      }
    }
    return records;
  }

  /** All readable records of committed generations, oldest first, also of those rolled back from. */
  async records(): Promise<GenerationRecord[]> {
    const numbers = [...(await this.numbers('json'))].sort((a, b) => a - b);
    const found = await Promise.all(numbers.map((number) => this.readable(number)));
    return found.filter((record) => record !== undefined);
  }

  /** Store a generation and make it the current one: tensors, then record, then HEAD. */
  async write(record: GenerationRecord, tensors: Uint8Array): Promise<void> {
    await this.storage.replace(tensorsPath(record.number), tensors);
    await this.writeRecord(inFile(record));
    await this.writeHead(record.number, record.number);
  }

  /** Remove what crashed commits left behind. Call it only with the lock held and HEAD readable. */
  async clearDebris(): Promise<void> {
    const { last } = await this.readHead();
    await this.storage.clean?.('');
    await this.storage.clean?.(GENERATIONS);
    for (const number of new Set([...(await this.numbers('json')), ...(await this.numbers('safetensors'))])) {
      if (number <= last) continue;
      await this.storage.remove(recordPath(number));
      await this.storage.remove(tensorsPath(number));
    }
  }

  /** The sentence that says what to do when generation `damaged`, or HEAD (undefined), is damaged. */
  async wayBack(damaged?: number): Promise<string> {
    const head = (await this.quietly(() => this.readHead()))?.head;
    if (head !== undefined && damaged !== head) return `Generation ${head} stays the current one.`;
    try {
      requireWriter(await this.needs(), this.storage.name);
    } catch (error) {
      if (error instanceof NewerStateError) return error.message;
      throw error;
    }
    for (const record of await this.way()) {
      const task = taskOf(record);
      if (record.number !== damaged && task && (await this.isIntact(record.number))) {
        return `rollback('${task}') returns to generation ${record.number}, which is intact.`;
      }
    }
    return `rollback('${BASE}') returns to the bundle's own checkpoint.`;
  }

  private async isFresh(): Promise<boolean> {
    if ((await this.storage.size(HEAD)) !== undefined) return false;
    return !(await this.storage.list(GENERATIONS)).some((name) => NUMBERED.test(name));
  }

  /** The numbers of which there is a file. */
  async numbers(suffix: 'json' | 'safetensors'): Promise<Set<number>> {
    const matches = (await this.storage.list(GENERATIONS)).map((name) => NUMBERED.exec(name));
    return new Set(matches.filter((match) => match?.[2] === suffix).map((match) => Number(match![1])));
  }

  /** Those of them that were ever committed, in order: others are debris. */
  async committed(suffix: 'json' | 'safetensors'): Promise<number[]> {
    const last = await this.last();
    return [...(await this.numbers(suffix))].filter((number) => number <= last).sort((a, b) => a - b);
  }

  private async quietly<T>(read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read();
    } catch (error) {
      if (error instanceof StateError) return undefined;
      throw error;
    }
  }
}

/** Where a generation's record lies. */
export function recordPath(number: number): string {
  return `${GENERATIONS}/${String(number).padStart(6, '0')}.json`;
}

/** Where a generation's tensors lie. */
export function tensorsPath(number: number): string {
  return `${GENERATIONS}/${String(number).padStart(6, '0')}.safetensors`;
}
