/** Which frames are kept: numbers that can be worked out by hand, and a scene whose blur is known. */

import { expect, test } from 'vitest';
import { difference, FrameFilter, type Grey, sharpness } from '../src/camera/frames.js';

const SIZE = 96;

function scene(of: (x: number, y: number) => number): Grey {
  const values = new Float32Array(SIZE * SIZE);
  for (let y = 0; y < SIZE; y++) for (let x = 0; x < SIZE; x++) values[y * SIZE + x] = of(x, y);
  return { width: SIZE, height: SIZE, values };
}

/** A wave with this many pixels to its period, moved by `by`: what blur leaves of it is its amplitude. */
const wave = (amplitude: number, by = 0, period = 12): Grey =>
  scene((x) => 128 + amplitude * Math.sin((2 * Math.PI * (x + by)) / period));

test('the variance of the Laplacian is what it is by hand', () => {
  expect(sharpness(scene(() => 77))).toBe(0);
  // A ramp has no curvature.
  expect(sharpness(scene((x, y) => x + 2 * y))).toBeCloseTo(0, 6);
  // Of a chessboard of 0 and 255 every inner pixel has +-4 * 255.
  expect(sharpness(scene((x, y) => (x + y) % 2 && 255))).toBeCloseTo((4 * 255) ** 2, 0);
  // Of A sin(w x) it is A^2 / 2 * (2 - 2 cos w)^2, over whole periods: 94 inner pixels have 7.8 of them.
  const w = (2 * Math.PI) / 12;
  expect(sharpness(wave(60)) / ((60 ** 2 / 2) * (2 - 2 * Math.cos(w)) ** 2)).toBeCloseTo(1, 1);
});

test('the difference is that of the part that differs most', () => {
  const flat = scene(() => 100);
  expect(difference(flat, flat)).toBe(0);
  expect(
    difference(
      flat,
      scene(() => 90),
    ),
  ).toBe(10);
  // One sixteenth of the image.
  expect(
    difference(
      flat,
      scene((x, y) => (x < 24 && y >= 72 ? 140 : 100)),
    ),
  ).toBe(40);
  expect(difference(flat, { width: 1, height: 1, values: new Float32Array(1) })).toBe(
    Number.POSITIVE_INFINITY,
  );
});

test('a frame much less sharp than those before is blurred, and one like the last kept is the same', () => {
  const filter = new FrameFilter();
  expect(filter.judge(wave(80), true)).toBe('kept');
  expect(filter.judge(wave(80), true)).toBe('same');
  // A half of the amplitude is a quarter of the variance.
  expect(filter.judge(wave(40), true)).toBe('blurred');
  expect(filter.judge(wave(60, 3), true)).toBe('kept');
  // Not wanted, so the next one is held against the one before.
  expect(filter.judge(wave(80, 6), false)).toBe('kept');
  expect(filter.judge(wave(80, 6), true)).toBe('kept');
});

test('a scene with less to see is not blurred for long, and one out of focus always is', () => {
  const filter = new FrameFilter();
  filter.judge(wave(100), true);
  const soft = Array.from({ length: 20 }, (_, by) => filter.judge(wave(40, 5 * by), true));
  expect(soft[0]).toBe('blurred');
  expect(soft.at(-1)).toBe('kept');
  // A period of half the image, as is left of an image that is out of focus.
  const unfocused = Array.from({ length: 20 }, (_, by) => filter.judge(wave(100, 8 * by, 48), true));
  expect(new Set(unfocused)).toEqual(new Set(['blurred']));
});
