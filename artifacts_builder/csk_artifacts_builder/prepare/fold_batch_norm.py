"""Batch normalisation in inference form is an affine map per channel: fold it into the convolution before it.

What cannot be folded (no convolution before it, or one that others read too) becomes one Mul and one Add.
It is folded here, and not left to a runtime, because onnxruntime-training silently replaces it by batch
statistics, which makes loss and gradients wrong.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_sdk.errors import ModelError


def fold_batch_norm(model: ir.Model, where: str) -> bool:
    """Remove every BatchNormalization node, in place; True when there was one.

    Raises ModelError for one in training mode, or with parameters computed at run time.
    """
    emit = Emitter(model.graph)
    nodes = [node for node in model.graph if node.op_type == "BatchNormalization"]
    for node in nodes:
        if attribute(node, "training_mode", 0) == 1:
            raise ModelError(
                f"{where} has batch norm '{node.name}' in training mode. Export the model in eval mode."
            )
        scale, shift = _affine(node, where)
        convolution = foldable_convolution(node.inputs[0])
        if convolution is not None:
            _scale_convolution(emit, convolution, scale, shift)
            replacement = convolution.outputs[0]
            assert node.inputs[0] is not None
        else:
            replacement = _as_mul_add(emit, node, scale, shift)
        old = node.outputs[0]
        if old.is_graph_output():
            replacement.name, old.name = old.name, None
        replacement.shape = old.shape if old.shape is not None else replacement.shape
        replacement.type = old.type if old.type is not None else replacement.type
        old.replace_all_uses_with(replacement, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return bool(nodes)


def _affine(node: ir.Node, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift, each `(channels,)` float64: `y = x * scale + shift`."""
    arrays = [constant_array(value) for value in node.inputs[1:5]]
    if any(array is None for array in arrays):
        raise ModelError(f"{where} has batch norm '{node.name}' whose parameters are not constants.")
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def foldable_convolution(x: ir.Value | None) -> ir.Node | None:
    """The convolution that gives `x`, where nothing else reads that, and kernel and bias are constants."""
    producer = x.producer() if x is not None else None
    if producer is None or producer.op_type != "Conv" or x is None:
        return None
    if len(x.uses()) != 1 or x.is_graph_output() or constant_array(producer.inputs[1]) is None:
        return None
    if (
        len(producer.inputs) > 2
        and producer.inputs[2] is not None
        and constant_array(producer.inputs[2]) is None
    ):
        return None
    return producer


def _scale_convolution(
    emit: Emitter, node: ir.Node, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> None:
    weight_value, bias_value = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    weight = constant_array(weight_value)
    assert weight is not None
    assert weight_value is not None
    assert weight_value.name is not None
    bias = constant_array(bias_value)
    folded = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = shift + (0.0 if bias is None else bias.astype(np.float64) * scale)
    # A kernel shared with another layer keeps its own copy there. Outputs are named, nodes perhaps not.
    name = (
        weight_value.name if len(weight_value.uses()) == 1 else f"{weight_value.name}.{node.outputs[0].name}"
    )
    if name == weight_value.name:
        weight_value.const_value = ir.tensor(folded.astype(weight.dtype), name=name)
    else:
        node.replace_input_with(1, emit.initializer(folded.astype(weight.dtype), name))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, emit.initializer(new_bias.astype(weight.dtype), f"{name}.folded_bias"))


def _as_mul_add(
    emit: Emitter, node: ir.Node, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> ir.Value:
    x = node.inputs[0]
    rank = len(x.shape) if x is not None and x.shape is not None else 4
    per_channel = (-1, *[1] * (rank - 2))
    with emit.before(node):
        scaled = emit.op("Mul", x, emit.constant(scale.reshape(per_channel), np.float32, "bn_scale"))
        if x is not None:
            scaled.shape, scaled.type = x.shape, x.type
        return emit.op("Add", scaled, emit.constant(shift.reshape(per_channel), np.float32, "bn_shift"))
