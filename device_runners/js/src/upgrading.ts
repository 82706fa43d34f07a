/** The next bundle for what was learned on this one: carried over into a state of its own, without any image. */

import { ACCEPTED, accept, checkAge } from './bundle/accepted.js';
import { Bundle } from './bundle/bundle.js';
import { TrustedKey } from './bundle/signing.js';
import type { BundleSource } from './bundle/source.js';
import { BundleError, StateError } from './errors.js';
import { carry, openMap, type Upgraded } from './learning/carrying.js';
import { clearState } from './state/clearing.js';
import { State } from './state/state.js';
import type { Storage } from './state/storage.js';
import { HEAD } from './state/store.js';

/** A bundle, and where what is learned on it is kept. */
export interface Place {
  readonly bundle: BundleSource;
  readonly storage: Storage;
}

export interface UpgradeOptions {
  readonly from: Place;
  /** The next bundle, built with `--upgrade-from` the other, and an empty place for its state. */
  readonly to: Place;
  /** As `Learner.open` takes it: both bundles must be signed by this key's holder. */
  readonly trust?: string;
  /** How many generations of the new state keep their tensors (8). */
  readonly keep?: number;
}

/**
 * Carry over what was learned on `from` to `to`, whose state then opens with its bundle. Nothing of `from` is changed, but that
 * a forgetting that was interrupted is finished, so that `upgradeBack` can take it back: what is forgotten in the new state it
 * still knows, until the caller empties it. The new state counts once this has ended; before, its place holds no generation, and the same
 * call begins anew.
 *
 * Throws BundleError where the new bundle was not built to be upgraded to from the other, StateError where the place is not
 * empty or what is known cannot be read, StateLockedError while somebody learns, StorageError where there is no room.
 */
export async function upgrade({ from, to, trust, keep }: UpgradeOptions): Promise<Upgraded> {
  const [old, next] = [await Bundle.open(from.bundle, trust), await Bundle.open(to.bundle, trust)];
  const key = trust === undefined ? undefined : TrustedKey.of(trust).fingerprint;
  if (key !== undefined) for (const one of [old, next]) await checkAge(one, key, from.storage);
  if (old.id === next.id) throw new BundleError(`${next.name} is the bundle that is on this device already.`);
  const map = openMap(old, next);
  const state = await State.open(from.storage, old.id, old.checkpoint);
  const into = await State.open(to.storage, next.id, next.checkpoint, keep);
  const work = async (): Promise<Upgraded> => {
    if ((await into.head()) !== 0) {
      throw new StateError(`${to.storage.name} holds a state already: upgrade into an empty place.`);
    }
    // From now on nothing is written there.
    await state.finishForgetting();
    const seen = await from.storage.read(ACCEPTED);
    if (seen) await to.storage.replace(ACCEPTED, seen);
    if ((await state.head()) === 0) return { generation: 0, tasks: [], merged: [], lost: [], notes: [] };
    return carry(old, state, next, into, map);
  };
  const done = await state.locked(() => into.locked(work));
  if (key !== undefined) await accept(next, key, to.storage, false);
  return done;
}

/**
 * Take an upgrade back: `from` counts again as it was left, and what is known in the place of `to` goes, with what was
 * learned there since; `to` can be upgraded into again. Nothing is known there from one write on; what is left of it then goes,
 * where the call was interrupted with the next one. With `trust`, the older bundle is accepted for good, and none that is
 * older still. Learners that are open must be opened again.
 *
 * Throws BundleError where `to` was not built to be upgraded to from `from`, StateError where there is no way back: `from`
 * holds nothing, or what it knows cannot be read; StateLockedError while somebody learns on either, StorageError where
 * storage refuses. Then `to` is as it was.
 */
export async function upgradeBack({ from, to, trust }: Omit<UpgradeOptions, 'keep'>): Promise<void> {
  const [old, next] = [await Bundle.open(from.bundle, trust), await Bundle.open(to.bundle, trust)];
  openMap(old, next);
  const state = await State.open(from.storage, old.id, old.checkpoint);
  const into = await State.open(to.storage, next.id, next.checkpoint);
  await into.requireWritable();
  await state.load();
  if ((await from.storage.size(HEAD)) === undefined && (await to.storage.size(HEAD)) !== undefined) {
    throw new StateError(
      `There is no way back: ${from.storage.name} holds no state, and ${to.storage.name} would lose its own. To begin anew ` +
        `on ${old.name}, open it with that place.`,
    );
  }
  if (trust !== undefined) {
    const seen = await to.storage.read(ACCEPTED);
    if (seen) await state.locked(() => from.storage.replace(ACCEPTED, seen));
    await accept(old, TrustedKey.of(trust).fingerprint, from.storage, true);
  }
  await state.locked(() => into.locked(() => clearState(to.storage, next.id)));
}
