/** Generated from csk_sdk/contract/record.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const RECORD_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "the record of a generation of a csk-sdk state, schema 1; fields that are not known are carried on",
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
      "type": "string"
     },
     "classes": {
      "type": "array",
      "items": {
       "type": "string"
      }
     },
     "epochs": {
      "type": "integer",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "images": {
      "type": "integer",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "seconds": {
      "type": "number"
     },
     "loss": {
      "type": "number"
     },
     "peak_rss_bytes": {
      "type": "integer",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "config": {
      "type": "object",
      "additionalProperties": true
     },
     "protected": {
      "type": "object",
      "additionalProperties": {
       "type": "string"
      }
     },
     "notes": {
      "type": "array",
      "items": {
       "type": "string"
      }
     },
     "contributions": {
      "type": "object",
      "additionalProperties": {
       "type": "string"
      }
     },
     "carried": {
      "type": "object",
      "additionalProperties": {
       "type": "string"
      }
     },
     "temperature": {
      "type": "number"
     },
     "expected": {
      "type": "object",
      "additionalProperties": true
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
