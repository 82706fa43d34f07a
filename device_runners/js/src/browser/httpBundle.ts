/** A bundle beside a web page, read with `fetch`; a service worker's cache makes it work offline. */

import type { BundleSource } from '../bundle/source.js';

export class HttpBundle implements BundleSource {
  /** Its folder, relative to the page, with or without a slash at the end: "bundle". */
  readonly name: string;

  constructor(folder: string) {
    this.name = folder.replace(/\/+$/, '');
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    const response = await fetch(`${this.name}/${name.split('/').map(encodeURIComponent).join('/')}`);
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }
}
