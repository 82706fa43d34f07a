/** Settings of a training run, checked. */

import type { Manifest } from './bundle/manifest.js';
import {
  DEFAULTS,
  REFUSED,
  SENTENCE,
  SETTINGS,
  type Setting,
  type TrainingConfig,
} from './contract/settings.js';
import { ConfigError } from './errors.js';
import { type Json, jsonOf } from './formats/json.js';
import { filled } from './formats/sentences.js';

export { DEFAULTS, type TrainingConfig };

/**
 * The defaults with `settings` put in. Throws ConfigError for an unknown name, a wrong type, a value out of range, or
 * what the Python SDK has and this runner refuses (label smoothing).
 */
export function trainingConfig(settings: Partial<TrainingConfig> = {}): TrainingConfig {
  for (const name of Object.keys(settings)) {
    if (Object.hasOwn(REFUSED, name)) throw new ConfigError(REFUSED[name]!.why);
    if (!Object.hasOwn(SETTINGS, name)) {
      throw new ConfigError(`'${name}' is no setting. Known: ${Object.keys(SETTINGS).join(', ')}.`);
    }
  }
  const given = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
  const config: TrainingConfig = { ...DEFAULTS, ...given };
  for (const [name, setting] of Object.entries(SETTINGS)) {
    const value: unknown = config[name as keyof TrainingConfig];
    if (!allows(setting, value)) throw new ConfigError(problem(name, value, setting.rule));
  }
  return config;
}

/** Whether a value has the right type and lies within the bounds. */
function allows(setting: Setting, value: unknown): boolean {
  if (value === null) return setting.optional;
  if (setting.type === 'boolean') return typeof value === 'boolean';
  if (setting.type === 'string') return setting.choices!.includes(value as string);
  const { minimum, exclusiveMinimum: above, maximum, exclusiveMaximum: below } = setting;
  if (typeof value !== 'number' || !Number.isFinite(value)) return false;
  if (setting.type === 'integer' && !Number.isSafeInteger(value)) return false;
  const high = (minimum === undefined || value >= minimum) && (above === undefined || value > above);
  return high && (maximum === undefined || value <= maximum) && (below === undefined || value < below);
}

function problem(name: string, value: unknown, rule: string): string {
  const shown = typeof value === 'string' ? `'${value}'` : String(value);
  return filled(SENTENCE, { name, value: shown, rule });
}

/** Whether old heads and statistics are carried over to the features as they drift. */
export function followsDrift(config: TrainingConfig): boolean {
  return config.followDrift ?? config.energy > 0;
}

/** Whether to flip images, and by how many pixels to shift, for this bundle. */
export function augmentationOf(config: TrainingConfig, manifest: Manifest): { flip: boolean; shift: number } {
  return {
    flip: config.flip ?? manifest.flip,
    shift: config.shift ?? Math.floor(Math.min(...manifest.input.size) / 16),
  };
}

/** All settings as a state's record has them: under the names of the Python SDK. */
export function configRecord(config: TrainingConfig): { [name: string]: Json } {
  const own = Object.entries(SETTINGS).map(([name, { record }]) => {
    return [record, jsonOf(config[name as keyof TrainingConfig])] as const;
  });
  const refused = Object.values(REFUSED).map((one) => [one.record, jsonOf(one.default)] as const);
  return Object.fromEntries([...own, ...refused]);
}
