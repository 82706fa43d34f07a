"""Small models written in ONNX text syntax, and their float64 copies for `onnx.reference`."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference.op_run import OpRun


class Erf(OpRun):
    """onnx.reference's own (1.23) rounds to float32."""

    op_domain = ""

    def _run(self, x: NDArray) -> tuple[NDArray]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Pad(OpRun):
    """onnx.reference's own (1.23) knows no negative pads, which cut; by a constant only."""

    op_domain = ""

    def _run(
        self,
        x: NDArray,
        pads: NDArray,
        value: NDArray | None = None,
        axes: NDArray | None = None,
        mode: str = "",
    ) -> tuple[NDArray]:
        assert mode == "constant"
        assert axes is None
        cut = np.maximum(-pads, 0).reshape(2, -1)
        kept = x[tuple(slice(b, n - e) for b, e, n in zip(*cut, x.shape, strict=True))]
        around = np.maximum(pads, 0).reshape(2, -1).T
        return (np.pad(kept, around, constant_values=x.dtype.type(0 if value is None else value)),)


def model(text: str, opset: int = 17, ir_version: int = 8, **tensors: NDArray) -> onnx.ModelProto:
    """A checked model from `(inputs) => (outputs) { nodes }`; `tensors` are its initializers.

    Floats become float32, and integers int64.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\ng '
    proto = onnx.parser.parse_model(header + text)
    for name, array in tensors.items():
        proto.graph.initializer.append(initializer(name, array))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def initializer(name: str, array: NDArray) -> onnx.TensorProto:
    array = np.asarray(array)
    return numpy_helper.from_array(array.astype(np.float32 if array.dtype.kind == "f" else np.int64), name)


def in_float64(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every float32 input, output, tensor and cast in float64."""
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for tensor in copy.graph.initializer:
        _widen(tensor)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = double
        if node.op_type == "ConstantOfShape" and not node.attribute:
            # Zeros of float32, unless it says otherwise.
            node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
