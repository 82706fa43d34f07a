"""Gradient rules of elementwise arithmetic. Broadcasting is undone once, in the driver."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients.registry import needed, vjp

Gradients = Sequence[ir.Value | None]


def _elementwise(emit: Emitter, node: ir.Node, op_type: str, *inputs: ir.Value | None) -> ir.Value:
    """An op whose result has the node's output shape, which the driver reads to undo broadcasting."""
    value = emit.op(op_type, *inputs)
    value.shape, value.dtype = node.outputs[0].shape, ir.DataType.FLOAT
    return value


def _shaped(emit: Emitter, node: ir.Node, g: ir.Value, position: int) -> ir.Value:
    """`g` itself where input `position` was not broadcast, else `g` under the output's shape."""
    x = node.inputs[position]
    if x is None or x.shape is None or x.shape == node.outputs[0].shape:
        return g
    return _elementwise(emit, node, "Identity", g)


@vjp("Add")
def add(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g, db = g"""
    return [_shaped(emit, node, g, position) if needed(node, position) else None for position in (0, 1)]


@vjp("Sub")
def sub(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g, db = -g"""
    return [
        _shaped(emit, node, g, 0) if needed(node, 0) else None,
        _elementwise(emit, node, "Neg", g) if needed(node, 1) else None,
    ]


@vjp("Mul")
def mul(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g * b, db = g * a"""
    a, b = node.inputs
    return [
        _elementwise(emit, node, "Mul", g, b) if needed(node, 0) else None,
        _elementwise(emit, node, "Mul", g, a) if needed(node, 1) else None,
    ]


@vjp("Div")
def div(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g / b, db = -g * y / b"""
    b = node.inputs[1]
    per_b = _elementwise(emit, node, "Div", g, b)
    return [
        per_b if needed(node, 0) else None,
        _elementwise(emit, node, "Neg", emit.op("Mul", per_b, node.outputs[0])) if needed(node, 1) else None,
    ]


@vjp("Neg")
def neg(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = -g"""
    return [emit.op("Neg", g)]
