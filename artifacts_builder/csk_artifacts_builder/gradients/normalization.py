"""Gradient rules of normalizations that are computed from the image itself, with frozen scale and bias.

For `n = (x - mean) * r` with `r = 1 / sqrt(var + epsilon)` over some axes, and the gradient `h` of n:
`dx = r * (h - mean(h) - n * mean(h * n))`, the means over the same axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, static_shape
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


@vjp("InstanceNormalization")
def instance_normalization(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = scale * n + bias, n over the image: dx as above with h = scale * g"""
    x, scale = _inputs(node)
    rank = len(static_shape(x))
    per_channel = emit.op("Unsqueeze", scale, emit.ints(*range(1, rank - 1)))
    h = emit.op("Mul", g, per_channel)
    return [_through(emit, x, h, list(range(2, rank)), attribute(node, "epsilon", 1e-5)), None, None]


@vjp("LayerNormalization")
def layer_normalization(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = scale * n + bias, n over the axes from `axis` on: dx as above with h = scale * g"""
    x, scale = _inputs(node)
    rank = len(static_shape(x))
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    h = emit.op("Mul", g, scale)
    return [_through(emit, x, h, axes, attribute(node, "epsilon", 1e-5)), None, None]


def _inputs(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    x, scale = node.inputs[0], node.inputs[1]
    if x is None or scale is None or needed(node, 1) or needed(node, 2):
        raise UnsupportedOpError(
            f"no gradient rule for '{node.op_type}' with a computed scale or bias (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    return x, scale


def _through(emit: Emitter, x: ir.Value, h: ir.Value, axes: list[int], epsilon: float) -> ir.Value:
    """dx from h; n is computed again from x, which costs less than keeping both."""

    def mean(value: ir.Value) -> ir.Value:
        return emit.op("ReduceMean", value, axes=axes, keepdims=1)

    centered = emit.op("Sub", x, mean(x))
    variance = mean(emit.op("Mul", centered, centered))
    deviation = emit.op("Sqrt", emit.op("Add", variance, emit.scalar(epsilon)))
    n = emit.op("Div", centered, deviation)
    along = emit.op("Mul", n, mean(emit.op("Mul", h, n)))
    return emit.op("Div", emit.op("Sub", emit.op("Sub", h, mean(h)), along), deviation)
