/** The tasks that tests/deployed/make_deployed.py drew. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrainingConfig } from '../src/config.js';
import type { Picture } from '../src/data/pictures.js';
import type { Task } from '../src/data/task.js';
import { decode } from '../src/formats/safetensors.js';
import type { Tensors, Uint8Tensor } from '../src/formats/tensors.js';

const CLASSES: Readonly<Record<string, string>> = { '01': 'de', '02': 'fg', '03': 'hi' };

/** Few and large steps, as in Python. */
export const DEPLOYED_SETTINGS = {
  epochs: 3,
  learningRate: 0.02,
  threads: 1,
  fewShot: 0,
  train: 'centers',
  maxForgetting: 100,
} as const;

/** How lessons on a bundle of this name are learned. */
export function deployedSettings(name: string): Partial<TrainingConfig> {
  return name === 'kernels' ? { ...DEPLOYED_SETTINGS, train: 'kernels' } : DEPLOYED_SETTINGS;
}

export async function deployedTask(folder: string, name: string): Promise<Task> {
  const tensors = await tensorsIn(folder);
  const labels = Array.from(tensors.get(`${name}/labels`)!.data as BigInt64Array, Number);
  return { name, classes: [...CLASSES[name]!], pictures: picturesIn(tensors, `${name}/images`), labels };
}

export async function deployedProbe(folder: string): Promise<Picture[]> {
  return picturesIn(await tensorsIn(folder), 'probe');
}

/** Images of the base's classes as another camera has them, of the kind `domains`. */
export async function deployedDomain(folder: string): Promise<Picture[]> {
  return picturesIn(await tensorsIn(folder), 'hazy/images');
}

async function tensorsIn(folder: string): Promise<Tensors> {
  return decode(await readFile(join(folder, 'pictures.safetensors'))).tensors;
}

function picturesIn(tensors: Tensors, name: string): Picture[] {
  const { shape, data } = tensors.get(name) as Uint8Tensor;
  const [count, height, width, channels] = shape as [number, number, number, number];
  const size = height * width * channels;
  return Array.from({ length: count }, (_, i) => ({
    width,
    height,
    data: data.slice(i * size, (i + 1) * size),
  }));
}
