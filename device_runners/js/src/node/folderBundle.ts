/** A bundle in a folder. */

import { join } from 'node:path';
import type { BundleSource } from '../bundle/source.js';
import { codeOf } from './failures.js';
import { readFileAt } from './opening.js';

export class FolderBundle implements BundleSource {
  constructor(readonly name: string) {}

  async read(name: string, most?: number): Promise<Uint8Array | undefined> {
    try {
      return await readFileAt(join(this.name, name), {
        within: this.name,
        ...(most !== undefined && { most }),
      });
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }
}
