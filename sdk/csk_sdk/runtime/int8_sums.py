"""Does ONNX Runtime on this CPU add up int8 products right?

x86 CPUs without VNNI add pairs of u8 x s8 products in 16 bits, which saturate (decision 0010). What a CPU says of
itself is told differently by every system, and what a runtime makes of it differs by release; so one convolution
is computed, whose sums saturate where any do, and looked at.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from csk_sdk.formats.protobuf import VARINT, field, tag, varint

WIDE_SUMS = ("session.x64quantprecision", "1")
# The setting copies kernels and zero points by their names, and fails where two convolutions share one, as they do in
# bundles of older builders once this has merged what is equal.
SHARES_KERNELS = "CommonSubexpressionElimination"

_CHANNELS, _SIZE = 16, 3
_LARGEST, _KERNEL = 255, 127
# All products are equal, so every output is this fraction of the largest u8.
_EXPECTED = 200
_UINT8, _INT8, _FLOAT = 2, 3, 1


@cache
def saturate(ort: Any) -> bool:
    """Whether this runtime (the module onnxruntime), left to itself, cuts off int8 sums on this CPU.

    Takes some milliseconds, once in a process. Thread-safe.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])
    x = np.full((1, _CHANNELS, _SIZE, _SIZE), _LARGEST, np.uint8)
    (y,) = session.run(None, {"x": x})
    return bool((y != _EXPECTED).any())


def _model() -> bytes:
    """One QLinearConv of opset 10 as a ModelProto; field numbers are those of onnx.proto."""
    taps = _CHANNELS * _SIZE * _SIZE
    scale = np.float32(_LARGEST * _KERNEL * taps / _EXPECTED)
    kernel = np.full((_CHANNELS, _CHANNELS, _SIZE, _SIZE), _KERNEL, np.int8)
    one, zero_u8, zero_s8 = np.float32(1), np.uint8(0), np.int8(0)
    tensors = {
        "xs": one, "xz": zero_u8, "w": kernel, "ws": one, "wz": zero_s8, "ys": scale, "yz": zero_u8,
    }  # fmt: skip
    inputs = ("x", "xs", "xz", "w", "ws", "wz", "ys", "yz")
    node = b"".join(field(1, name.encode()) for name in inputs) + field(2, b"y") + field(4, b"QLinearConv")
    graph = field(1, node) + field(2, b"sums")
    graph += b"".join(field(5, _tensor(name, np.asarray(value))) for name, value in tensors.items())
    graph += field(11, _value("x", (1, _CHANNELS, _SIZE, _SIZE))) + field(
        12, _value("y", (1, _CHANNELS, 1, 1))
    )
    return tag(1, VARINT) + varint(5) + field(8, tag(2, VARINT) + varint(10)) + field(7, graph)


def _tensor(name: str, value: np.ndarray[Any, Any]) -> bytes:
    kind = {"u": _UINT8, "i": _INT8, "f": _FLOAT}[value.dtype.kind]
    dims = b"".join(tag(1, VARINT) + varint(size) for size in value.shape)
    return dims + tag(2, VARINT) + varint(kind) + field(8, name.encode()) + field(9, value.tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, tag(1, VARINT) + varint(size)) for size in shape)
    tensor = tag(1, VARINT) + varint(_UINT8) + field(2, dims)
    return field(1, name.encode()) + field(2, field(1, tensor))
