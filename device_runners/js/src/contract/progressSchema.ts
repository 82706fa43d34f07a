/** Generated from csk_sdk/contract/progress.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const PROGRESS_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "what a progress checkpoint of a csk-sdk state says beside its tensors; fields that are not known are carried on",
 "type": "object",
 "properties": {
  "task": {
   "type": "string"
  },
  "fingerprint": {
   "type": "string"
  },
  "generation": {
   "type": "integer",
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "config": {
   "type": "object",
   "additionalProperties": true
  },
  "backend": {
   "type": "string"
  },
  "version": {
   "type": "string"
  },
  "step": {
   "type": "integer",
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "loss": {
   "type": "number"
  },
  "seconds": {
   "type": "number"
  },
  "profile": {
   "enum": [
    "fast",
    "small"
   ]
  },
  "micro_batch": {
   "type": [
    "integer",
    "null"
   ],
   "minimum": 1,
   "maximum": 9007199254740991
  },
  "plateau": {
   "type": "object",
   "properties": {
    "best": {
     "type": "number"
    },
    "stale": {
     "type": "integer",
     "minimum": 0,
     "maximum": 9007199254740991
    }
   },
   "required": [
    "best",
    "stale"
   ],
   "additionalProperties": true
  },
  "default_train": {
   "type": "string",
   "description": "what \`train\` was by default in the build that began the lesson; those for which it was \`centers\` do not say"
  },
  "gain": {
   "type": "object",
   "description": "what held-out images said of training, once they were asked",
   "properties": {
    "images": {
     "type": "integer",
     "minimum": 0,
     "maximum": 9007199254740991
    },
    "heads": {
     "type": "number"
    },
    "centers": {
     "type": "number"
    },
    "likelihood": {
     "type": "number"
    },
    "sure": {
     "type": "number"
    },
    "lost": {
     "type": "number"
    },
    "done": {
     "type": "number",
     "exclusiveMinimum": 0
    }
   },
   "required": [
    "images",
    "heads",
    "centers",
    "likelihood",
    "sure",
    "lost",
    "done"
   ],
   "additionalProperties": false
  }
 },
 "required": [
  "task",
  "fingerprint",
  "generation",
  "config",
  "backend",
  "version",
  "step",
  "loss",
  "seconds",
  "plateau"
 ],
 "additionalProperties": true
}`) as Schema;
