/** Random flips and shifts of a batch, so that a small task is not learned by heart. */

import type { Random } from '../method/random.js';
import type { PixelBatch, Preprocessing } from './pictures.js';

/** What is done to one image: moved by so many pixels, then flipped left to right. */
export interface Move {
  readonly down: number;
  readonly right: number;
  readonly flip: boolean;
}

/** A random move for each of `count` images: up to `shift` pixels each way, flipped with probability 1/2. */
export function randomMoves(count: number, random: Random, flip: boolean, shift: number): Move[] {
  return Array.from({ length: count }, () => ({
    down: random.integer(-shift, shift),
    right: random.integer(-shift, shift),
    flip: flip && random.uniform() < 0.5,
  }));
}

/** A new batch, each image moved; what moves in at an edge is the image's own reflection there, without the edge. */
export function moved(batch: PixelBatch, moves: readonly Move[], size: Preprocessing): PixelBatch {
  const { height, width, channels } = size;
  const data = new Uint8Array(batch.data.length);
  moves.forEach(({ down, right, flip }, n) => {
    const start = n * size.size;
    for (let y = 0; y < height; y++) {
      const row = start + reflected(y + down, height) * width * channels;
      for (let x = 0; x < width; x++) {
        const from = row + reflected((flip ? width - 1 - x : x) + right, width) * channels;
        const to = start + (y * width + x) * channels;
        for (let c = 0; c < channels; c++) data[to + c] = batch.data[from + c]!;
      }
    }
  });
  return { count: batch.count, data };
}

/** Every image, float32 `(n, c, h, w)`, mirrored left to right. */
export function mirrored(images: Float32Array, width: number): Float32Array {
  const out = new Float32Array(images.length);
  for (let row = 0; row < images.length; row += width) {
    for (let x = 0; x < width; x++) out[row + x] = images[row + width - 1 - x]!;
  }
  return out;
}

function reflected(index: number, size: number): number {
  if (size === 1) return 0;
  const period = 2 * (size - 1);
  const folded = ((index % period) + period) % period;
  return Math.min(folded, period - folded);
}
