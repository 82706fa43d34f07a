"""Half-precision models as float32: the method's steps are small, and the CPUs of devices compute in float32.

Every float16 tensor, input, output and cast becomes float32, which holds each float16 number exactly; so what differs
from the source model is only that its own rounding between layers is gone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import attribute
from csk_sdk.errors import ModelError

_NOT_RUN = {ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def to_float32(model: ir.Model, where: str) -> bool:
    """Widen float16 to float32, in place; True when there was any.

    Raises ModelError for layers with weights in bfloat16 or double, which ONNX Runtime does not run on CPUs.
    """
    _refuse_other_precisions(model, where)
    nodes = list(model.graph)
    values = (*model.graph.inputs, *(value for node in nodes for value in node.outputs))
    widened = [_widen_tensor(value) for value in model.graph.initializers.values()]
    widened += [_widen_type(value) for value in values]
    widened += [_widen_attributes(node) for node in nodes]
    return any(widened)


def _refuse_other_precisions(model: ir.Model, where: str) -> None:
    for node in model.graph:
        for value in node.inputs:
            if node.op_type in _LAYERS and value is not None and value.dtype in _NOT_RUN:
                raise ModelError(
                    f"{where} computes in {value.dtype} (op '{node.op_type}', node '{node.name}'), which ONNX Runtime "
                    "does not run on CPUs. Export the model in float32 or float16."
                )


def _widen_tensor(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT16:
        return False
    value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
    value.dtype = ir.DataType.FLOAT
    return True


def _widen_type(value: ir.Value) -> bool:
    if value.dtype != ir.DataType.FLOAT16:
        return False
    value.dtype = ir.DataType.FLOAT
    return True


def _widen_attributes(node: ir.Node) -> bool:
    """Cast's `to`, and the tensor that ConstantOfShape fills with."""
    if node.op_type == "Cast" and attribute(node, "to") == ir.DataType.FLOAT16:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        return True
    filled = attribute(node, "value") if node.op_type == "ConstantOfShape" else None
    if filled is None or filled.dtype != ir.DataType.FLOAT16:
        return False
    node.attributes["value"] = ir.AttrTensor("value", ir.tensor(filled.numpy().astype(np.float32)))
    return True
