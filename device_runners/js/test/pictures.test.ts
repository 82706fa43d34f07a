import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { moved } from '../src/data/augment.js';
import { type Picture, Preprocessing } from '../src/data/pictures.js';
import { decode } from '../src/formats/safetensors.js';
import { Random } from '../src/method/random.js';
import { FIXTURES } from './fixtures.js';

const { tensors } = decode(new Uint8Array(readFileSync(join(FIXTURES, 'resized.safetensors'))));

function preprocessing(channels: number, resize = 'bilinear', size = [24, 20]): Preprocessing {
  const each = Array.from({ length: channels }, () => 1);
  const spec = { mean: each.map(() => 0.5), std: each, scale: 1 / 255, resize, sample_rate: null };
  return new Preprocessing(spec, { name: 'image', channels, size });
}

function picture(name: string): Picture {
  const { shape, data } = tensors.get(name)!;
  return { height: shape[0]!, width: shape[1]!, channels: shape[2] ?? 1, data: data as Uint8Array };
}

describe('pictures', () => {
  const names = [...tensors.keys()].filter((name) => name.endsWith('/from'));

  it.each(names)('resizes %s as Pillow does', (name) => {
    const given = picture(name);
    const expected = tensors.get(name.replace('/from', '/to'))!.data as Uint8Array;
    const found = preprocessing(given.channels!).toSize(given, 'it');
    // To the bit, but for tall images: newer versions of Pillow then begin with the columns, and a number may round
    // to its neighbour.
    if (given.height <= 2 * given.width) expect(found).toEqual(expected);
    expect(Math.max(...Array.from(found, (value, i) => Math.abs(value - expected[i]!)))).toBeLessThanOrEqual(
      1,
    );
    expect(found.length).toBe(expected.length);
  });

  it('turns color into gray as Pillow does, drops alpha, repeats gray', () => {
    const color = picture('color');
    const size = [color.height, color.width];
    const gray = preprocessing(1, 'none', size).toSize(color, 'it');
    expect(gray).toEqual(tensors.get('gray')!.data);
    const rgba = new Uint8ClampedArray((color.data.length / 3) * 4).map((_, i) =>
      i % 4 === 3 ? 9 : color.data[Math.floor(i / 4) * 3 + (i % 4)]!,
    );
    const { width, height } = color;
    expect(preprocessing(3, 'none', size).toSize({ data: rgba, width, height }, 'it')).toEqual(color.data);
    const repeated = preprocessing(3, 'none', size).toSize({ data: gray, width, height }, 'it');
    expect([...repeated.slice(0, 6)]).toEqual([gray[0], gray[0], gray[0], gray[1], gray[1], gray[1]]);
  });

  it('normalises channels first', () => {
    const two = preprocessing(2, 'none', [1, 2]);
    const image = two.normalize({ count: 1, data: Uint8Array.of(0, 255, 51, 0) });
    expect([...image].map((x) => Number(x.toFixed(6)))).toEqual([-0.5, -0.3, 0.5, -0.5]);
  });

  it.each<[string, Picture, string]>([
    ['bytes missing', { data: new Uint8Array(5), width: 2, height: 1, channels: 3 }, 'it has 5 bytes'],
    ['no pixel', { data: new Uint8Array(0), width: 0, height: 1 }, 'no pixel'],
    ['another size', { data: new Uint8Array(6), width: 2, height: 3 }, 'it is 2x3 pixels'],
    ['five channels', { data: new Uint8Array(5), width: 1, height: 1, channels: 5 }, '5 channels'],
    [
      '16 bits',
      { data: new Uint16Array(1) as unknown as Uint8Array, width: 1, height: 1 },
      'value >> (bitDepth - 8)',
    ],
    ['nothing', null as unknown as Picture, 'it has no Uint8Array of pixels'],
    ['floats', { data: new Float32Array(1) as unknown as Uint8Array, width: 1, height: 1 }, 'no Uint8Array'],
  ])('refuses %s', (_, wrong, message) => {
    expect(() => preprocessing(3, 'none', [1, 1]).toSize(wrong, 'it')).toThrow(message);
  });

  it('moves images as their own reflection', () => {
    const data = Uint8Array.of(1, 2, 3, 4, 5, 6);
    const size = preprocessing(1, 'none', [2, 3]);
    const go = (down: number, right: number, flip: boolean): number[] => [
      ...moved({ count: 1, data }, [{ down, right, flip }], size).data,
    ];
    expect(go(0, 0, false)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(go(0, 0, true)).toEqual([3, 2, 1, 6, 5, 4]);
    expect(go(0, 1, false)).toEqual([2, 3, 2, 5, 6, 5]);
    expect(go(1, -1, false)).toEqual([5, 4, 5, 2, 1, 2]);
  });
});

describe('random numbers', () => {
  it('depend on every part of the seed, and are uniform', () => {
    const first = (...seed: number[]): number => new Random(...seed).bits();
    expect(first(1, 2)).toBe(first(1, 2));
    expect(new Set([first(1, 2), first(2, 1), first(1), first(1, 2, 0), first(2 ** 32 + 1, 2)]).size).toBe(5);
    const counts = new Array<number>(6).fill(0);
    const random = new Random(7);
    for (let i = 0; i < 60_000; i++) counts[random.integer(-2, 3) + 2]! += 1;
    // Six bins of 10,000: the standard deviation of a bin is 91.
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
    expect([...new Random(3).permutation(50)].sort((a, b) => a - b)).toEqual([...Array(50).keys()]);
  });
});
