"""Splitting off the linear classifier at the end of the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute, constant_array
from csk_sdk.errors import ModelError

_PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid"}


@dataclass(frozen=True)
class SplitHead:
    """`logits = features @ weight.T + bias`: weight `(classes, f)`, bias `(classes,)`, both float32.

    `activation` is the op that follows the logits in the source model ("Softmax", "LogSoftmax", "Sigmoid" or None).
    `node` makes the logits.
    """

    features: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight_name: str
    bias_name: str
    output_name: str
    activation: str | None
    node: ir.Node


def split_head(model: ir.Model, where: str) -> SplitHead:
    """Find the classifier: the last Gemm, or MatMul with an optional Add, behind the features.

    Raises ModelError where the model does not end in a linear layer over a `(N, features)` matrix.
    """
    output = model.graph.outputs[0]
    if len(model.graph.outputs) != 1:
        raise ModelError(f"{where} has {len(model.graph.outputs)} outputs; a classifier has one, its logits.")
    node, activation = output.producer(), None
    if node is not None and node.op_type in _PROBABILITIES:
        activation = node.op_type
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    split = _linear(node)
    if node is None or split is None:
        found = f"op '{node.op_type}' (node '{node.name}')" if node is not None else "an input"
        raise ModelError(
            f"{where} ends in {found}, not in a fully connected classifier (Gemm, or MatMul and Add). "
            "Export the model with its last linear layer as the output."
        )
    features, weight, bias, weight_name, bias_name = split
    if features.shape is None or len(features.shape) != 2:
        raise ModelError(
            f"{where}: the classifier's input '{features.name}' is not a (batch, features) matrix."
        )
    return SplitHead(features, weight, bias, weight_name, bias_name, str(output.name), activation, node)


def _linear(node: ir.Node | None) -> tuple[ir.Value, NDArray[Any], NDArray[Any], str, str] | None:
    if node is None:
        return None
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
            inner = _linear(producer) if producer is not None and producer.op_type == "MatMul" else None
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
) -> tuple[ir.Value, NDArray[Any], NDArray[Any], str, str] | None:
    if features is None or weight_value is None:
        return None
    weight = np.ascontiguousarray(weight, np.float32)
    name = str(bias_value.name) if bias_value is not None else f"{weight_value.name}.bias"
    return features, weight, _flat_bias(bias, len(weight)), str(weight_value.name), name


def _flat_bias(bias: NDArray[Any], classes: int) -> NDArray[np.float32]:
    return np.broadcast_to(np.asarray(bias, np.float32).reshape(-1), (classes,)).copy()
