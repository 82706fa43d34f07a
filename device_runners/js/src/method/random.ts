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

  /** A number from the standard normal distribution (Box & Muller, 1958). */
  normal(): number {
    // 1 - u is never 0.
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
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
