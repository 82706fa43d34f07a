/** Places for states that break as real ones do. */

import type { FileSystem } from '../src/native/versionedStorage.js';
import { MemoryStorage } from '../src/state/memoryStorage.js';

/** As a storage whose process dies at its `left`-th change. */
export class DyingStorage extends MemoryStorage {
  constructor(
    files: ReadonlyMap<string, Uint8Array>,
    public left: number,
  ) {
    super();
    for (const [path, content] of files) this.files.set(path, content);
  }

  override async replace(path: string, data: Uint8Array): Promise<void> {
    this.change();
    await super.replace(path, data);
  }

  override async remove(path: string): Promise<boolean> {
    this.change();
    return super.remove(path);
  }

  private change(): void {
    this.left -= 1;
    if (this.left < 0) throw new Error('killed');
  }
}

/** A file system that loses the end of what was written last when the battery is empty. */
export class PhoneFiles implements FileSystem {
  files = new Map<string, Uint8Array>();

  async list(folder: string): Promise<{ name: string; size: number }[]> {
    const prefix = `${folder}/`;
    const own = [...this.files].filter(([path]) => path.startsWith(prefix));
    const named = own.map(([path, data]) => ({ name: path.slice(prefix.length), size: data.length }));
    return named.filter(({ name }) => !name.includes('/'));
  }

  async read(path: string): Promise<Uint8Array> {
    return this.files.get(path)!.slice();
  }

  async write(path: string, data: Uint8Array): Promise<void> {
    if (this.files.has(path)) throw new Error(`${path} exists`);
    this.files.set(path, data.slice());
  }

  async rename(from: string, to: string): Promise<void> {
    if (this.files.has(to)) throw new Error(`${to} exists`);
    this.files.set(to, this.files.get(from)!);
    this.files.delete(from);
  }

  async remove(path: string): Promise<void> {
    if (!this.files.delete(path)) throw new Error(`${path} does not exist`);
  }
}
