/** Generated from csk_sdk/contract/statement.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const STATEMENT_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "what a device says of its contributions in a .cskc file, and signs; fields that are not known are ignored",
 "type": "object",
 "properties": {
  "bundle": {
   "type": "string",
   "description": "the id of a bundle, 64 hexadecimal digits",
   "pattern": "^[0-9a-f]{64}$"
  },
  "device": {
   "type": "string",
   "description": "64 hexadecimal digits",
   "pattern": "^[0-9a-f]{64}$"
  },
  "name": {
   "type": "string"
  },
  "sequence": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "entries": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "class": {
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
     "temperature": {
      "type": [
       "number",
       "null"
      ],
      "exclusiveMinimum": 0
     }
    },
    "required": [
     "class",
     "id",
     "count",
     "temperature"
    ],
    "additionalProperties": true
   }
  },
  "sketches": {
   "type": "object",
   "additionalProperties": {
    "type": "string",
    "description": "64 hexadecimal digits",
    "pattern": "^[0-9a-f]{64}$"
   }
  },
  "withdrawn": {
   "type": "array",
   "items": {
    "type": "string",
    "description": "64 hexadecimal digits",
    "pattern": "^[0-9a-f]{64}$"
   }
  }
 },
 "required": [
  "bundle",
  "device",
  "name",
  "sequence",
  "entries",
  "sketches",
  "withdrawn"
 ],
 "additionalProperties": true
}`) as Schema;
