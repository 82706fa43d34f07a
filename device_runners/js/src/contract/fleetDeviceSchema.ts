/** Generated from csk_sdk/contract/fleet_device.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const FLEET_DEVICE_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "who a device is to its fleet, and what it has said last (fleet.json in its state); fields that are not known are carried on",
 "type": "object",
 "properties": {
  "schema_version": {
   "type": "integer",
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "unsigned": {
   "type": "string",
   "pattern": "^[0-9a-f]{64}$",
   "description": "64 hexadecimal digits"
  },
  "devices": {
   "type": "object",
   "additionalProperties": {
    "type": "object",
    "properties": {
     "sequence": {
      "type": "integer",
      "minimum": 0,
      "maximum": 9007199254740991
     },
     "digest": {
      "type": "string",
      "pattern": "^[0-9a-f]{64}$",
      "description": "64 hexadecimal digits"
     },
     "ids": {
      "type": "array",
      "items": {
       "type": "string",
       "pattern": "^[0-9a-f]{64}$",
       "description": "64 hexadecimal digits"
      }
     },
     "withdrawn": {
      "type": "array",
      "items": {
       "type": "string",
       "pattern": "^[0-9a-f]{64}$",
       "description": "64 hexadecimal digits"
      }
     }
    },
    "required": [
     "sequence",
     "digest",
     "ids",
     "withdrawn"
    ],
    "additionalProperties": true
   }
  }
 },
 "required": [
  "devices"
 ],
 "additionalProperties": true
}`) as Schema;
