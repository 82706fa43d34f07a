/** Layers of the same area under the normal density, but for a factor; and where the lowest of them ends. */
const LAYER_BITS = 7;
const LAYERS = 1 << LAYER_BITS;
const LAST = 3.442619855899;
const AREA = 9.91256303526217e-3;
/** Half of the numbers that the bits beside a layer's can be. */
const HALF = 2 ** 32 / LAYERS / 2;

function density(x: number): number {
  return Math.exp(-0.5 * x * x);
}

/** How wide each layer is, and at its end 0; the lowest as wide as if it had no tail. */
const EDGES = new Float64Array(LAYERS + 1);
EDGES[0] = AREA / density(LAST);
EDGES[1] = LAST;
for (let i = 2; i < LAYERS; i++) {
  const inner = EDGES[i - 1]!;
  EDGES[i] = Math.sqrt(-2 * Math.log(AREA / inner + density(inner)));
}

/**
 * A seeded generator of random numbers, xoshiro128** (Blackman & Vigna, 2021), filled by splitmix32.
 *
 * Not NumPy's: the order of images and their augmentation differ from the Python SDK's, and results agree within the
 * spread of such choices, not to the bit.
 */
export class Random {
  private readonly state: Uint32Array;

  /** Different seeds give independent streams; a seed is a list of whole numbers. */
  constructor(...seed: readonly number[]) {
    let mixed = 0x9e3779b9;
    const next = (): number => {
      mixed = (mixed + 0x9e3779b9) | 0;
      let z = mixed ^ (mixed >>> 16);
      z = Math.imul(z, 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return (z ^ (z >>> 15)) >>> 0;
    };
    for (const one of seed) {
      mixed ^= one >>> 0;
      next();
      mixed ^= Math.floor(one / 2 ** 32);
      next();
    }
    this.state = Uint32Array.from({ length: 4 }, next);
  }

  /** 32 random bits. */
  bits(): number {
    const s = this.state;
    const rotated = Math.imul(s[1]!, 5);
    const result = Math.imul((rotated << 7) | (rotated >>> 25), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return result;
  }

  /** A number in [0, 1). */
  uniform(): number {
    return this.bits() / 2 ** 32;
  }

  /** A whole number from `least` to `most`. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.uniform() * (most - least + 1));
  }

  /** A number from the standard normal distribution, by the ziggurat (Marsaglia & Tsang, 2000; tables as Doornik, 2005). */
  normal(): number {
    return this.normalOf(this.bits());
  }

  /** As many of them, one after the other: what most take is written out, so that the state stays in registers. */
  normals(count: number): Float64Array {
    const found = new Float64Array(count);
    const s = this.state;
    let [s0, s1, s2, s3] = [s[0]! | 0, s[1]! | 0, s[2]! | 0, s[3]! | 0];
    for (let at = 0; at < count; at++) {
      const rotated = Math.imul(s1, 5);
      const bits = Math.imul((rotated << 7) | (rotated >>> 25), 9);
      const t = s1 << 9;
      s2 ^= s0;
      s3 ^= s1;
      s1 ^= s2;
      s0 ^= s3;
      s2 ^= t;
      s3 = (s3 << 11) | (s3 >>> 21);
      const layer = bits & (LAYERS - 1);
      const x = ((bits >>> LAYER_BITS) / HALF - 1) * EDGES[layer]!;
      if (Math.abs(x) < EDGES[layer + 1]!) {
        found[at] = x;
        continue;
      }
      s.set([s0, s1, s2, s3]);
      found[at] = this.normalOf(bits >>> 0);
      [s0, s1, s2, s3] = [s[0]! | 0, s[1]! | 0, s[2]! | 0, s[3]! | 0];
    }
    s.set([s0, s1, s2, s3]);
    return found;
  }

  /** The first normal number that these bits lead to, or those behind them. */
  private normalOf(first: number): number {
    for (let bits = first; ; bits = this.bits()) {
      const layer = bits % LAYERS;
      // What is left of the bits, from -1 to below 1.
      const x = (Math.floor(bits / LAYERS) / HALF - 1) * EDGES[layer]!;
      const inner = EDGES[layer + 1]!;
      if (Math.abs(x) < inner) return x;
      if (layer === 0) return x < 0 ? -this.beyond() : this.beyond();
      const [outside, inside] = [density(EDGES[layer]!), density(inner)];
      if (outside + this.uniform() * (inside - outside) < density(x)) return x;
    }
  }

  /** One that is larger than all layers are wide (Marsaglia, 1964). */
  private beyond(): number {
    const edge = EDGES[1]!;
    for (;;) {
      // 1 - u is never 0.
      const x = -Math.log(1 - this.uniform()) / edge;
      if (-2 * Math.log(1 - this.uniform()) >= x * x) return edge + x;
    }
  }

  /** The numbers 0 to `count` - 1 in random order (Fisher & Yates). */
  permutation(count: number): Int32Array {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
