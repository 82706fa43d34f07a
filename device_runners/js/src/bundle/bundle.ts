/** Opening a bundle: everything is verified before anything is used. */

import { LIMITS } from '../contract/thresholds.js';
import { BundleError, reasonOf } from '../errors.js';
import { sha256, textOf } from '../formats/bytes.js';
import { decode, type Place, readHeader, readTensor } from '../formats/safetensors.js';
import {
  bytesOf,
  type Float32Tensor,
  float32,
  float32Of,
  require32,
  sizeOf,
  type Tensors,
} from '../formats/tensors.js';
import { Graph, type Runtime, type SessionSettings } from '../runtime/sessions.js';
import { besideOf, differenceOf, withBeside } from './beside.js';
import { checkChannels, checkCheckpoint, checkFile } from './checks.js';
import {
  CHECKPOINT,
  CROSS_ENTROPY,
  centerOf,
  DOMAIN_CHANNELS,
  DOMAIN_MODEL,
  DOMAIN_STATISTICS,
  exactTwin,
  MANIFEST,
  type Manifest,
  PORTABLE,
  parseManifest,
  type Site,
  WEIGHTS,
} from './manifest.js';
import { checkManifest } from './manifestChecks.js';
import { withTensors } from './onnxFile.js';
import { onWebGpu, withPadsApart } from './padsApart.js';
import { SIGNATURE, SIGNATURE_BYTES, TrustedKey } from './signing.js';
import { withSmallMaps } from './smallMaps.js';
import type { BundleSource } from './source.js';

/** Mean and deviation of every convolution's channels over the base images, `(channels,)`. */
export interface DomainChannels {
  readonly mean: Float32Array;
  readonly deviation: Float32Array;
}

/** Training artifacts, read-only. Open them with `Bundle.open`. */
export class Bundle {
  private readonly weights: Map<string, Place>;

  private constructor(
    readonly name: string,
    readonly manifest: Manifest,
    /** sha256 of manifest.json: a state remembers which bundle it was learned on. */
    readonly id: string,
    private readonly files: ReadonlyMap<string, Uint8Array>,
    /** The learnable state before the first task: generation 0. */
    readonly checkpoint: Tensors,
    /** That of the graphs that `graph` opens. */
    readonly precision: string = manifest.precision,
    /** Whether they are opened with wide sums: that of `SessionSettings`. */
    readonly wideSums: boolean = false,
  ) {
    this.weights = readHeader(this.file(WEIGHTS)).places;
  }

  /**
   * Read the manifest and check every file that it lists: size, sha256, and that it is safe to open. What is used later
   * is kept as it was checked.
   * With `trust`, the text of a PEM file with an ed25519 public key, only one that its holder signed is opened.
   * Throws BundleError for a missing, damaged or hostile bundle, one that is not signed so, one of a newer schema, or one of
   * a kind that this runner cannot learn; ConfigError where `trust` is no such key, or this engine cannot check it.
   */
  static async open(source: BundleSource, trust?: string): Promise<Bundle> {
    const key = trust === undefined ? undefined : TrustedKey.of(trust);
    const where = `${source.name}/${MANIFEST}`;
    const text = await read(source, MANIFEST, LIMITS.manifestBytes);
    if (!text) {
      throw new BundleError(
        `There is no bundle in ${source.name} (${MANIFEST} is missing). Build one on a workstation with ` +
          '`csk-sdk build-artifacts MODEL --out BUNDLE`, and copy it there.',
      );
    }
    if (text.length > LIMITS.manifestBytes) {
      throw new BundleError(
        `${where} is larger than ${LIMITS.manifestBytes >> 20} MiB: it is no bundle's manifest.`,
      );
    }
    // Before anything in it is believed.
    if (key) await key.check(source, text, await read(source, SIGNATURE, SIGNATURE_BYTES));
    const manifest = parseManifest(textOf(text), where);
    checkManifest(manifest, where);
    requireSupported(manifest, where);
    const files = new Map<string, Uint8Array>();
    for (const [name, { size }] of Object.entries(manifest.files)) {
      const content = await read(source, name, size);
      if (!content) throw new BundleError(`${source.name}/${name} is missing. Copy the bundle again.`);
      await checkFile(manifest, name, content, `${source.name}/${name}`);
      // What lies in folders is of other backends.
      if (!name.includes('/')) files.set(name, content);
    }
    const tensors = tensorsOf(files.get(CHECKPOINT)!, `${source.name}/${CHECKPOINT}`);
    checkCheckpoint(manifest, tensors, `${source.name}/${CHECKPOINT}`);
    return new Bundle(source.name, manifest, sha256(text), files, tensors);
  }

  /** The same bundle with its graphs in another form; what is not given stays as it is. */
  view({ precision = this.precision, wideSums = this.wideSums }): Bundle {
    const { name, manifest, id, files, checkpoint } = this;
    return new Bundle(name, manifest, id, files, checkpoint, precision, wideSums);
  }

  /** What the bundle has graphs for, its default first. */
  get precisions(): readonly string[] {
    const { precision, precisions } = this.manifest;
    return precisions.length ? precisions : [precision];
  }

  /** A checked file's bytes. */
  file(name: string): Uint8Array {
    return this.files.get(name)!;
  }

  /** A frozen tensor by its name in the source model, copied. */
  weight(name: string): Float32Tensor {
    const place = this.weights.get(name);
    const tensor = place && readTensor(this.file(WEIGHTS), name, place);
    if (tensor?.dtype !== 'float32') {
      throw new BundleError(
        `${this.name}/${WEIGHTS} has no float32 tensor '${name}'. Copy the bundle again.`,
      );
    }
    return tensor;
  }

  /** A site's kernel `[c_out, c_in / groups, ...kernel]` with a generation's centers put in. */
  foldedKernel(site: Site, tensors: Tensors): Float32Tensor {
    const kernel = this.weight(site.weight);
    const centers = require32(tensors, `center/${site.name}`).data;
    if (site.whole) return float32(site.shape, centers.slice());
    const area = sizeOf(site.shape.slice(2));
    const middle = centerOf(site.shape.slice(2));
    for (let i = 0; i < centers.length; i++) kernel.data[i * area + middle] = centers[i]!;
    return float32(site.shape, kernel.data);
  }

  /** The file of one of the bundle's graphs, such as "eval_model.onnx", in the form of this view of the bundle. */
  private graphFile(name: string): string {
    // In float32 in any bundle.
    if (name === DOMAIN_MODEL || name === DOMAIN_STATISTICS) return name;
    return this.precision === this.manifest.precision ? name : exactTwin(name);
  }

  /** How base images are: mean and deviation of all channels. Only where the bundle has graphs for domains. */
  domainChannels(): DomainChannels {
    const where = `${this.name}/${DOMAIN_CHANNELS}`;
    const stored = [...tensorsOf(this.file(DOMAIN_CHANNELS), where)];
    const tensors = new Map(stored.filter(([, { dtype }]) => dtype === 'float32'));
    checkChannels(this.manifest, tensors, where);
    const [mean, deviation] = ['mean', 'deviation'].map((name) => require32(tensors, name).data);
    return { mean: mean!, deviation: deviation! };
  }

  /**
   * Open one of the bundle's graphs as a generation sees it, in the form of this view of the bundle. With `beside`, another
   * generation's tensors, it has `FEATURES_BESIDE` as that one sees them, too.
   */
  async graph(
    name: string,
    tensors: Tensors,
    runtime: Runtime,
    settings: SessionSettings,
    beside?: Tensors,
  ): Promise<Graph> {
    const file = this.graphFile(name);
    const sites = new Map(this.manifest.sites.map((site) => [site.weight, site]));
    const data = this.file(WEIGHTS);
    const small = withSmallMaps(this.file(file));
    const written = onWebGpu(settings.options) ? withPadsApart(small) : small;
    const whole = [...sites.keys()].filter((weight) => sites.get(weight)!.whole);
    const both = beside ? withBeside(written, new Set(sites.keys()), new Set(whole)) : written;
    const model = withTensors(both, (tensor, { offset, length }) => {
      const apart = sites.get(differenceOf(tensor) ?? '');
      if (apart && beside) return bytesOf(differenceAt(apart, beside, tensors));
      const other = besideOf(tensor);
      const site = sites.get(other ?? tensor);
      if (site) return bytesOf(this.foldedKernel(site, other && beside ? beside : tensors));
      return data.subarray(offset, length === undefined ? data.length : offset + length);
    });
    return Graph.open(runtime, model, `${this.name}/${file}`, { ...settings, wideSums: this.wideSums });
  }
}

/** All tensors of a file. Throws BundleError where they are of other types than a state holds. */
function tensorsOf(file: Uint8Array, where: string): Tensors {
  try {
    return decode(file).tensors;
  } catch (error) {
    throw new BundleError(`${where} cannot be read (${reasonOf(error)}). Copy the bundle again.`);
  }
}

/** What a site's centers are in one generation, less what they are in another. */
function differenceAt({ name }: Site, one: Tensors, other: Tensors): Float32Tensor {
  const [{ shape, data }, less] = [one, other].map((tensors) => require32(tensors, `center/${name}`)) as [
    Float32Tensor,
    Float32Tensor,
  ];
  return float32(
    shape,
    data.map((value, at) => value - less.data[at]!),
  );
}

/** Weight and bias of the head of one task, if it is there. */
export function headOf(
  tensors: Tensors,
  task: string,
): { weight: Float32Tensor; bias: Float32Tensor } | undefined {
  const weight = float32Of(tensors, `head/${task}/weight`);
  const bias = float32Of(tensors, `head/${task}/bias`);
  return weight && bias && { weight, bias };
}

async function read(source: BundleSource, name: string, most: number): Promise<Uint8Array | undefined> {
  try {
    return await source.read(name, most);
  } catch (error) {
    throw new BundleError(
      `${source.name}/${name} cannot be read (${reasonOf(error)}). Copy the bundle again.`,
      {
        cause: error,
      },
    );
  }
}

function requireSupported(manifest: Manifest, where: string): void {
  if (manifest.loss !== CROSS_ENTROPY) {
    throw new BundleError(
      `${where} was built with --loss ${manifest.loss}, and the JavaScript runner learns only ${CROSS_ENTROPY}: ` +
        'build the bundle without --loss, or use the Python SDK.',
    );
  }
  if (manifest.input.size.length !== 2) {
    throw new BundleError(
      `${where} takes signals, and the JavaScript runner takes only images: use the Python SDK.`,
    );
  }
  if (!manifest.backends.includes(PORTABLE)) {
    throw new BundleError(
      `${where} was built for ${manifest.backends.join(', ')} only, and the JavaScript runner needs the portable ` +
        'backend: build the bundle with --backend portable or both.',
    );
  }
}
