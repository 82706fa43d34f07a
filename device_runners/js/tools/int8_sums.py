"""Write the model with which src/int8Sums.ts asks whether int8 sums saturate, in hexadecimal.

python tools/int8_sums.py
"""

from __future__ import annotations

import onnx

CHANNELS, KERNEL = 8, 127
# Of x = 255, a pair of products is 64,770, and 16 bits hold 32,767; all of them are 255 in units of 8 x 127.
TEXT = f"""
<ir_version: 8, opset_import: ["" : 17]>
sums (float[1, {CHANNELS}, 1, 1] x) => (float[1, {CHANNELS}, 1, 1] y)
  <int8[{CHANNELS}, {CHANNELS}, 1, 1] w = {{{", ".join([str(KERNEL)] * CHANNELS**2)}}},
   float one = {{1.0}}, uint8 zero = {{0}}, int8 middle = {{0}}, float unit = {{{CHANNELS * KERNEL}.0}}>
{{
  q = QuantizeLinear (x, one, zero)
  sum = QLinearConv (q, one, zero, w, one, middle, unit, zero)
  y = DequantizeLinear (sum, one, zero)
}}
"""


def probe() -> bytes:
    """The model's bytes."""
    model = onnx.parser.parse_model(TEXT)
    for tensor in model.graph.initializer:
        # One form of every tensor, the shortest.
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


if __name__ == "__main__":
    print(probe().hex())
