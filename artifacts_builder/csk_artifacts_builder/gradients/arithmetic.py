"""Gradient rules of elementwise arithmetic. Broadcasting is undone once, in the driver."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, constant_array
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


def elementwise(emit: Emitter, node: ir.Node, op_type: str, *inputs: ir.Value | None) -> ir.Value:
    """An op whose result has the node's output shape, which the driver reads to undo broadcasting."""
    value = emit.op(op_type, *inputs)
    value.shape, value.dtype = node.outputs[0].shape, ir.DataType.FLOAT
    return value


def shaped(emit: Emitter, node: ir.Node, g: ir.Value, position: int) -> ir.Value:
    """`g` itself where input `position` was not broadcast, else `g` under the output's shape."""
    x = node.inputs[position]
    if x is None or x.shape is None or x.shape == node.outputs[0].shape:
        return g
    return elementwise(emit, node, "Identity", g)


@vjp("Add")
def add(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g, db = g"""
    return [shaped(emit, node, g, position) if needed(node, position) else None for position in (0, 1)]


@vjp("Sum")
def variadic_sum(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx_i = g"""
    return [shaped(emit, node, g, i) if needed(node, i) else None for i in range(len(node.inputs))]


@vjp("Sub")
def sub(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g, db = -g"""
    return [
        shaped(emit, node, g, 0) if needed(node, 0) else None,
        elementwise(emit, node, "Neg", g) if needed(node, 1) else None,
    ]


@vjp("Mul")
def mul(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g * b, db = g * a"""
    a, b = node.inputs
    return [
        elementwise(emit, node, "Mul", g, b) if needed(node, 0) else None,
        elementwise(emit, node, "Mul", g, a) if needed(node, 1) else None,
    ]


@vjp("Div")
def div(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """da = g / b, db = -g * y / b"""
    b = node.inputs[1]
    per_b = elementwise(emit, node, "Div", g, b)
    return [
        per_b if needed(node, 0) else None,
        elementwise(emit, node, "Neg", emit.op("Mul", per_b, node.outputs[0])) if needed(node, 1) else None,
    ]


@vjp("Neg")
def neg(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = -g"""
    return [emit.op("Neg", g)]


@vjp("Abs")
def absolute(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g * sign(x)"""
    return [emit.op("Mul", g, emit.op("Sign", node.inputs[0]))]


@vjp("Reciprocal")
def reciprocal(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = -g * y^2"""
    y = node.outputs[0]
    return [emit.op("Neg", emit.op("Mul", g, emit.op("Mul", y, y)))]


@vjp("Exp")
def exp(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g * y"""
    return [emit.op("Mul", g, node.outputs[0])]


@vjp("Log")
def log(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g / x"""
    return [emit.op("Div", g, node.inputs[0])]


@vjp("Sqrt")
def sqrt(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g / (2 y)"""
    return [emit.op("Div", emit.op("Mul", g, emit.scalar(0.5)), node.outputs[0])]


@vjp("Pow")
def power(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = x^p with a constant p: dx = g * p * x^(p - 1), and 0 where p = 0"""
    exponent = constant_array(node.inputs[1])
    if exponent is None:
        raise UnsupportedOpError(
            f"no gradient rule for 'Pow' with a computed exponent (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    p = exponent.astype(np.float64)
    lower = emit.constant(np.where(p == 0, 1.0, p - 1), np.float32, "exponent")
    slope = emit.op("Mul", emit.op("Pow", node.inputs[0], lower), emit.constant(p, np.float32, "exponent"))
    return [elementwise(emit, node, "Mul", g, slope), None]


@vjp("Where")
def where(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = a where c, else b: da = g where c, else 0; db = 0 where c, else g"""
    condition, zero = node.inputs[0], emit.scalar(0.0)
    return [
        None,
        elementwise(emit, node, "Where", condition, g, zero) if needed(node, 1) else None,
        elementwise(emit, node, "Where", condition, zero, g) if needed(node, 2) else None,
    ]


@vjp("Max", "Min")
def extremum(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx_i = g where x_i = y, shared equally where several are, and nothing where a constant 0 is; else 0

    So Max(x, 0) has gradient 0 at 0, as Relu (docs/gradients.md), also where only some elements of a constant are 0.
    """
    y, zero = node.outputs[0], emit.scalar(0.0)
    zeros = constant_zeros(node)
    moving = [x for x in node.inputs if not is_zero(x)]
    with emit.behind(node):
        at_y = {x: emit.op("Equal", x, y) for x in moving}
    if len(moving) > 1:
        # Where none of them is y, a quotient by 0 is in no gradient.
        counts = [emit.op("Cast", at_y[x], to=ir.DataType.FLOAT) for x in moving]
        g = emit.op("Div", g, emit.op("Sum", *counts))
    if zeros is not None:
        with emit.behind(node):
            at_zero = emit.op("Equal", y, zero)
            if not zeros.all():
                at_zero = emit.op("And", at_zero, emit.constant(zeros, np.bool_, "zeros"))
            bent = emit.op("Not", at_zero)
        g = emit.op("Where", bent, g, zero)
    return [
        elementwise(emit, node, "Where", at_y[x], g, zero) if needed(node, position) and x in at_y else None
        for position, x in enumerate(node.inputs)
    ]


def is_zero(x: ir.Value | None) -> bool:
    """Whether an input is a constant of zeros."""
    array = constant_array(x)
    return array is not None and not array.any()


def constant_zeros(node: ir.Node) -> NDArray[np.bool_] | None:
    """Where a constant input of a Max or Min is 0, in a shape that broadcasts to its output; None where none is."""
    places = [
        array == 0 for array in map(constant_array, node.inputs) if array is not None and not array.all()
    ]
    return reduce(np.logical_or, places) if places else None
