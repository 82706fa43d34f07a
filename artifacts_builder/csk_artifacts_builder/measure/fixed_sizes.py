"""A graph with numbers for its symbolic dimensions, to count on: every shape known, no weight in memory."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx import shape_inference

# Larger tensors say nothing about shapes: no axes or sizes are that long.
_LARGE = 1024


def sized(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    """A copy of `model` with `sizes` for the dimensions of its inputs and outputs, and what follows from them.

    Large initializers keep their shapes, and lose their content.
    """
    proto = _without_weights(model)
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            elif not dim.dim_value:
                dim.Clear()
    inferred: onnx.ModelProto = shape_inference.infer_shapes(proto, data_prop=True)
    return ir.from_proto(inferred)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """Large initializers are set aside while it is written: to copy every node for that takes a third as long again."""
    kept = {}
    try:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and value.shape is not None and tensor.nbytes > _LARGE:
                kept[value] = tensor
                value.const_value = ir.ExternalTensor(
                    "weights", 0, tensor.nbytes, tensor.dtype, shape=value.shape, name=name
                )
        return ir.to_proto(model)
    finally:
        for value, tensor in kept.items():
            value.const_value = tensor
