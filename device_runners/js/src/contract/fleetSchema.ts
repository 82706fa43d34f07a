/** Generated from csk_sdk/contract/fleet.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const FLEET_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "what a .cskc file says beside its contributions: statements of devices, or merged knowledge; fields that are not known are ignored",
 "type": "object",
 "properties": {
  "schema": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "min_reader": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "bundle": {
   "type": "string",
   "description": "the id of a bundle, 64 hexadecimal digits",
   "pattern": "^[0-9a-f]{64}$"
  },
  "features": {
   "type": "integer",
   "minimum": 1,
   "maximum": 16777216
  },
  "statements": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "text": {
      "type": "string"
     },
     "key": {
      "type": "string",
      "description": "an ed25519 public key, 64 hexadecimal digits, or empty",
      "pattern": "^([0-9a-f]{64})?$"
     },
     "signature": {
      "type": "string",
      "description": "128 hexadecimal digits, or empty",
      "pattern": "^([0-9a-f]{128})?$"
     }
    },
    "required": [
     "text",
     "key",
     "signature"
    ],
    "additionalProperties": true
   }
  },
  "same": {
   "type": "object",
   "description": "classes that are another one, by their names",
   "additionalProperties": {
    "type": "string"
   }
  },
  "merged": {
   "type": "object",
   "properties": {
    "classes": {
     "type": "array",
     "items": {
      "type": "object",
      "properties": {
       "name": {
        "type": "string"
       },
       "id": {
        "type": "string",
        "description": "64 hexadecimal digits",
        "pattern": "^[0-9a-f]{64}$"
       },
       "count": {
        "type": "number",
        "exclusiveMinimum": 0
       },
       "devices": {
        "type": "integer",
        "minimum": 1,
        "maximum": 9007199254740991
       },
       "sketch": {
        "type": "string",
        "description": "64 hexadecimal digits, or empty",
        "pattern": "^([0-9a-f]{64})?$"
       }
      },
      "required": [
       "name",
       "id",
       "count",
       "devices",
       "sketch"
      ],
      "additionalProperties": true
     }
    },
    "temperature": {
     "type": [
      "number",
      "null"
     ],
     "exclusiveMinimum": 0
    },
    "included": {
     "type": "string",
     "description": "64 hexadecimal digits",
     "pattern": "^[0-9a-f]{64}$"
    },
    "devices": {
     "type": "integer",
     "minimum": 0,
     "maximum": 9007199254740991
    }
   },
   "required": [
    "classes",
    "temperature",
    "included",
    "devices"
   ],
   "additionalProperties": true
  }
 },
 "required": [
  "schema",
  "min_reader",
  "bundle",
  "features",
  "statements",
  "same"
 ],
 "additionalProperties": true
}`) as Schema;
