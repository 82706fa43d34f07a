/** Which frames of a live camera are worth keeping: sharp ones, and such that differ from the one kept before. */

/** A frame as grey values from 0 to 255, row by row. */
export interface Grey {
  readonly width: number;
  readonly height: number;
  readonly values: Float32Array;
}

export type Verdict = 'kept' | 'blurred' | 'same';

/** The shorter side of a frame that is judged, pixels: blur that is not seen here, hardly any network of a phone sees. */
export const JUDGED = 96;

// Of two photos (scikit-learn's china.jpg and flower.jpg, at 96 pixels) a blur of one pixel leaves 0.08 to 0.11 of the variance,
// half a pixel 0.39 to 0.42.
const SHARP_SHARE = 0.3;
// Where all is out of focus there is no sharp frame to hold it against: the same photos have 11 to 13 at two pixels of blur.
const SHARP_LEAST = 10;
// How many frames back the sharpest is looked for: two seconds.
const REMEMBERED = 16;
// A sensor's noise moves a part of the image by about one level, a hand by ten and more.
const DIFFERENT = 5;
const PARTS = 4;

/** Variance of the Laplacian, in squared grey levels: large where there are edges, small where they are blurred. */
export function sharpness({ width, height, values }: Grey): number {
  let [sum, squares] = [0, 0];
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const at = y * width + x;
      const edge =
        values[at - 1]! + values[at + 1]! + values[at - width]! + values[at + width]! - 4 * values[at]!;
      sum += edge;
      squares += edge * edge;
    }
  }
  const count = Math.max(1, (width - 2) * (height - 2));
  return squares / count - (sum / count) ** 2;
}

/** Mean absolute difference, in grey levels, of the part of the image (of 4 x 4) that differs most. */
export function difference(a: Grey, b: Grey): number {
  if (a.width !== b.width || a.height !== b.height) return Number.POSITIVE_INFINITY;
  const sums = new Float64Array(PARTS * PARTS);
  const counts = new Float64Array(PARTS * PARTS);
  for (let y = 0; y < a.height; y++) {
    const row = PARTS * Math.floor((PARTS * y) / a.height);
    for (let x = 0; x < a.width; x++) {
      const part = row + Math.floor((PARTS * x) / a.width);
      const at = y * a.width + x;
      sums[part]! += Math.abs(a.values[at]! - b.values[at]!);
      counts[part]!++;
    }
  }
  return Math.max(...sums.map((sum, part) => sum / Math.max(1, counts[part]!)));
}

/** Judges one frame after the other. All frames should be seen, so that it is known how sharp this scene can be. */
export class FrameFilter {
  private readonly recent: number[] = [];
  private kept: Grey | undefined;

  /** Whether it is worth keeping; it counts as kept where it is, and `wanted`. */
  judge(frame: Grey, wanted: boolean): Verdict {
    const sharp = sharpness(frame);
    this.recent.push(sharp);
    if (this.recent.length > REMEMBERED) this.recent.shift();
    if (sharp < Math.max(SHARP_LEAST, SHARP_SHARE * Math.max(...this.recent))) return 'blurred';
    if (this.kept && difference(frame, this.kept) < DIFFERENT) return 'same';
    if (wanted) this.kept = frame;
    return 'kept';
  }

  /** This one was kept, however it looks. */
  keep(frame: Grey): void {
    this.kept = frame;
  }
}
