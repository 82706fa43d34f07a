/** Where a bundle's files come from: a folder, a web server, an app's assets. Read-only. */

export interface BundleSource {
  /** What messages call the bundle, such as its folder. */
  readonly name: string;
  /**
   * The bytes of a file, such as "manifest.json"; undefined where there is none of that name. No more than `most` + 1 of
   * them are needed: a source that can tell before it reads leaves out the rest.
   */
  read(name: string, most?: number): Promise<Uint8Array | undefined>;
}

/** A bundle in memory: file names and their bytes. */
export class MemoryBundle implements BundleSource {
  constructor(
    private readonly files: ReadonlyMap<string, Uint8Array>,
    readonly name = 'the bundle',
  ) {}

  async read(name: string): Promise<Uint8Array | undefined> {
    return this.files.get(name);
  }
}
