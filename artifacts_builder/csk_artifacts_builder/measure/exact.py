"""What a source model is by definition: its outputs in float64, for the case that two graphs of it differ.

Then the runtime may be at fault, not the preparation: GroupNormalization, and LayerNormalization before 1.30, take a
variance as the mean of squares less the square of the mean, of which float32 leaves nothing where the mean is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

# What the standard defines by other ops, in float32 whatever it is given.
_DEFINED = [("", name) for name in ("GroupNormalization", "LayerNormalization", "MeanVarianceNormalization")]
_SINGLE, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


def outputs_in(
    precision: type[np.float32] | type[np.float64],
    proto: onnx.ModelProto,
    batches: Sequence[NDArray[Any]],
    output: str,
) -> NDArray[np.float64] | None:
    """The output `output` of `proto` for `batches` as its file wants them, joined; None where onnx cannot run it."""
    try:
        evaluator = ReferenceEvaluator(_written(proto, widened=precision is np.float64))
        (name,) = evaluator.input_names
        shown = [one.astype(precision) if one.dtype == np.float32 else one for one in batches]
        answers: list[Any] = [evaluator.run([output], {name: one}) for one in shown]
        return np.concatenate([one for (one,) in answers]).astype(np.float64)
    except Exception:
        return None


def _written(proto: onnx.ModelProto, widened: bool) -> onnx.ModelProto:
    """The same in the ops that define others, with initializers that are no inputs."""
    written = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(proto))
    tensors = {tensor.name for tensor in written.graph.initializer}
    for value in [value for value in written.graph.input if value.name in tensors]:
        written.graph.input.remove(value)
    for tensor in written.graph.initializer:  # whose types the inliner looks for among the values
        one = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        written.graph.value_info.append(one)
    written = onnx.inliner.inline_selected_functions(written, _DEFINED, inline_schema_functions=True)
    if widened:
        _widen(written)
    return written


def _widen(proto: onnx.ModelProto) -> None:
    """Make float64 of all that is float32, in place."""
    del proto.graph.value_info[:]
    for tensor in proto.graph.initializer:
        _widen_tensor(tensor)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == _SINGLE:
            value.type.tensor_type.elem_type = _DOUBLE
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == _SINGLE:
                attribute.i = _DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _SINGLE:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
