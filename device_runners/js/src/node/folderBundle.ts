/** A bundle in a folder. */

import { readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import type { BundleSource } from '../bundle/source.js';
import { codeOf } from './folderStorage.js';

export class FolderBundle implements BundleSource {
  constructor(readonly name: string) {}

  async read(name: string): Promise<Uint8Array | undefined> {
    try {
      const path = await realpath(join(this.name, name));
      if (!path.startsWith((await realpath(this.name)) + sep))
        throw new Error('it is a link that leads out of the bundle');
      const content = await readFile(path);
      return new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }
}
