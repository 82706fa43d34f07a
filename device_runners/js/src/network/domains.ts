/**
 * The domains of a generation: which one an image is of, and its features as that one shows them (docs/domains.md).
 *
 * A domain called NAME has four tensors, `domain/NAME/` and: `scale` and `shift` `(channels,)` of all convolutions,
 * `direction` `(f,)` and `offset` `(1,)` of what tells its images (method/domains.ts); all float32.
 */

import type { Bundle } from '../bundle/bundle.js';
import { DOMAIN_MODEL, DOMAIN_SCALE, DOMAIN_SHIFT } from '../bundle/manifest.js';
import { StateError } from '../errors.js';
import { byCodePoint } from '../formats/json.js';
import { float32, float32Of, type StoredTensor, type Tensors } from '../formats/tensors.js';
import { domainOf } from '../method/domains.js';
import { rowsAt } from '../method/matrix.js';
import type { Graph } from '../runtime/sessions.js';
import { imageFeed, type Opening } from './feeds.js';

export const PREFIX = 'domain/';

/** The domains that there are tensors of, in alphabetical order. */
export function domainNames(tensors: Tensors): string[] {
  const named = [...tensors.keys()].filter((key) => key.startsWith(PREFIX));
  return [...new Set(named.map((key) => key.split('/')[1]!))].sort(byCodePoint);
}

/** The tensors of a domain, or of all. */
export function domainTensors(tensors: Tensors, name?: string): Map<string, StoredTensor> {
  const start = name === undefined ? PREFIX : `${PREFIX}${name}/`;
  return new Map([...tensors].filter(([key]) => key.startsWith(start)));
}

interface Domain {
  readonly scale: Float32Array;
  readonly shift: Float32Array;
  readonly direction: Float32Array;
  readonly offset: number;
}

/**
 * A generation's domains, for who computes features. Close them when they are no longer needed.
 *
 * The graph is opened with the first image that is of a domain: where none is, it costs a product with a vector. Calls may
 * overlap: they share one opened graph.
 */
export class Domains {
  readonly names: readonly string[];
  private readonly domains: readonly Domain[];
  private graph: Promise<Graph> | undefined;

  constructor(
    private readonly bundle: Bundle,
    private readonly tensors: Tensors,
    private readonly opening: Opening,
  ) {
    this.names = domainNames(tensors);
    this.domains = this.names.map((name) => {
      const { domain_channels: channels, head } = bundle.manifest;
      const part = (one: string, length: number): Float32Array => {
        const found = float32Of(tensors, `${PREFIX}${name}/${one}`)?.data;
        if (found?.length !== length) {
          throw new StateError(`Domain '${name}' does not fit its network: roll back to an earlier task.`);
        }
        return found;
      };
      const [scale, shift] = [part('scale', channels), part('shift', channels)];
      return { scale, shift, direction: part('direction', head.features), offset: part('offset', 1)[0]! };
    });
  }

  /** Undefined where the generation has none. */
  static of(bundle: Bundle, tensors: Tensors, opening: Opening): Domains | undefined {
    return domainNames(tensors).length ? new Domains(bundle, tensors, opening) : undefined;
  }

  /** Of features `(n, f)` without any domain: the number in `names` of each image's, -1 for none. */
  told(features: Float32Array): number[] {
    const f = this.bundle.manifest.head.features;
    const score = (row: number, { direction, offset }: Domain): number => {
      const sum = direction.reduce((found, one, j) => found + one * features[row * f + j]!, 0);
      return sum - offset;
    };
    const rows = Array.from({ length: features.length / f }, (_, row) => row);
    return rows.map((row) => domainOf(this.domains.map((domain) => score(row, domain))));
  }

  /** Features `(n, f)` of images `(n, c, h, w)`, of which `features` are those without any domain. */
  async seen(
    images: Float32Array,
    features: Float32Array,
    told = this.told(features),
  ): Promise<Float32Array> {
    if (told.every((domain) => domain < 0)) return features;
    const f = this.bundle.manifest.head.features;
    const found = features.slice();
    for (const number of this.domains.keys()) {
      const rows = told.flatMap((domain, row) => (domain === number ? [row] : []));
      if (!rows.length) continue;
      const through = await this.through(number, rowsAt(images, rows, images.length / told.length));
      for (const [at, row] of rows.entries()) found.set(through.subarray(at * f, (at + 1) * f), row * f);
    }
    return found;
  }

  /** Features `(n, f)` of images that are all of one domain, by its number in `names`. */
  async through(number: number, images: Float32Array): Promise<Float32Array> {
    const { scale, shift } = this.domains[number]!;
    const graph = await this.opened();
    const feeds = {
      image: imageFeed(this.bundle, images),
      [DOMAIN_SCALE]: float32([scale.length], scale),
      [DOMAIN_SHIFT]: float32([shift.length], shift),
    };
    return (await graph.run(feeds, ['features'])).features;
  }

  async close(): Promise<void> {
    const { graph } = this;
    this.graph = undefined;
    await (await graph)?.close();
  }

  private async opened(): Promise<Graph> {
    const { runtime, settings } = this.opening;
    this.graph ??= this.bundle.graph(DOMAIN_MODEL, this.tensors, runtime, settings);
    try {
      return await this.graph;
    } catch (error) {
      // One that did not open is not kept.
      this.graph = undefined;
      throw error;
    }
  }
}
