"""Gradient rules of reductions along axes. `y` and `g` are first given the reduced axes back, with size 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.registry import vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


def spread(emit: Emitter, g: ir.Value, x: ir.Value) -> ir.Value:
    """`g` broadcast to x's shape."""
    with emit.behind(x.producer()):
        shape = emit.op("Shape", x)
    return emit.op("Expand", g, shape)


def at_extremum(
    emit: Emitter, node: ir.Node, x: ir.Value, y: ir.Value, g: ir.Value, axes: Sequence[int]
) -> ir.Value:
    """`g` where x equals its extremum y along `axes`, shared equally where several do; else 0."""
    with emit.behind(node):
        mask = emit.op("Equal", x, y)
    ones = emit.op("Cast", mask, to=ir.DataType.FLOAT)
    share = emit.op("Div", g, emit.op("ReduceSum", ones, emit.ints(*axes), keepdims=1))
    return emit.op("Where", mask, share, emit.scalar(0.0))


def _input(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    return x


def reduced_axes(node: ir.Node) -> list[int]:
    """The reduced axes, counted from the front: an input of ReduceSum, an attribute of all others."""
    rank = len(static_shape(_input(node)))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant_array(given)
    if given is not None and array is None:
        raise UnsupportedOpError(
            f"no gradient rule for '{node.op_type}' with computed axes (node '{node.name}'). "
            "Export the model with constant ones, or train only later layers with --trainable from:NODE."
        )
    axes = attribute(node, "axes", []) if array is None else array.ravel()
    if not len(axes) and not attribute(node, "noop_with_empty_axes", 0):
        axes = range(rank)
    return sorted(int(axis) % rank for axis in axes)


def _kept(emit: Emitter, node: ir.Node, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """`value`, of the output's shape, with the reduced axes there."""
    if attribute(node, "keepdims", 1) or not axes:
        return value
    return emit.op("Unsqueeze", value, emit.ints(*axes))


@vjp("ReduceSum")
def reduce_sum(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g along the reduced axes"""
    return [spread(emit, _kept(emit, node, g, reduced_axes(node)), _input(node)), None]


@vjp("ReduceMean")
def reduce_mean(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g / count along the reduced axes"""
    x, axes = _input(node), reduced_axes(node)
    sizes = [static_shape(x)[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedOpError(
            f"no gradient rule for 'ReduceMean' over a dynamic axis (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    count = int(np.prod([int(size) for size in sizes]))
    scaled = emit.op("Mul", _kept(emit, node, g, axes), emit.scalar(1.0 / count))
    return [spread(emit, scaled, x)]


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where x = y, shared equally where several are; else 0"""
    axes = reduced_axes(node)
    y, g = _kept(emit, node, node.outputs[0], axes), _kept(emit, node, g, axes)
    return [at_extremum(emit, node, _input(node), y, g, axes)]


@vjp("ReduceL1")
def reduce_l1(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = sum |x|: dx = g * sign(x)"""
    return [emit.op("Mul", _kept(emit, node, g, reduced_axes(node)), emit.op("Sign", _input(node)))]


@vjp("ReduceL2")
def reduce_l2(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = sqrt(sum x^2): dx = g * x / y, and 0 where y = 0"""
    axes = reduced_axes(node)
    y, g = _kept(emit, node, node.outputs[0], axes), _kept(emit, node, g, axes)
    tiny = emit.scalar(float(np.finfo(np.float32).tiny))
    return [emit.op("Mul", g, emit.op("Div", _input(node), emit.op("Max", y, tiny)))]


@vjp("ReduceSumSquare")
def reduce_sum_square(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = sum x^2: dx = 2 * g * x"""
    doubled = emit.op("Mul", _kept(emit, node, g, reduced_axes(node)), emit.scalar(2.0))
    return [emit.op("Mul", doubled, _input(node))]
