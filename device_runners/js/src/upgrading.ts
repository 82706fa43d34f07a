/** The next bundle for what was learned on this one: carried over into a state of its own, without any image. */

import { ACCEPTED, accept, checkAge } from './bundle/accepted.js';
import { Bundle } from './bundle/bundle.js';
import { TrustedKey } from './bundle/signing.js';
import type { BundleSource } from './bundle/source.js';
import { BundleError, StateError } from './errors.js';
import { carry, openMap, type Upgraded } from './learning/carrying.js';
import { State } from './state/state.js';
import type { Storage } from './state/storage.js';

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
 * Carry over what was learned on `from` to `to`, whose state then opens with its bundle. Nothing of `from` is changed: going
 * back is to open that again. The new state counts once this has ended; before, its place holds no generation, and the same
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
    const seen = await from.storage.read(ACCEPTED);
    if (seen) await to.storage.replace(ACCEPTED, seen);
    if ((await state.head()) === 0) return { generation: 0, tasks: [], merged: [], lost: [], notes: [] };
    return carry(old, state, next, into, map);
  };
  const done = await state.locked(() => into.locked(work));
  if (key !== undefined) await accept(next, key, to.storage, false);
  return done;
}
