/**
 * Bilinear resizing with antialiasing, as the workstation's library (Pillow) does it: weights in fixed point with 22
 * bits, rounded to 8 bits between the horizontal and the vertical pass. The same to the bit, but for tall images:
 * there, newer versions of Pillow begin with the vertical pass, and a number may round to its neighbour.
 */

const PRECISION = 22;

interface Weights {
  /** First source pixel of each target pixel, and how many follow. */
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** `taps` weights for each target pixel. */
  readonly weights: Int32Array;
  readonly taps: number;
}

/** uint8 `(height, width, channels)` to `(newHeight, newWidth, channels)`. */
export function resizeBilinear(
  pixels: Uint8Array,
  height: number,
  width: number,
  channels: number,
  newHeight: number,
  newWidth: number,
): Uint8Array {
  let found = pixels;
  if (newWidth !== width) found = horizontal(found, height, width, channels, newWidth);
  if (newHeight !== height) found = vertical(found, height, newWidth * channels, newHeight);
  return found;
}

function horizontal(
  pixels: Uint8Array,
  height: number,
  width: number,
  channels: number,
  newWidth: number,
): Uint8Array {
  const { first, count, weights, taps } = weightsFor(width, newWidth);
  const out = new Uint8Array(height * newWidth * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (PRECISION - 1);
        const from = (y * width + first[x]!) * channels + c;
        for (let i = 0; i < count[x]!; i++) sum += pixels[from + i * channels]! * weights[x * taps + i]!;
        out[(y * newWidth + x) * channels + c] = clipped(sum);
      }
    }
  }
  return out;
}

function vertical(pixels: Uint8Array, height: number, row: number, newHeight: number): Uint8Array {
  const { first, count, weights, taps } = weightsFor(height, newHeight);
  const out = new Uint8Array(newHeight * row);
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < row; x++) {
      let sum = 1 << (PRECISION - 1);
      const from = first[y]! * row + x;
      for (let i = 0; i < count[y]!; i++) sum += pixels[from + i * row]! * weights[y * taps + i]!;
      out[y * row + x] = clipped(sum);
    }
  }
  return out;
}

function clipped(sum: number): number {
  return Math.min(255, Math.max(0, sum >> PRECISION));
}

/** A triangle filter, as wide as a target pixel is in the source, at least two source pixels. */
function weightsFor(size: number, newSize: number): Weights {
  const scale = size / newSize;
  const support = Math.max(scale, 1);
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(newSize);
  const count = new Int32Array(newSize);
  const weights = new Int32Array(newSize * taps);
  for (let x = 0; x < newSize; x++) {
    const center = (x + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(size, Math.trunc(center + support + 0.5));
    const exact: number[] = [];
    for (let i = begin; i < end; i++) {
      exact.push(Math.max(0, 1 - Math.abs((i - center + 0.5) * (1 / support))));
    }
    const total = exact.reduce((sum, value) => sum + value, 0);
    first[x] = begin;
    count[x] = end - begin;
    exact.forEach((value, i) => {
      const share = total === 0 ? value : value / total;
      weights[x * taps + i] = Math.trunc(0.5 + share * 2 ** PRECISION);
    });
  }
  return { first, count, weights, taps };
}
