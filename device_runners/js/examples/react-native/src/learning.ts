/** One learner for the whole app, and what the screen says about it. */

import { CskError, Learner, type LearnReport, type Picture, type Progress } from 'csk-sdk';
import { VersionedStorage } from 'csk-sdk/native';
import { appBundle, phoneFiles, STATE_FOLDER } from './files';
import { openRuntime } from './runtime';

export async function openLearner(): Promise<Learner> {
  return Learner.open({
    runtime: await openRuntime(),
    bundle: appBundle,
    storage: new VersionedStorage(phoneFiles, STATE_FOLDER),
    sessionOptions: { executionProviders: ['cpu'] },
  });
}

/** Photos of the classes that are to be learned next. */
export type Collected = ReadonlyMap<string, readonly Picture[]>;

export async function learnCollected(
  learner: Learner,
  collected: Collected,
  onProgress: (progress: Progress) => void,
): Promise<LearnReport> {
  const classes = [...collected.keys()];
  const pictures = classes.flatMap((name) => collected.get(name) ?? []);
  const labels = classes.flatMap((name, label) => (collected.get(name) ?? []).map(() => label));
  const name = `task-${String(learner.tasks.length + 1).padStart(2, '0')}`;
  return learner.learn({ name, classes, pictures, labels }, { onProgress });
}

/** A sentence for the user: csk-sdk's own are made for that. */
export function sentence(error: unknown): string {
  if (error instanceof CskError) return error.message;
  return `Something went wrong: ${error instanceof Error ? error.message : String(error)}`;
}
