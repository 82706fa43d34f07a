"""A fully connected layer with constant weights, in the forms that exporters write: Gemm, or MatMul and perhaps Add."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute, constant_array

Linear = tuple[ir.Value, NDArray[Any], NDArray[Any], str, str]


def linear_layer(node: ir.Node) -> Linear | None:
    """The layer that ends in `node`: features, weight `(outputs, features)`, bias `(outputs,)`, and their names."""
    if node.op_type == "Gemm":
        weight = constant_array(node.inputs[1])
        if weight is None or attribute(node, "transA", 0):
            return None
        weight = weight if attribute(node, "transB", 0) else weight.T
        weight = weight * np.float32(attribute(node, "alpha", 1.0))
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        bias = constant_array(bias_value)
        if bias_value is not None and bias is None:
            return None
        bias = (
            np.zeros(len(weight), np.float32)
            if bias is None
            else bias * np.float32(attribute(node, "beta", 1.0))
        )
        return _parts(node.inputs[0], weight, bias, node.inputs[1], bias_value)
    if node.op_type == "MatMul":
        weight = constant_array(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return None
        return _parts(node.inputs[0], weight.T, np.zeros(weight.shape[1], np.float32), node.inputs[1], None)
    if node.op_type == "Add":
        for product, bias_value in (node.inputs, node.inputs[::-1]):
            producer = product.producer() if product is not None else None
            bias = constant_array(bias_value)
            inner = linear_layer(producer) if producer is not None and producer.op_type == "MatMul" else None
            if inner is not None and bias is not None:
                features, weight, _, weight_name, _ = inner
                return features, weight, _flat_bias(bias, len(weight)), weight_name, str(bias_value.name)  # type: ignore[union-attr]
    return None


def _parts(
    features: ir.Value | None,
    weight: NDArray[Any],
    bias: NDArray[Any],
    weight_value: ir.Value | None,
    bias_value: ir.Value | None,
) -> Linear | None:
    if features is None or weight_value is None:
        return None
    weight = np.ascontiguousarray(weight, np.float32)
    name = str(bias_value.name) if bias_value is not None else f"{weight_value.name}.bias"
    return features, weight, _flat_bias(bias, len(weight)), str(weight_value.name), name


def _flat_bias(bias: NDArray[Any], classes: int) -> NDArray[np.float32]:
    return np.broadcast_to(np.asarray(bias, np.float32).reshape(-1), (classes,)).copy()
