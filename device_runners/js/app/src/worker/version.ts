/**
 * Which bundle counts here, and where what was learned on it lies: the app's own, unless the person went back to the one
 * before it, `bundle.before`, which a build with BEFORE brings along.
 */

import { BundleError, StateError, type Upgraded, upgrade, upgradeBack } from 'csk-sdk';
import { HttpBundle, IndexedDbStorage } from 'csk-sdk/browser';
import type { Version } from '../protocol.js';
import { recall, remember } from './pending.js';

const KEY = 'version';

interface Remembered {
  readonly storage: string;
  /** Where what was carried over to `storage` lies as it was, and what is not as it was. */
  readonly from?: { readonly storage: string; readonly notes: readonly string[] };
  /** Whether the one before the app's own bundle counts, although what was learned could be carried over. */
  readonly back?: boolean;
  /** Whether the person has read it. */
  readonly read?: boolean;
}

export class Versions {
  private constructor(
    private readonly root: URL,
    private now: Remembered,
  ) {}

  static async open(root: URL): Promise<Versions> {
    const now = ((await recall(KEY)) as Remembered | undefined) ?? { storage: 'state' };
    return new Versions(root, now);
  }

  get bundle(): string {
    return this.at(this.now.back ? 'bundle.before' : 'bundle');
  }

  get storage(): string {
    return this.now.storage;
  }

  /** What a person should know of it; undefined where there is nothing to tell. */
  get told(): Version | undefined {
    const { from, back, read } = this.now;
    if (back) return { is: 'before', notes: [] };
    return from && !read ? { is: 'carried', notes: from.notes } : undefined;
  }

  /**
   * Carry over what was learned on the bundle before this one; false where it was not learned on that, or cannot be carried.
   * Throws StorageError where there is no room, StateLockedError while another tab learns.
   */
  async carry(): Promise<boolean> {
    if (this.now.back) return false;
    const manifest = await new HttpBundle(this.at('bundle')).read('manifest.json');
    const storage = `state-${nameOf(manifest ?? new Uint8Array())}`;
    if (storage === this.storage) return false;
    const { from, to, close } = await this.places(this.storage, storage);
    try {
      // Of a tab that was closed before it was remembered.
      await upgradeBack({ from, to });
      const notes = remarks(await upgrade({ from, to }));
      await this.become({ storage, from: { storage: this.storage, notes } });
      return true;
    } catch (error) {
      const another = error instanceof StateError && error.constructor === StateError;
      if (another || error instanceof BundleError) return false;
      throw error;
    } finally {
      close();
    }
  }

  /** What counted before it was carried over counts again; what was learned since goes. */
  async back(): Promise<void> {
    const { from, storage } = this.now;
    if (!from) return;
    const { close, ...places } = await this.places(from.storage, storage);
    try {
      await upgradeBack(places);
    } finally {
      close();
    }
    await this.become({ storage: from.storage, back: true });
  }

  /** The app's own bundle counts again. */
  async forward(): Promise<void> {
    await this.become({ storage: this.storage });
  }

  async close(): Promise<void> {
    await this.become({ ...this.now, read: true });
  }

  private at(folder: string): string {
    return new URL(folder, this.root).href;
  }

  private async become(now: Remembered): Promise<void> {
    await remember(KEY, now);
    this.now = now;
  }

  private async places(from: string, to: string) {
    const [old, next] = [await IndexedDbStorage.open(from), await IndexedDbStorage.open(to)];
    return {
      from: { bundle: new HttpBundle(this.at('bundle.before')), storage: old },
      to: { bundle: new HttpBundle(this.at('bundle')), storage: next },
      close: () => {
        old.close();
        next.close();
      },
    };
  }
}

/** What is not as it was, without the names of layers. */
function remarks({ lost, notes }: Upgraded): string[] {
  const others = notes.length > (lost.length ? 1 : 0);
  return [
    ...(lost.length ? [`The new version does not know ${lost.join(', ')}.`] : []),
    ...(others ? ['Not all of it is as before: what it recognises less well now, teach it again.'] : []),
  ];
}

/** A short name of a bundle, by FNV-1a: a page without HTTPS has no other hash, and nobody gains by two of one name. */
function nameOf(manifest: Uint8Array): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of manifest) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash.toString(16).padStart(16, '0');
}
