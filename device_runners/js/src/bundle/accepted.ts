/**
 * Which signed bundles a device has accepted: older ones of the same key are refused from then on.
 *
 * A signature does not expire. So what is signed holds a counter that grows from bundle to bundle, and `accepted.json`
 * beside the state the highest that was seen, for each key, and the ids of older ones that the owner allowed. A bundle
 * without a counter, of an older csk-sdk, counts as 0. Python's: csk_sdk/bundle/accepted.py.
 */

import { BundleError, reasonOf, StateError, StateLockedError, StorageError } from '../errors.js';
import { isObject, type Json, plain } from '../formats/json.js';
import { seal, unseal } from '../state/record.js';
import type { Storage } from '../state/storage.js';
import type { Bundle } from './bundle.js';

export const ACCEPTED = 'accepted.json';
const MOST_ALLOWED = 16;

/** Of one key: the highest counter, and the identities of older bundles that the owner has allowed. */
interface Seen {
  readonly highest: number;
  readonly allowed: readonly string[];
  /** What a newer csk-sdk says of it, kept as it is. */
  readonly more: { readonly [name: string]: Json };
}

interface Accepted {
  readonly keys: ReadonlyMap<string, Seen>;
  readonly more: { readonly [name: string]: Json };
}

const NOTHING: Seen = { highest: 0, allowed: [], more: {} };

/**
 * Throws BundleError where whoever has this storage has accepted a newer bundle of the key, StateError where what is
 * remembered is damaged.
 */
export async function checkAge(bundle: Bundle, key: string, storage: Storage): Promise<void> {
  const seen = (await read(storage)).keys.get(key) ?? NOTHING;
  if (bundle.manifest.counter >= seen.highest || seen.allowed.includes(bundle.id)) return;
  throw new BundleError(
    `The bundle in ${bundle.name} is older than one that this device has accepted: its counter is ${bundle.manifest.counter}, and ` +
      `${seen.highest} was seen. Get the newest one; or, if you want this one, open it with allowOlder: true once.`,
  );
}

/**
 * `checkAge`, and remember the bundle if it is newer than all before, or `allowOlder`, which accepts it for good. Where
 * the storage cannot be written, or is being written, a newer bundle is remembered next time; with `allowOlder` that
 * throws StorageError or StateLockedError instead.
 */
export async function accept(
  bundle: Bundle,
  key: string,
  storage: Storage,
  allowOlder: boolean,
): Promise<void> {
  if (allowOlder) return remember(bundle, key, storage, true);
  await checkAge(bundle, key, storage);
  if (bundle.manifest.counter <= ((await read(storage)).keys.get(key) ?? NOTHING).highest) return;
  try {
    await remember(bundle, key, storage, false);
  } catch (error) {
    if (!(error instanceof StorageError || error instanceof StateLockedError)) throw error;
  }
}

async function remember(bundle: Bundle, key: string, storage: Storage, forget: boolean): Promise<void> {
  const lock = await storage.lock();
  try {
    const { keys, more } = await read(storage).catch((error) => {
      if (forget && error instanceof StateError) return { keys: new Map<string, Seen>(), more: {} };
      throw error;
    });
    const now = new Map(keys).set(key, withBundle(keys.get(key) ?? NOTHING, bundle));
    const content = [...now].map(([name, seen]) => {
      const { highest, allowed } = seen;
      return [name, { ...seen.more, highest, allowed }] as const;
    });
    await storage.replace(ACCEPTED, seal({ ...more, schema_version: 1, keys: Object.fromEntries(content) }));
  } finally {
    await lock.release();
  }
}

function withBundle(seen: Seen, bundle: Bundle): Seen {
  const { counter } = bundle.manifest;
  if (counter >= seen.highest) return { ...seen, highest: counter };
  const allowed = [...seen.allowed.filter((one) => one !== bundle.id), bundle.id];
  return { ...seen, allowed: allowed.slice(-MOST_ALLOWED) };
}

async function read(storage: Storage): Promise<Accepted> {
  if ((await storage.size(ACCEPTED)) === undefined) return { keys: new Map(), more: {} };
  try {
    const { schema_version: _, keys, ...more } = await unseal(storage, ACCEPTED);
    if (!isObject(keys)) throw new StateError('keys is no object');
    return { keys: new Map(Object.entries(keys).map(([key, one]) => [key, seenFrom(one)])), more };
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    // Never taken for "nothing seen": whoever can damage it could then put an older bundle here.
    throw new StateError(
      `${storage.name}/${ACCEPTED}, which says what signed bundles were accepted, is damaged (${reasonOf(error)}). Restore ` +
        'it from a backup; or, if this bundle is the newest one, open it with allowOlder: true once.',
    );
  }
}

function seenFrom(raw: Json): Seen {
  const { highest, allowed, ...more } = isObject(raw) ? raw : {};
  const [count, ids] = [plain(highest ?? null), plain(allowed ?? null)];
  if (!Number.isSafeInteger(count) || !Array.isArray(ids))
    throw new StateError('highest or allowed is of a wrong type');
  return { highest: count as number, allowed: ids.map(String), more };
}
