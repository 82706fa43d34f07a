/** Who a device is to its fleet, and what it has said last: `fleet.json` of a state, the same file as Python's. */

import { FLEET_DEVICE_SCHEMA } from '../contract/fleetDeviceSchema.js';
import { SENTENCES } from '../contract/sentences.js';
import { FleetError, StateError } from '../errors.js';
import { dumps, isObject, type Json, jsonOf, plain } from '../formats/json.js';
import { violation } from '../formats/schema.js';
import { filled } from '../formats/sentences.js';
import { seal, unseal } from './record.js';
import type { Storage } from './storage.js';

export const SAID = 'fleet.json';

/** What a device has said last. */
export interface LastSaid {
  readonly sequence: number;
  /** sha256 of what it was about. */
  readonly digest: string;
  readonly ids: readonly string[];
  readonly withdrawn: readonly string[];
}

/** What is remembered. */
export class Remembered {
  private constructor(
    private readonly storage: Storage,
    private readonly raw: { readonly [key: string]: Json },
  ) {}

  /** Throws FleetError where it is damaged. */
  static async in(storage: Storage): Promise<Remembered> {
    if ((await storage.size(SAID)) === undefined) return new Remembered(storage, {});
    try {
      const raw = await unseal(storage, SAID);
      const wrong = violation(raw, FLEET_DEVICE_SCHEMA);
      if (wrong !== undefined) throw new StateError(`${storage.name}/${SAID} is damaged: ${wrong}.`);
      return new Remembered(storage, raw);
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      throw new FleetError(filled(SENTENCES.fleetSaid, { reason: error.message.replace(/\.$/, '') }));
    }
  }

  /** The number of a device without a key; undefined before its first export. */
  get unsigned(): string | undefined {
    return typeof this.raw.unsigned === 'string' ? this.raw.unsigned : undefined;
  }

  last(device: string): Partial<LastSaid> {
    const found = this.devices[device];
    return found === undefined ? {} : (plain(found) as LastSaid);
  }

  /** Remember that `device` has said this; `unsigned` where it has no key. Nothing is written where that is known. */
  async keep(device: string, said: LastSaid, unsigned: boolean): Promise<void> {
    const known = this.devices[device];
    const one = { ...(isObject(known) ? known : {}), ...(jsonOf(said) as { [key: string]: Json }) };
    const content = {
      ...this.raw,
      ...(unsigned ? { unsigned: device } : {}),
      schema_version: jsonOf(1),
      devices: { ...this.devices, [device]: one },
    };
    const spelled = (value: Json): string => dumps(value, { sorted: true });
    if (spelled(content) !== spelled(this.raw)) await this.storage.replace(SAID, seal(content));
  }

  private get devices(): { readonly [device: string]: Json } {
    return isObject(this.raw.devices) ? this.raw.devices : {};
  }
}
