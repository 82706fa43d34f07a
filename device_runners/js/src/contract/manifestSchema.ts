/** Generated from csk_sdk/contract/manifest.schema.json: change it there, and run `make contract`. */

import type { Schema } from '../formats/schema.js';

export const MANIFEST_SCHEMA = JSON.parse(`{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "manifest.json of a csk-sdk bundle, schema 2",
 "type": "object",
 "properties": {
  "schema_version": {
   "type": "integer",
   "minimum": 1,
   "maximum": 3
  },
  "producer": {
   "type": "string",
   "maxLength": 65536
  },
  "model": {
   "type": "string",
   "maxLength": 65536
  },
  "classes": {
   "type": "array",
   "items": {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096
   },
   "minItems": 0,
   "maxItems": 1048576
  },
  "loss": {
   "enum": [
    "cross-entropy",
    "binary-cross-entropy",
    "mse"
   ]
  },
  "input": {
   "type": "object",
   "properties": {
    "name": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "channels": {
     "type": "integer",
     "minimum": 1,
     "maximum": 65536
    },
    "size": {
     "type": "array",
     "items": {
      "type": "integer",
      "minimum": 1,
      "maximum": 2147483648
     },
     "minItems": 1,
     "maxItems": 2
    }
   },
   "required": [
    "name",
    "channels",
    "size"
   ],
   "additionalProperties": false
  },
  "preprocessing": {
   "type": "object",
   "properties": {
    "mean": {
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 1,
     "maxItems": 65536
    },
    "std": {
     "type": "array",
     "items": {
      "type": "number",
      "exclusiveMinimum": 0
     },
     "minItems": 1,
     "maxItems": 65536
    },
    "scale": {
     "type": "number",
     "exclusiveMinimum": 0,
     "maximum": 1
    },
    "resize": {
     "enum": [
      "bilinear",
      "crop",
      "none"
     ]
    },
    "sample_rate": {
     "type": [
      "integer",
      "null"
     ],
     "minimum": 1,
     "maximum": 2147483648
    }
   },
   "required": [
    "mean",
    "std"
   ],
   "additionalProperties": false
  },
  "head": {
   "type": "object",
   "properties": {
    "features": {
     "type": "integer",
     "minimum": 1,
     "maximum": 32768
    },
    "weight": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "bias": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "weight_gradient": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "bias_gradient": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "source_weight": {
     "type": "string",
     "maxLength": 65536
    },
    "source_bias": {
     "type": "string",
     "maxLength": 65536
    }
   },
   "required": [
    "features"
   ],
   "additionalProperties": false
  },
  "sites": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "name": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "node": {
      "type": "string",
      "maxLength": 65536
     },
     "weight": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "shape": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 3,
      "maxItems": 5
     },
     "groups": {
      "type": "integer",
      "minimum": 1,
      "maximum": 2147483648
     },
     "stride": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 1,
      "maxItems": 3
     },
     "dilation": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 1,
      "maxItems": 3
     },
     "pads": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 0,
       "maximum": 2147483648
      },
      "minItems": 2,
      "maxItems": 6
     },
     "input_size": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 1,
      "maxItems": 3
     },
     "output_size": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 1,
      "maxItems": 3
     },
     "delta": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "indices": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "gradient": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "moment": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "whole": {
      "type": "boolean"
     }
    },
    "required": [
     "name",
     "node",
     "weight",
     "shape",
     "groups",
     "stride",
     "dilation",
     "pads",
     "input_size",
     "output_size",
     "delta",
     "indices",
     "gradient",
     "moment"
    ],
    "additionalProperties": false
   },
   "minItems": 0,
   "maxItems": 4096
  },
  "base_protected": {
   "type": "boolean"
  },
  "channel_ratio": {
   "type": "number",
   "exclusiveMinimum": 0,
   "maximum": 1
  },
  "batch_size": {
   "type": "integer",
   "minimum": 1,
   "maximum": 65536
  },
  "flip": {
   "type": "boolean"
  },
  "prefix": {
   "type": "array",
   "items": {
    "type": "integer",
    "minimum": 1,
    "maximum": 2147483648
   },
   "minItems": 0,
   "maxItems": 3
  },
  "precision": {
   "enum": [
    "exact",
    "int8"
   ]
  },
  "precisions": {
   "type": "array",
   "items": {
    "enum": [
     "exact",
     "int8"
    ]
   },
   "minItems": 0,
   "maxItems": 2
  },
  "agreement": {
   "type": "object",
   "maxProperties": 16,
   "additionalProperties": {
    "type": "number",
    "minimum": 0
   }
  },
  "probe": {
   "type": [
    "object",
    "null"
   ],
   "properties": {
    "mean": {
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 1,
     "maxItems": 65536
    },
    "std": {
     "type": "array",
     "items": {
      "type": "number",
      "minimum": 0
     },
     "minItems": 1,
     "maxItems": 65536
    }
   },
   "required": [
    "mean",
    "std"
   ],
   "additionalProperties": false
  },
  "backends": {
   "type": "array",
   "items": {
    "enum": [
     "portable",
     "ort-training"
    ]
   },
   "minItems": 1,
   "maxItems": 2
  },
  "head_capacity": {
   "type": "integer",
   "minimum": 0,
   "maximum": 1048576
  },
  "counter": {
   "type": "integer",
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "op_domains": {
   "type": "array",
   "items": {
    "enum": [
     "ai.onnx",
     "com.microsoft"
    ]
   },
   "minItems": 0,
   "maxItems": 2
  },
  "in_float": {
   "type": "array",
   "items": {
    "type": "string",
    "maxLength": 4096
   },
   "minItems": 0,
   "maxItems": 65536
  },
  "weights_in_export": {
   "type": "array",
   "items": {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096
   },
   "minItems": 0,
   "maxItems": 65536
  },
  "kernels": {
   "type": "object",
   "maxProperties": 65536,
   "additionalProperties": {
    "type": "array",
    "items": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "minItems": 0,
    "maxItems": 4096
   }
  },
  "costs": {
   "type": "object",
   "maxProperties": 64,
   "additionalProperties": {
    "type": "integer",
    "minimum": 0,
    "maximum": 9007199254740991
   }
  },
  "candidates": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "name": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "shape": {
      "type": "array",
      "items": {
       "type": "integer",
       "minimum": 1,
       "maximum": 2147483648
      },
      "minItems": 1,
      "maxItems": 5
     },
     "chosen": {
      "type": "boolean"
     },
     "intensity": {
      "type": [
       "number",
       "null"
      ]
     }
    },
    "required": [
     "name",
     "shape",
     "chosen"
    ],
    "additionalProperties": false
   },
   "minItems": 0,
   "maxItems": 65536
  },
  "choice": {
   "type": "string",
   "maxLength": 65536
  },
  "left_out": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "node": {
      "type": "string",
      "maxLength": 4096
     },
     "reason": {
      "type": "string",
      "minLength": 1,
      "maxLength": 65536
     }
    },
    "required": [
     "node",
     "reason"
    ],
    "additionalProperties": false
   },
   "minItems": 0,
   "maxItems": 65536
  },
  "quantised": {
   "type": "array",
   "items": {
    "type": "object",
    "properties": {
     "weight": {
      "type": "string",
      "minLength": 1,
      "maxLength": 4096
     },
     "bias": {
      "type": "string",
      "maxLength": 4096
     },
     "axis": {
      "type": "integer",
      "minimum": -1,
      "maximum": 1
     },
     "largest": {
      "type": "integer",
      "minimum": 1,
      "maximum": 127
     },
     "input_scale": {
      "type": "number",
      "exclusiveMinimum": 0
     }
    },
    "required": [
     "weight",
     "bias",
     "axis",
     "largest",
     "input_scale"
    ],
    "additionalProperties": false
   },
   "minItems": 0,
   "maxItems": 65536
  },
  "memory": {
   "type": "object",
   "maxProperties": 64,
   "additionalProperties": {
    "type": "integer",
    "minimum": 0,
    "maximum": 9007199254740991
   }
  },
  "step_memory": {
   "type": "object",
   "maxProperties": 64,
   "additionalProperties": {
    "type": "integer",
    "minimum": 0,
    "maximum": 9007199254740991
   }
  },
  "memory_budget": {
   "type": [
    "integer",
    "null"
   ],
   "minimum": 0,
   "maximum": 9007199254740991
  },
  "upgrade": {
   "type": [
    "object",
    "null"
   ],
   "properties": {
    "bundle": {
     "type": "string",
     "minLength": 1,
     "maxLength": 4096
    },
    "model": {
     "type": "string",
     "minLength": 0,
     "maxLength": 4096
    },
    "features": {
     "type": "integer",
     "minimum": 1,
     "maximum": 32768
    },
    "images": {
     "type": "integer",
     "minimum": 0,
     "maximum": 9007199254740991
    },
    "kept": {
     "type": "integer",
     "minimum": 0,
     "maximum": 32768
    },
    "explained": {
     "type": "number",
     "maximum": 1
    }
   },
   "required": [
    "bundle",
    "model",
    "features",
    "images",
    "kept",
    "explained"
   ],
   "additionalProperties": false
  },
  "domain_channels": {
   "type": "integer",
   "minimum": 0,
   "maximum": 1048576
  },
  "files": {
   "type": "object",
   "maxProperties": 65536,
   "additionalProperties": {
    "type": "object",
    "properties": {
     "sha256": {
      "type": "string",
      "pattern": "^[0-9a-f]{64}$",
      "description": "64 hexadecimal digits"
     },
     "size": {
      "type": "integer",
      "minimum": 0,
      "maximum": 9007199254740991
     }
    },
    "required": [
     "sha256",
     "size"
    ],
    "additionalProperties": false
   }
  },
  "seal": {
   "type": "string"
  }
 },
 "required": [
  "schema_version",
  "model",
  "classes",
  "input",
  "preprocessing",
  "head",
  "sites",
  "base_protected",
  "channel_ratio",
  "batch_size",
  "kernels",
  "files"
 ],
 "additionalProperties": true
}`) as Schema;
