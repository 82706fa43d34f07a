/** Generated from csk_sdk/contract/record.schema.json: change it there, and run `make contract`. */

import type { Json } from '../formats/json.js';
import type { Schema } from '../formats/schema.js';

export const RECORD_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "the record of a generation of a csk-sdk state, schemas 1 and 2; fields that are not known are carried on",
 "type": "object",
 "properties": {
  "number": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "parent": {
   "type": "integer",
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "created": {
   "type": "string"
  },
  "tasks": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "name": {
      "type": "string",
      "description": "its name"
     },
     "classes": {
      "type": "array",
      "description": "its classes, in the order of its labels",
      "items": {
       "type": "string"
      }
     },
     "epochs": {
      "type": "integer",
      "description": "epochs of training; 0 where heads alone were fitted",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "images": {
      "type": "integer",
      "description": "training images",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "seconds": {
      "type": "number",
      "description": "wall time, in seconds"
     },
     "loss": {
      "type": "number",
      "description": "mean loss of the last epoch"
     },
     "peak_rss_bytes": {
      "type": "integer",
      "description": "the process's peak memory; 0 where it is not known",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "config": {
      "type": "object",
      "description": "all settings, under the names that they have in Python",
      "additionalProperties": true
     },
     "protected": {
      "type": "object",
      "description": "by site, how many of the selected channels' directions were kept for older knowledge, as \\"r/k\\"",
      "additionalProperties": {
       "type": "string"
      },
      "default": {}
     },
     "notes": {
      "type": "array",
      "description": "what the user was warned of",
      "items": {
       "type": "string"
      },
      "default": []
     },
     "contributions": {
      "type": "object",
      "description": "by class, the file in \`ledger/\` of what its images are under the bundle's untouched network; \\"\\" where decisions over all classes leave it out, or a later lesson replaced it: [the ledger](#the-ledger)",
      "additionalProperties": {
       "type": "string"
      },
      "default": {}
     },
     "carried": {
      "type": "object",
      "description": "the same as it is counted now, where centers have moved",
      "additionalProperties": {
       "type": "string"
      },
      "default": {}
     },
     "temperature": {
      "type": "number",
      "description": "what was measured on the task, where the bundle brings none"
     },
     "expected": {
      "type": "object",
      "description": "how often decisions were expected to be right, by class, as \`train --json\` says it; nothing where no class statistics are kept",
      "additionalProperties": true,
      "default": {}
     },
     "shared": {
      "type": "array",
      "description": "classes whose contribution is counted as part of what the fleet knows, and not here: [a fleet](fleet.md)",
      "items": {
       "type": "string"
      },
      "default": []
     },
     "fleet": {
      "type": "string",
      "description": "of the task that holds what a fleet knows: the sha256 of the merged knowledge that was applied"
     }
    },
    "required": [
     "name",
     "classes",
     "epochs",
     "images",
     "seconds",
     "loss",
     "peak_rss_bytes",
     "config"
    ],
    "additionalProperties": true
   }
  },
  "sha256": {
   "type": "string"
  },
  "size": {
   "type": "integer",
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "min_reader": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "min_writer": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "hidden": {
   "type": "array",
   "items": {
    "type": "string"
   }
  },
  "purged": {
   "type": "array",
   "items": {
    "type": "integer",
    "minimum": 1,
    "maximum": 9007199254740991
   }
  },
  "blocks": {
   "type": "array",
   "items": {
    "type": "string",
    "description": "the sha256 of a block, 64 hexadecimal digits",
    "pattern": "^[0-9a-f]{64}$"
   }
  }
 },
 "required": [
  "number",
  "parent",
  "created",
  "tasks",
  "sha256",
  "size"
 ],
 "additionalProperties": true
}`) as Schema;

/** A task that was learned, and what it took. */
export interface RecordedTask {
  /** Its name. */
  readonly name: string;
  /** Its classes, in the order of its labels. */
  readonly classes: readonly string[];
  /** Epochs of training; 0 where heads alone were fitted. */
  readonly epochs: number;
  /** Training images. */
  readonly images: number;
  /** Wall time, in seconds. */
  readonly seconds: number;
  /** Mean loss of the last epoch. */
  readonly loss: number;
  /** The process's peak memory; 0 where it is not known. */
  readonly peakRssBytes: number;
  /** All settings, under the names that they have in Python. */
  readonly config: { readonly [name: string]: Json };
  /** By site, how many of the selected channels' directions were kept for older knowledge, as "r/k". */
  readonly protected: Readonly<Record<string, string>>;
  /** What the user was warned of. */
  readonly notes: readonly string[];
  /** By class, the file in `ledger/` of what its images are under the bundle's untouched network; "" where decisions over all classes leave it out, or a later lesson replaced it: [the ledger](#the-ledger). */
  readonly contributions: Readonly<Record<string, string>>;
  /** The same as it is counted now, where centers have moved. */
  readonly carried: Readonly<Record<string, string>>;
  /** What was measured on the task, where the bundle brings none. */
  readonly temperature?: number;
  /** How often decisions were expected to be right, by class, as `train --json` says it; nothing where no class statistics are kept. */
  readonly expected: { readonly [name: string]: Json };
  /** Classes whose contribution is counted as part of what the fleet knows, and not here: [a fleet](fleet.md). */
  readonly shared: readonly string[];
  /** Of the task that holds what a fleet knows: the sha256 of the merged knowledge that was applied. */
  readonly fleet?: string;
}

/** How a record calls each of that. */
export const TASK_NAMES: { readonly [Name in keyof RecordedTask]: string } = {
  name: 'name',
  classes: 'classes',
  epochs: 'epochs',
  images: 'images',
  seconds: 'seconds',
  loss: 'loss',
  peakRssBytes: 'peak_rss_bytes',
  config: 'config',
  protected: 'protected',
  notes: 'notes',
  contributions: 'contributions',
  carried: 'carried',
  temperature: 'temperature',
  expected: 'expected',
  shared: 'shared',
  fleet: 'fleet',
};

/** What a task of an older csk-sdk is taken to say where it says nothing. */
export const UNRECORDED: Pick<
  RecordedTask,
  'protected' | 'notes' | 'contributions' | 'carried' | 'expected' | 'shared'
> = { protected: {}, notes: [], contributions: {}, carried: {}, expected: {}, shared: [] };
