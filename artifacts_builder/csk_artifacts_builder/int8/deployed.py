"""The export template in the form that a quantised source was deployed in: QDQ, with its own scales.

A device completes it as it completes the float one, with integers in the place of kernels and biases
(csk_sdk/network/export_quantised.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.prepare.quantized import Quantised
from csk_artifacts_builder.prepare.quantized_values import Grid
from csk_sdk.contract.manifest import (
    BIAS,
    BIAS_SCALE,
    KERNEL,
    KERNEL_SCALE,
    KERNEL_ZERO,
    Head,
    QuantisedLayer,
)

# What opset 17 can round activations to.
_ROUNDED_TO = (ir.DataType.UINT8, ir.DataType.INT8)
# What is rounded on the same grid behind them as in front: runtimes do them on integers then.
_SAME_GRID = {"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# A reduced range, as quantisers call it, leaves room for CPUs that add up in 16 bits.
_ALL, _REDUCED = 127, 64


def round_as_deployed(model: ir.Model, quantised: Quantised, head: Head) -> tuple[QuantisedLayer, ...]:
    """Put an export template into QDQ, in place; its layers whose kernels a device rounds, none where it has none."""
    emit = Emitter(model.graph)
    for node in list(model.graph):
        _round_activation(emit, node, quantised)
        _round_behind(emit, node)
    largest = _REDUCED if quantised.largest <= _REDUCED else _ALL
    layers = [
        layer
        for node in list(model.graph)
        if (layer := _round_layer(emit, node, quantised, head, largest)) is not None
    ]
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)
    passes.NameFixPass()(model)
    return tuple(layers)


def _round_activation(emit: Emitter, node: ir.Node, quantised: Quantised) -> None:
    """A Clip between the ends of a grid becomes the rounding to it."""
    if node.op_type != "Clip" or len(node.inputs) < 3:
        return
    low, high = (constant_array(value) for value in node.inputs[1:3])
    if low is None or high is None:
        return
    grid = quantised.ends.get((float(low), float(high)))
    if grid is None or grid.dtype not in _ROUNDED_TO or grid.scale.ndim:
        return
    x = node.inputs[0]
    with emit.before(node):
        if float(low) > float(grid.ends[0]):
            x = emit.op("Relu", x)
        _replace(node.outputs[0], _rounded(emit, x, grid))


def _rounded(emit: Emitter, x: ir.Value | None, grid: Grid) -> ir.Value:
    scale = emit.constant(grid.scale, np.float32, "scale")
    zero = emit.constant(grid.zero, grid.dtype.numpy(), "zero_point")
    return emit.op("DequantizeLinear", emit.op("QuantizeLinear", x, scale, zero), scale, zero)


def _round_behind(emit: Emitter, node: ir.Node) -> None:
    """The same rounding once more, which changes nothing, behind what only moves integers."""
    rounding = _rounding(node.inputs[0]) if node.op_type in _SAME_GRID else None
    y = node.outputs[0] if node.outputs else None
    if rounding is None or y is None or len(node.outputs) > 1 or y.is_graph_output():
        return
    scale, zero = rounding.inputs[1:3]
    users = list(y.uses())
    with emit.behind(node):
        same = emit.op("DequantizeLinear", emit.op("QuantizeLinear", y, scale, zero), scale, zero)
    same.shape, same.type = y.shape, y.type
    for user, place in users:
        user.replace_input_with(place, same)


def _rounding(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that gives `value`, if one does."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _round_layer(
    emit: Emitter, node: ir.Node, quantised: Quantised, head: Head, largest: int
) -> QuantisedLayer | None:
    """Give a layer its kernel and bias as integers; None where it stays as it is."""
    axis = _output_axis(node)
    rounding = _rounding(node.inputs[0]) if axis is not None else None
    if axis is None or rounding is None:
        return None
    kernel, *others = (value for value in node.inputs[1:] if value is not None)
    name = str(kernel.name)
    if name != head.weight and (name not in quantised.weights or constant_array(kernel) is None):
        return None
    if any(len(value.uses()) != 1 or value.producer() is not None for value in (kernel, *others)):
        return None
    bias = str(others[0].name) if others else ""
    scale = constant_array(rounding.inputs[1])
    assert scale is not None
    by_channel = axis if quantised.per_channel else None
    with emit.before(node):
        _integers(emit, kernel, ir.DataType.INT8, (KERNEL, KERNEL_SCALE, KERNEL_ZERO), by_channel)
        if others:
            _integers(
                emit, others[0], ir.DataType.INT32, (BIAS, BIAS_SCALE), 0 if quantised.per_channel else None
            )
    return QuantisedLayer(name, bias, -1 if by_channel is None else by_channel, largest, float(scale))


def _output_axis(node: ir.Node) -> int | None:
    """The axis of a layer's kernel that has one entry for each output; None for what is no such layer."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        plain = (
            not attribute(node, "transA", 0)
            and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1
        )
        return (0 if attribute(node, "transB", 0) else 1) if plain else None
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return 1 if weight is not None and weight.shape is not None and len(weight.shape) == 2 else None


def _integers(
    emit: Emitter, value: ir.Value, kind: ir.DataType, suffixes: Sequence[str], axis: int | None
) -> None:
    """What gives `value`, under its name, from tensors that a device appends."""
    name = str(value.name)
    types = (kind, ir.DataType.FLOAT, kind)
    given = [
        ir.Value(name=f"{name}{suffix}", type=ir.TensorType(one))
        for suffix, one in zip(suffixes, types, strict=False)
    ]
    along: dict[str, Any] = {} if axis is None else {"axis": axis}
    real = emit.op("DequantizeLinear", *given, **along)
    real.shape, real.type = value.shape, value.type
    emit.graph.initializers.pop(name, None)
    value.name, real.name = None, name
    value.replace_all_uses_with(real)


def _replace(old: ir.Value, value: ir.Value) -> None:
    value.shape, value.type = old.shape, old.type
    old.replace_all_uses_with(value, replace_graph_outputs=True)
