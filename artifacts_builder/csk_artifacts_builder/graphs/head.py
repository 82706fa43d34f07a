"""Splitting off the linear classifier at the end of the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import called
from csk_artifacts_builder.linear_layer import linear_layer
from csk_artifacts_builder.model_kinds import CLASSIFIERS_ONLY, kind_of
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
    split = linear_layer(node) if node is not None else None
    if node is None or split is None:
        kind = kind_of(model)
        if kind is not None:
            raise ModelError(f"{where} is {kind}. {CLASSIFIERS_ONLY}")
        found = f"op '{node.op_type}' (node '{node.name}')" if node is not None else "an input"
        raise ModelError(
            f"{where} ends in {found}, not in a fully connected classifier (Gemm, or MatMul and Add). "
            "Export the model with its last linear layer as the output."
        )
    features, weight, bias, weight_name, bias_name = split
    if features.shape is None or len(features.shape) != 2:
        kind = kind_of(model)
        if kind is not None:
            raise ModelError(f"{where} is {kind}. {CLASSIFIERS_ONLY}")
        if features.shape is None:
            raise _unknown_shape(model, str(features.name), where)
        raise ModelError(
            f"{where}: the classifier's input '{features.name}' is not a (batch, features) matrix."
        )
    return SplitHead(features, weight, bias, weight_name, bias_name, str(output.name), activation, node)


def _unknown_shape(model: ir.Model, features: str, where: str) -> ModelError:
    first = next((node for node in model.graph if any(one.shape is None for one in node.outputs)), None)
    because = (
        f", because none is known of what op '{first.op_type}' (node '{called(first)}') gives"
        if first
        else ""
    )
    remedy = "Export the model with sizes that do not depend on the image's numbers."
    if first is not None and first.op_type == "Squeeze" and not any(first.inputs[1:]):
        remedy = (
            "It says no axes, and .squeeze() takes the batch away, too, where it is 1: write .flatten(1) or "
            ".squeeze(dim) in its place."
        )
    return ModelError(
        f"{where}: the shape of the classifier's input '{features}' is not known{because}. {remedy}"
    )
