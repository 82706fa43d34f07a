/**
 * The state of a device: generations, HEAD, and the progress of the task being learned.
 *
 * The files are the same as Python's (docs/state.md), so that each opens and continues what the other learned.
 */

import { SENTENCES } from '../contract/sentences.js';
import { ConfigError, StateError } from '../errors.js';
import { sha256OfMany } from '../formats/bytes.js';
import { plain } from '../formats/json.js';
import { encode } from '../formats/safetensors.js';
import { filled } from '../formats/sentences.js';
import type { StoredTensor, Tensors } from '../formats/tensors.js';
import { finishForgetting } from './forgetting.js';
import { IDENTITY, requireOwnFolder } from './identity.js';
import { LedgerFiles } from './ledger.js';
import { PROGRESS, readProgress, type SavedProgress, writeProgress } from './progress.js';
import { prune, pruneBlocks, pruneLedger } from './pruning.js';
import {
  type Generation,
  type GenerationRecord,
  type LearnedTask,
  lessonOf,
  seal,
  taskOf,
  unseal,
} from './record.js';
import type { Storage, StorageLock } from './storage.js';
import { BASE, GENERATIONS, GenerationStore, HEAD } from './store.js';
import {
  bothOf,
  FIRST,
  NewerStateError,
  requireReader,
  requireWriter,
  WITH_BLOCKS,
  WITH_DOMAINS,
} from './versions.js';

/** What tensors of domains begin with (network/domains.ts). */
const DOMAIN = 'domain/';

/**
 * A state, opened with the bundle that it belongs to. Reading needs no lock and creates nothing; writing needs
 * `locked(...)` around it. Methods throw StateError for what is damaged, and StorageError when nothing can be written.
 * Where only a newer csk-sdk may read, or write, what is there, they throw StateError, too, and write nothing.
 */
export class State {
  private readonly store: GenerationStore;
  private readonly ledger: LedgerFiles;
  private lock: StorageLock | undefined;
  // The generation of which that is known to be done.
  private purged = 0;

  private constructor(
    readonly storage: Storage,
    private readonly bundleId: string,
    private readonly base: Tensors,
    private readonly keep: number,
  ) {
    this.store = new GenerationStore(storage, bundleId);
    this.ledger = new LedgerFiles(storage);
  }

  /**
   * Open the state in `storage`, which may be empty, with its bundle's id and checkpoint. `keep` is how many generations
   * keep their tensors. Throws StateError when it is damaged, newer, or belongs to another bundle.
   */
  static async open(storage: Storage, bundleId: string, base: Tensors, keep = 8): Promise<State> {
    if (!(Number.isInteger(keep) && keep >= 1))
      throw new ConfigError(`keep is ${keep}; it must be at least 1.`);
    const state = new State(storage, bundleId, base, keep);
    await state.checkIdentity();
    return state;
  }

  /** Throws StateError where only a newer csk-sdk may write here. Every method that writes does; this one, early. */
  async requireWritable(): Promise<void> {
    requireWriter(await this.store.needs(), this.storage.name);
  }

  /** Run `work` as the only writer. Throws StateLockedError at once where somebody else writes. */
  async locked<T>(work: () => Promise<T>): Promise<T> {
    const lock = await this.storage.lock();
    this.lock = lock;
    this.purged = 0;
    try {
      return await work();
    } finally {
      this.lock = undefined;
      await lock.release();
    }
  }

  /** The number of the current generation; 0 when nothing is learned. */
  async head(): Promise<number> {
    return (await this.readHead()).head;
  }

  /** Read a generation, by default the current one; generation 0 is the bundle's own checkpoint. */
  async load(number?: number): Promise<Generation> {
    if (number !== undefined) return this.loadNumber(number);
    for (let current = await this.head(); ; ) {
      try {
        return await this.loadNumber(current);
      } catch (error) {
        // A writer may have committed, and pruned what was current a moment ago; then there is a newer one.
        const moved = await this.head();
        if (!(error instanceof StateError) || moved === current) throw error;
        current = moved;
      }
    }
  }

  private async loadNumber(number: number): Promise<Generation> {
    if (number === 0) {
      const nothing = { parent: undefined, tasks: [], created: '', hidden: [] };
      return { number: 0, ...nothing, tensors: this.base };
    }
    const { record, tensors } = await this.told(() => this.store.read(number), number);
    const { parent, tasks, created, hidden = [] } = record;
    return { number, parent, tasks, tensors, created, hidden };
  }

  /**
   * Store a new generation, learned from `parent`, and make it the current one, atomically. `tasks` are all learned so
   * far. The number is one more than any committed before. `hidden` are classes of the base that do not count from now
   * on, by default those of `parent`. Afterwards old tensors beyond `keep` are removed, and of the generations `purged` all
   * but their numbers: a crash in between is made up for before anything else is written.
   */
  async commit(
    parent: number,
    tasks: readonly LearnedTask[],
    tensors: Tensors,
    { hidden: asked, purged = [] }: { hidden?: readonly string[]; purged?: readonly number[] } = {},
  ): Promise<Generation> {
    await this.prepareToWrite();
    const { last } = await this.readHead();
    const before = parent !== 0 ? await this.store.record(parent) : undefined;
    await this.store.clearDebris();
    const named = (before?.blocks ?? []).map(({ name }) => name);
    const { blocks, own } = await this.store.blocks.write(named, tasks, tensors);
    const data = encode(own);
    const hidden = asked ?? before?.hidden ?? [];
    const created = new Date().toISOString().replace(/\.\d+Z$/, '+00:00');
    const record: GenerationRecord = {
      number: last + 1,
      parent,
      created,
      tasks,
      sha256: await sha256OfMany(data),
      size: data.length,
      hidden,
      purged,
      blocks,
      needs: [
        ...(blocks.length ? [WITH_BLOCKS] : []),
        ...([...tensors.keys()].some((name) => name.startsWith(DOMAIN)) ? [WITH_DOMAINS] : []),
      ].reduce(bothOf, before?.needs ?? FIRST),
      ...(before?.more ? { more: before.more } : {}),
    };
    await this.store.write(record, data);
    await this.purge();
    const records = await this.store.files();
    await prune(this.store, records, this.keep, new Set([record.number, parent]));
    await pruneLedger(this.store, this.ledger);
    await pruneBlocks(this.store, records);
    return { number: record.number, parent, tasks, tensors, created, hidden };
  }

  /** Keep what a class of a task contributed, for the next commit to list; its name. */
  async keepContribution(tensors: Tensors): Promise<string> {
    await this.prepareToWrite();
    return this.ledger.write(tensors);
  }

  /** What `keepContribution` kept. Throws StateError where it is missing or damaged. */
  async contribution(name: string): Promise<Map<string, StoredTensor>> {
    return this.ledger.read(name);
  }

  /**
   * The committed generations that hold what is to be forgotten: of the tasks `changed`, or of classes `names`. One that has
   * the lesson of such a task holds what is forgotten of it, whatever it is called there: renaming and merging keep it, and
   * forgetting leaves no generation that has it. The same is true of a lesson, unless its task is among those `kept`, that
   * taught one of `names` in any generation. Those whose records are damaged may hold it, and are among them. Throws
   * StateError where the storage does not give a record back.
   */
  async numbersWith(
    changed: readonly LearnedTask[],
    kept: readonly LearnedTask[],
    names: readonly string[],
  ): Promise<number[]> {
    const named = ({ classes }: LearnedTask): boolean => classes.some((one) => names.includes(one));
    const numbers = [...(await this.store.committed('json')), ...(await this.store.committed('safetensors'))];
    const told = new Map<number, readonly { lesson: string; named: boolean }[] | undefined>();
    for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
      const record = await this.store.certainly(number);
      told.set(
        number,
        record?.tasks.map((one) => ({ lesson: lessonOf(one), named: named(one) })),
      );
    }
    const gone = new Set(
      [...told.values()].flatMap((tasks) => tasks ?? []).flatMap((one) => (one.named ? one.lesson : [])),
    );
    for (const one of kept) gone.delete(lessonOf(one));
    for (const one of changed) gone.add(lessonOf(one));
    return [...told].flatMap(([number, tasks]) =>
      !tasks || tasks.some((one) => one.named || gone.has(one.lesson)) ? number : [],
    );
  }

  /**
   * Remove what a commit that forgets was interrupted before it removed. Everything that writes does so first. Throws
   * StorageError where something cannot be removed.
   */
  async finishForgetting(): Promise<void> {
    this.checkLocked();
    await this.purge();
  }

  /**
   * What the current generation was committed for to be forgotten, and may still be there, goes. Of a damaged HEAD, nobody
   * knows what that is; a rollback mends it.
   */
  private async purge(): Promise<void> {
    const head = await this.store.readHead().then(
      (numbers) => numbers.head,
      (error) => {
        if (!(error instanceof StateError)) throw error;
        return 0;
      },
    );
    if (head === this.purged) return;
    const record = await this.store.readableFile(head);
    if (!record) return;
    await finishForgetting(this.store, this.ledger, record);
    // Nobody else writes meanwhile.
    this.purged = head;
  }

  /** Make `number` the current generation; 0 is the bundle's checkpoint. Also repairs a damaged or lost HEAD. */
  async rollback(number: number): Promise<void> {
    await this.prepareToWrite();
    if (number !== 0) await this.told(() => this.store.read(number), number);
    await this.store.writeHead(number, await this.store.last());
  }

  /**
   * The newest intact generation that ended with this task: on the way from the current one back, or else of those that
   * were rolled back from, as long as they are there.
   */
  async generationOf(task: string): Promise<number> {
    const way = await this.store.way();
    const seen = new Set(way.map((record) => record.number));
    const others = (await this.store.records()).filter((record) => !seen.has(record.number)).reverse();
    const ended = [...way, ...others].filter((record) => taskOf(record) === task);
    const numbers = ended.map((record) => record.number);
    for (const number of numbers) if (await this.store.isIntact(number)) return number;
    if (task === BASE) return 0;
    const problem = numbers.length
      ? `Generation ${numbers[0]} of task '${task}' is pruned or damaged.`
      : (carriedTogether(task, [...way, ...others]) ??
        `${this.storage.name} has no generation of task '${task}'.`);
    const names: string[] = [];
    for (const record of [...way.reverse(), ...others.reverse()]) {
      if (taskOf(record) && (await this.store.isStored(record))) names.push(taskOf(record));
    }
    throw new StateError(`${problem} Known: ${[...new Set([BASE, ...names])].join(', ')}.`);
  }

  /** Replace the progress checkpoint. */
  async saveProgress(tensors: Tensors, meta: object): Promise<void> {
    await this.prepareToWrite();
    await writeProgress(this.storage, tensors, meta);
  }

  /** The progress checkpoint; undefined when there is none or it is damaged. */
  async loadProgress(): Promise<SavedProgress | undefined> {
    return readProgress(this.storage);
  }

  /** Remove the progress checkpoint, if any. */
  async clearProgress(): Promise<void> {
    this.checkLocked();
    await this.storage.remove(PROGRESS);
  }

  private async readHead(): Promise<{ head: number; last: number }> {
    return this.told(() => this.store.readHead());
  }

  /** What `read` gives; its StateError with the way back added. */
  private async told<T>(read: () => Promise<T>, damaged?: number): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof StateError) || error instanceof NewerStateError) throw error;
      throw new StateError(`${error.message} ${await this.store.wayBack(damaged)}`, { cause: error });
    }
  }

  private checkLocked(): void {
    if (!this.lock) throw new StateError(`${this.storage.name} is not locked for writing.`);
  }

  private async prepareToWrite(): Promise<void> {
    this.checkLocked();
    await this.requireWritable();
    if (!(await this.checkIdentity())) {
      // The records say where they take more.
      const content = { schema_version: FIRST.reader, bundle_id: this.bundleId };
      await this.storage.replace(IDENTITY, seal(content));
    }
    await this.store.begin();
    await this.purge();
  }

  /** Whether there is a state yet. Throws StateError when it is not this bundle's. */
  private async checkIdentity(): Promise<boolean> {
    const { name } = this.storage;
    const unknown = `nobody knows which bundle ${name} belongs to. Restore it from a backup, or start a new state.`;
    if ((await this.storage.size(IDENTITY)) === undefined) {
      const there =
        (await this.storage.size(HEAD)) !== undefined || (await this.storage.list(GENERATIONS)).length > 0;
      // Asked again: another process may be writing the first files just now.
      if ((await this.storage.size(IDENTITY)) === undefined) {
        if (there) throw new StateError(`${name}/${IDENTITY} is missing, so ${unknown}`);
        await requireOwnFolder(this.storage);
        return false;
      }
    }
    let values: Record<string, unknown>;
    try {
      values = plain(await unseal(this.storage, IDENTITY)) as Record<string, unknown>;
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      throw new StateError(`${error.message.replace(/\.$/, '')}: ${unknown}`, { cause: error });
    }
    const { schema_version: version, bundle_id: bundle } = values;
    if (!Number.isInteger(version))
      throw new StateError(`${name}/${IDENTITY} is damaged: its schema is ${version}.`);
    requireReader({ ...FIRST, reader: version as number }, name);
    if (bundle !== this.bundleId) {
      throw new StateError(
        `${name} belongs to another bundle (it was learned on ${String(bundle).slice(0, 8)}…, this bundle is ` +
          `${this.bundleId.slice(0, 8)}…). Open it with its own bundle, carry it over with upgrade, or start a new ` +
          'state.',
      );
    }
    return true;
  }
}

/** What to say of a task that an upgrade brought together with others, in the generation that it began a state with. */
function carriedTogether(task: string, records: readonly GenerationRecord[]): string | undefined {
  const brought = ({ parent, tasks }: GenerationRecord): boolean =>
    parent === 0 && tasks.length > 1 && tasks.some(({ name }) => name === task);
  const together = records.find(brought);
  if (!together) return undefined;
  const names = together.tasks.map(({ name }) => name).filter((name) => name !== task);
  return filled(SENTENCES.carriedTogether, {
    task,
    others: names.join(', '),
    back: '`upgradeBack`',
    rollback: `\`rollback('${taskOf(together)}')\``,
  });
}
