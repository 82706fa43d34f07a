/** A generation's network up to the head, and what one pass over data tells. */

import { FEATURES_BESIDE } from '../bundle/beside.js';
import type { Bundle } from '../bundle/bundle.js';
import { EVAL_MODEL, MEMORY_MODEL, type Site, widthOf } from '../bundle/manifest.js';
import { HEAD } from '../contract/thresholds.js';
import { float32, type Tensors } from '../formats/tensors.js';
import { STATISTICS } from '../method/heads.js';
import { FAMILIARITY } from '../method/unknown.js';
import type { Feeds, Graph } from '../runtime/sessions.js';
import { Domains, PREFIX } from './domains.js';
import { imageFeed, neutralDeltas, type Opening } from './feeds.js';
import { requireLearnableFeatures } from './finite.js';
import { LEDGER } from './ledger.js';

export const SAMPLE_BYTES = HEAD.sampleBytes;

/** `images` float32 `(n, c, h, w)`, `labels` `(n,)` into the task's classes. */
export interface Batch {
  readonly images: Float32Array;
  readonly labels: Int32Array;
}

/** Batches that can be gone through again. */
export type Batches = () => Iterable<Batch>;

/** Features `(n, f)`, and the name of each one's domain, null for none; no names where no domain is known. */
export interface Told {
  readonly features: Float32Array;
  readonly domains?: readonly (string | null)[];
}

/** Images `(n, c, h, w)` -> features `(n, f)`. Close it when it is no longer needed. */
export class FeatureExtractor {
  private constructor(
    private readonly bundle: Bundle,
    private readonly graph: Graph,
    private readonly domains: Domains | undefined,
  ) {}

  static async open(bundle: Bundle, tensors: Tensors, opening: Opening): Promise<FeatureExtractor> {
    const graph = await bundle.graph(EVAL_MODEL, tensors, opening.runtime, opening.settings);
    return new FeatureExtractor(bundle, graph, Domains.of(bundle, tensors, opening));
  }

  /** Of a domain's images, features as that shows them. */
  async features(images: Float32Array): Promise<Float32Array> {
    return (await this.told(images)).features;
  }

  /** The same, and of which domain each image is. */
  async told(images: Float32Array): Promise<Told> {
    const { head, sites } = this.bundle.manifest;
    const feeds: Feeds = {
      image: imageFeed(this.bundle, images),
      ...neutralDeltas(sites),
      [head.weight]: float32([1, head.features]),
      [head.bias]: float32([1]),
    };
    const { features } = await this.graph.run(feeds, ['features']);
    const { domains } = this;
    if (!domains) return { features };
    const told = domains.told(features);
    return {
      features: await domains.seen(images, features, told),
      domains: told.map((number) => domains.names[number] ?? null),
    };
  }

  async close(): Promise<void> {
    await this.domains?.close();
    await this.graph.close();
  }
}

/**
 * Give `onFeatures` each batch's features `(n, f)`, as the network in `tensors` sees them, and its labels, until it says that it
 * has enough. Throws DivergedError where some are not finite.
 */
export async function eachFeatures(
  bundle: Bundle,
  tensors: Tensors,
  opening: Opening,
  batches: Iterable<Batch>,
  onFeatures: (features: Float32Array, labels: Int32Array) => 'enough' | undefined,
): Promise<void> {
  const extractor = await FeatureExtractor.open(bundle, tensors, opening);
  try {
    for (const { images, labels } of batches) {
      const features = await extractor.features(images);
      requireLearnableFeatures(features);
      if (onFeatures(features, labels)) break;
    }
  } finally {
    await extractor.close();
  }
}

/** Features to fit a task's head on, as many as fit into a fixed memory. */
export class FeatureSample {
  /** How many more fit. */
  room: number;
  private readonly parts: Float32Array[] = [];
  private readonly labelled: number[] = [];

  constructor(private readonly features: number) {
    this.room = Math.max(1, Math.floor(SAMPLE_BYTES / (4 * features)));
  }

  get full(): boolean {
    return this.room === 0;
  }

  /** How many images it holds. */
  get count(): number {
    return this.labelled.length;
  }

  add(features: Float32Array, labels: Int32Array): void {
    const count = Math.min(this.room, labels.length);
    this.parts.push(features.slice(0, count * this.features));
    this.labelled.push(...labels.subarray(0, count));
    this.room -= count;
  }

  get byteLength(): number {
    return 4 * this.features * this.count;
  }

  /** Features `(n, f)` and labels `(n,)` as they were added. */
  pairs(): { features: Float32Array; labels: Int32Array }[] {
    let position = 0;
    return this.parts.map((features) => {
      const begin = position;
      position += features.length / this.features;
      return { features, labels: Int32Array.from(this.labelled.slice(begin, position)) };
    });
  }

  arrays(): { features: Float32Array; labels: Int32Array } {
    const features = new Float32Array(this.labelled.length * this.features);
    let position = 0;
    for (const part of this.parts) {
      features.set(part, position);
      position += part.length;
    }
    return { features, labels: Int32Array.from(this.labelled) };
  }
}

/**
 * What one pass over data tells: per site the second moment `K = sum x_c^T x_c`, by the name `moment/SITE`. `onFeatures` sees
 * each batch's features and labels, and with `beside`, another generation's tensors, those features as that one sees them.
 */
export async function measureKnowledge(
  bundle: Bundle,
  tensors: Tensors,
  batches: Iterable<Batch>,
  opening: Opening,
  onFeatures: (features: Float32Array, labels: Int32Array, other: Float32Array | undefined) => void,
  beside?: Tensors,
): Promise<Map<string, Float64Array>> {
  const { sites } = bundle.manifest;
  const graph = await bundle.graph(MEMORY_MODEL, tensors, opening.runtime, opening.settings, beside);
  const domains = [tensors, ...(beside ? [beside] : [])].map((each) => Domains.of(bundle, each, opening));
  const names = ['features', ...(beside ? [FEATURES_BESIDE] : [])];
  const moments = new Map(
    sites.map((site) => [`moment/${site.name}`, new Float64Array(site.groups * widthOf(site) ** 2)]),
  );
  try {
    for (const { images, labels } of batches) {
      const feeds = { image: imageFeed(bundle, images), ...neutralDeltas(sites) };
      const outputs = await graph.run(feeds, [...names, ...sites.map((site) => site.moment)]);
      for (const site of sites) {
        const sum = moments.get(`moment/${site.name}`)!;
        const part = outputs[site.moment]!;
        for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + part[i]!;
      }
      const seen: Float32Array[] = [];
      for (const [at, name] of names.entries()) {
        seen.push((await domains[at]?.seen(images, outputs[name]!)) ?? outputs[name]!);
      }
      onFeatures(seen[0]!, labels, seen[1]);
    }
  } finally {
    for (const one of domains) await one?.close();
    await graph.close();
  }
  return moments;
}

/** Whether a tensor means something to this csk-sdk. Others are a newer one's, and are carried on untouched. */
export function isKnown(name: string, sites: readonly Site[]): boolean {
  if (/^head\/[^/]*\/(weight|bias)$/.test(name)) return true;
  if (STATISTICS.some((one) => name === `statistics.${one}`)) return true;
  if (LEDGER.some((one) => name === one)) return true;
  if (FAMILIARITY.some((one) => name === `familiarity.${one}`)) return true;
  if (name.startsWith(PREFIX)) return true;
  return sites.some((site) => name === `center/${site.name}` || name === `moment/${site.name}`);
}
