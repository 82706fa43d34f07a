/** After a firmware rollback a state is newer than its reader: what this one does not know stays, or it says why not. */

import { cpSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { StateError } from '../src/errors.js';
import { sha256, utf8 } from '../src/formats/bytes.js';
import { isObject, type Json, jsonOf } from '../src/formats/json.js';
import { decode, encode } from '../src/formats/safetensors.js';
import { float32, float64, int64, type StoredTensor, uint8 } from '../src/formats/tensors.js';
import { Learner } from '../src/learner.js';
import { FolderBundle } from '../src/node/folderBundle.js';
import { FolderStorage } from '../src/node/folderStorage.js';
import { copyState } from '../src/state/copy.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';
import { readProgress, writeProgress } from '../src/state/progress.js';
import { seal, unseal } from '../src/state/record.js';
import type { Storage } from '../src/state/storage.js';
import { DEPLOYED_SETTINGS, deployedProbe, deployedTask } from '../tools/deployedTasks.js';
import { python, runtime, temporaryFolder } from './fixtures.js';

const DEPLOYED = resolve('../../tests/deployed');
const DAY = readdirSync(DEPLOYED).find((name) => /^\d{4}-/.test(name))!;
const FOLDER = join(DEPLOYED, DAY);
const BUNDLE = join(FOLDER, 'exact', 'bundle');
const NEWEST = 'generations/000002.json';

// What nobody knows yet: beside the known fields of a record, of each task, of HEAD, and among the tensors.
const OF_RECORD = { ledger: { entries: [1, 2.5, null], über: 'ß' }, stored: 7, more: { a: [] } };
const OF_TASK = { consent: { by: 'owner', until: 1e22 }, more: [true], needs: 'nothing' };
const OF_HEAD = { branch: 'main' };
const TENSORS = new Map<string, StoredTensor>([
  ['ledger/rows', float32([2], Float32Array.of(Number.NaN, 1))],
  ['moment/of-a-later-site', float64([2], Float64Array.of(1, 2))],
  ['statistics.kurtosis', int64([1, 2, 3])],
  ['head/01/temperature', uint8(Uint8Array.of(7))],
]);

/** Rewrite the newest generation, and HEAD, as a newer csk-sdk would. */
async function handOver(storage: Storage, needs: object = {}): Promise<void> {
  const path = 'generations/000002.safetensors';
  const { tensors } = decode((await storage.read(path))!);
  const data = encode(new Map([...tensors, ...TENSORS]));
  const record = await unseal(storage, NEWEST);
  const tasks = (record.tasks as { [key: string]: Json }[]).map((task) => ({ ...OF_TASK, ...task }));
  await storage.replace(path, data);
  const sums = { size: data.length, sha256: sha256(data) };
  await storage.replace(NEWEST, seal({ ...OF_RECORD, ...record, tasks, ...sums, ...needs }));
  await storage.replace('HEAD', seal({ ...OF_HEAD, ...(await unseal(storage, 'HEAD')) }));
}

function has(found: Json | undefined, wanted: object): boolean {
  if (!isObject(found)) return false;
  return Object.entries(wanted).every(
    ([key, value]) => JSON.stringify(found[key]) === JSON.stringify(jsonOf(value)),
  );
}

function bytesIn(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((one) => one.isFile());
  const paths = files.map((one) => join(one.parentPath, one.name)).filter((path) => !path.endsWith('/lock'));
  return Object.fromEntries(paths.sort().map((path) => [path, readFileSync(path, 'base64')]));
}

let state: string;
let storage: FolderStorage;

function opened(settings: object = {}): Promise<Learner> {
  const config = { ...DEPLOYED_SETTINGS, ...settings };
  return Learner.open({ runtime, bundle: new FolderBundle(BUNDLE), storage, config });
}

beforeEach(() => {
  state = join(temporaryFolder(), 'state');
  cpSync(join(FOLDER, 'exact', 'javascript'), state, { recursive: true });
  storage = new FolderStorage(state);
});

describe('a state that a newer csk-sdk wrote', () => {
  it('is learned on, and what is not known is carried on, as Python sees it, too', async () => {
    const older = await (await opened()).predict(await deployedProbe(FOLDER));
    await handOver(storage, { min_reader: 1, min_writer: 1 });
    const learner = await opened();
    expect((await learner.predict(await deployedProbe(FOLDER))).probabilities).toEqual(older.probabilities);
    await learner.learn(await deployedTask(FOLDER, '03'));
    const written = await unseal(storage, 'generations/000003.json');
    expect(has(written, OF_RECORD)).toBe(true);
    const tasks = written.tasks as { [key: string]: Json }[];
    expect(tasks.map((task) => task.name)).toEqual(['01', '02', '03']);
    expect(tasks.map((task) => has(task, OF_TASK))).toEqual([true, true, false]);
    expect(Object.keys(written)).not.toContain('min_reader');
    expect(has(await unseal(storage, 'HEAD'), OF_HEAD)).toBe(true);
    for (const [name, tensor] of TENSORS) expect(learner.generation.tensors.get(name)).toEqual(tensor);
    const script = `
import json, sys
from csk_sdk import Learner
from csk_sdk.workspace.verification import verify
learner = Learner.open(*sys.argv[1:])
record = learner.state.records()[-1]
print(json.dumps([verify(*sys.argv[1:]).ok, record.more, [task.more for task in record.tasks]]))
`;
    expect(JSON.parse(python(script, BUNDLE, state))).toEqual([true, OF_RECORD, [OF_TASK, OF_TASK, {}]]);
    await learner.rollback('01');
    expect(has(await unseal(storage, 'HEAD'), OF_HEAD)).toBe(true);
    await learner.close();
  });

  it('keeps them in a record that is shortened', async () => {
    await handOver(storage);
    const bundle = new FolderBundle(BUNDLE);
    const learner = await Learner.open({ runtime, bundle, storage, config: DEPLOYED_SETTINGS, keep: 1 });
    await learner.learn(await deployedTask(FOLDER, '03'));
    await learner.state.locked(() => learner.state.commit(3, learner.tasks, learner.generation.tensors));
    const record = await unseal(storage, NEWEST);
    expect((record.tasks as Json[]).length).toBe(1);
    expect(has(record, OF_RECORD)).toBe(true);
    expect(has((record.tasks as Json[])[0], OF_TASK)).toBe(true);
    await learner.close();
  });

  it('has a progress checkpoint that carries them', async () => {
    const learner = await opened({ checkpointSeconds: 0 });
    const task = await deployedTask(FOLDER, '03');
    const untilStep = async (last: number) => {
      const aborter = new AbortController();
      const onProgress = ({ step }: { step: number }) => step === last && aborter.abort(new Error('enough'));
      await expect(learner.learn(task, { onProgress, signal: aborter.signal })).rejects.toThrow('enough');
    };
    await untilStep(3);
    const { tensors, spelled } = (await readProgress(storage))!;
    const rows = float32([1], Float32Array.of(Number.POSITIVE_INFINITY));
    const watched = jsonOf({ by: [0.5, null, 'x'] });
    await writeProgress(storage, new Map([...tensors, ['ledger/step', rows]]), { ...spelled, watched });
    await untilStep(5);
    const found = (await readProgress(storage))!;
    expect(found.meta.step).toBe(5);
    expect(found.spelled.watched).toEqual(watched);
    expect(found.tensors.get('ledger/step')).toEqual(rows);
    expect((await learner.learn(task)).resumedAtStep).toBe(5);
    await learner.close();
  });

  it('is predicted from and exported, and never written to, below min_writer', async () => {
    const expected = await (await opened()).predict(await deployedProbe(FOLDER));
    await handOver(storage, { min_writer: 4 });
    const before = bytesIn(state);
    const learner = await opened();
    const sentence = `${state} was written by a newer csk-sdk, and writing to it takes one that knows schema 4 of states (csk-sdk 0.1.0 knows 3): update csk-sdk on this device; until then it predicts and exports.`;
    const task = await deployedTask(FOLDER, '03');
    await expect(learner.learn(task)).rejects.toThrow(sentence);
    await expect(learner.rollback('01')).rejects.toThrow(sentence);
    await expect(learner.rollback('base')).rejects.toThrow(sentence);
    await expect(learner.state.locked(() => learner.state.saveProgress(new Map(), {}))).rejects.toThrow(
      sentence,
    );
    const { probabilities } = await learner.predict(await deployedProbe(FOLDER));
    expect(probabilities).toEqual(expected.probabilities);
    expect((await learner.export()).length).toBeGreaterThan(1000);
    const copied = new MemoryStorage();
    await expect(copyState(storage, copied)).rejects.toThrow(sentence);
    expect(copied.files.size).toBe(0);
    expect(bytesIn(state)).toEqual(before);
    await learner.close();
  });

  it('says what it needs below min_reader, and nothing of damage or of going back', async () => {
    await handOver(storage, { min_reader: 4, min_writer: 3 });
    const before = bytesIn(state);
    const failed = await opened().catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(StateError);
    expect((failed as Error).message).toBe(
      `${state}/${NEWEST} was written by a newer csk-sdk, and reading it takes one that knows schema 4 of states (csk-sdk 0.1.0 knows 3): update csk-sdk on this device.`,
    );
    expect(bytesIn(state)).toEqual(before);
  });

  it("stays the newer one's after a rollback, and where HEAD is damaged", async () => {
    await handOver(storage, { min_reader: 4 });
    await storage.replace('HEAD', seal({ ...(await unseal(storage, 'HEAD')), head: 1 }));
    const learner = await opened();
    expect(learner.tasks.map(({ name }) => name)).toEqual(['01']);
    await expect(learner.learn(await deployedTask(FOLDER, '03'))).rejects.toThrow(
      'takes one that knows schema 4',
    );
    await learner.close();
    await storage.replace('HEAD', utf8('{'));
    await expect(opened()).rejects.toThrow(/HEAD cannot be read .* takes one that knows schema 4/);
    await expect(opened()).rejects.not.toThrow(/rollback/);
    rmSync(join(state, 'HEAD'));
    await expect(opened()).rejects.toThrow(/HEAD is missing .* takes one that knows schema 4/);
  });

  it.each(['2', 0.5, true, 0, null])('is damaged where min_reader is %s', async (version) => {
    await storage.replace(NEWEST, seal({ ...(await unseal(storage, NEWEST)), min_reader: version }));
    await expect(opened()).rejects.toThrow(/wrong type \('min_reader' must be .*rollback\('01'\) returns/);
  });
});
