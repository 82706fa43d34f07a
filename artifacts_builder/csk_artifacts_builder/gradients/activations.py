"""Gradient rules of activation functions. `y` is the output, `x` the input, `g` the gradient of `y`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute
from csk_artifacts_builder.gradients.arithmetic import elementwise
from csk_artifacts_builder.gradients.registry import needed, vjp

Gradients = Sequence[ir.Value | None]


def _input(node: ir.Node, position: int = 0) -> ir.Value:
    value = node.inputs[position]
    assert value is not None
    return value


def masked(emit: Emitter, node: ir.Node, mask: ir.Value, g: ir.Value) -> ir.Value:
    """`g` where the mask is, else 0: a product, since Where takes ten times as long (decision 0003).

    The mask takes its shape from `g`, which is its own: so the runtime does not cast it, to four times its bytes, in
    the forward pass, and hold it until `g` is there.
    """
    waiting = emit.op("Reshape", mask, emit.op("Shape", g))
    return emit.op("Mul", g, emit.op("Cast", waiting, to=ir.DataType.FLOAT))


@vjp("Relu")
def relu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where y > 0; the truth values are saved right behind the node, a quarter of y's bytes."""
    with emit.behind(node):
        mask = emit.op("Greater", node.outputs[0], emit.scalar(0.0))
    return [masked(emit, node, mask, g)]


@vjp("LeakyRelu")
def leaky_relu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where x > 0, else alpha * g"""
    with emit.behind(node):
        mask = emit.op("Greater", _input(node), emit.scalar(0.0))
    return [emit.op("Where", mask, g, emit.op("Mul", g, emit.scalar(attribute(node, "alpha", 0.01))))]


@vjp("Clip")
def clip(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where min < x < max, that is where y is strictly between them; Relu6 is Clip(0, 6)."""
    low = node.inputs[1] if len(node.inputs) > 1 else None
    high = node.inputs[2] if len(node.inputs) > 2 else None
    y = node.outputs[0]
    with emit.behind(node):
        inside = [emit.op("Greater", y, low)] if low is not None else []
        inside += [emit.op("Less", y, high)] if high is not None else []
        if not inside:
            return [g, None, None]
        mask = inside[0] if len(inside) == 1 else emit.op("And", *inside)
    return [masked(emit, node, mask, g), None, None]


@vjp("Sigmoid")
def sigmoid(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g * y * (1 - y)"""
    y = node.outputs[0]
    return [emit.op("Mul", g, emit.op("Mul", y, emit.op("Sub", emit.scalar(1.0), y)))]


@vjp("Tanh")
def tanh(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g * (1 - y^2)"""
    y = node.outputs[0]
    return [emit.op("Mul", g, emit.op("Sub", emit.scalar(1.0), emit.op("Mul", y, y)))]


@vjp("HardSigmoid")
def hard_sigmoid(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = alpha * g where 0 < y < 1"""
    y = node.outputs[0]
    with emit.behind(node):
        mask = emit.op("And", emit.op("Greater", y, emit.scalar(0.0)), emit.op("Less", y, emit.scalar(1.0)))
    slope = emit.scalar(attribute(node, "alpha", 0.2))
    return [masked(emit, node, mask, emit.op("Mul", g, slope))]


@vjp("HardSwish")
def hard_swish(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = x * clip(x / 6 + 1/2, 0, 1); dx = g * clip(...) + g * x / 6 where -3 < x < 3"""
    x = _input(node)
    gate = emit.op("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)
    inside = emit.op("Less", emit.op("Abs", x), emit.scalar(3.0))
    slope = emit.op("Where", inside, emit.op("Mul", x, emit.scalar(1.0 / 6.0)), emit.scalar(0.0))
    return [emit.op("Mul", g, emit.op("Add", gate, slope))]


@vjp("PRelu")
def prelu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where x > 0, else slope * g; dslope = 0 where x > 0, else x * g"""
    x, slope = _input(node), _input(node, 1)
    with emit.behind(node):
        mask = emit.op("Greater", x, emit.scalar(0.0))
    dslope = None
    if needed(node, 1):
        dslope = elementwise(emit, node, "Where", mask, emit.scalar(0.0), emit.op("Mul", g, x))
    return [emit.op("Where", mask, g, emit.op("Mul", g, slope)), dslope]


@vjp("Elu")
def elu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = alpha * (e^x - 1) below 0: dx = g where y > 0, else g * (y + alpha)"""
    return [_exponential_below_zero(emit, node, g, 1.0, 1.0, attribute(node, "alpha", 1.0))]


@vjp("Selu")
def selu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = gamma * alpha * (e^x - 1) below 0: dx = g * gamma where y > 0, else g * (y + gamma * alpha)"""
    alpha = attribute(node, "alpha", 1.6732632423543772)
    gamma = attribute(node, "gamma", 1.0507009873554805)
    return [_exponential_below_zero(emit, node, g, gamma, 1.0, gamma * alpha)]


@vjp("Celu")
def celu(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = alpha * (e^(x / alpha) - 1) below 0: dx = g where y > 0, else g * (y / alpha + 1)"""
    return [_exponential_below_zero(emit, node, g, 1.0, 1.0 / attribute(node, "alpha", 1.0), 1.0)]


def _exponential_below_zero(
    emit: Emitter, node: ir.Node, g: ir.Value, above: float, factor: float, summand: float
) -> ir.Value:
    """`g * above` where y > 0, else `g * (factor * y + summand)`; only y is kept."""
    y = node.outputs[0]
    below = emit.op("Add", emit.op("Mul", y, emit.scalar(factor)), emit.scalar(summand))
    positive = emit.op("Greater", y, emit.scalar(0.0))
    return emit.op("Mul", g, emit.op("Where", positive, emit.scalar(above), below))


@vjp("Softplus")
def softplus(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = log(1 + e^x): dx = g * sigmoid(x)"""
    return [emit.op("Mul", g, emit.op("Sigmoid", _input(node)))]


@vjp("Softsign")
def softsign(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """y = x / (1 + |x|): dx = g / (1 + |x|)^2"""
    wide = emit.op("Add", emit.op("Abs", _input(node)), emit.scalar(1.0))
    return [emit.op("Div", g, emit.op("Mul", wide, wide))]


@vjp("Erf")
def erf(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g * 2 / sqrt(pi) * e^(-x^2)"""
    x = _input(node)
    bell = emit.op("Exp", emit.op("Neg", emit.op("Mul", x, x)))
    return [emit.op("Mul", g, emit.op("Mul", bell, emit.scalar(float(2 / np.sqrt(np.pi)))))]


@vjp("Softmax")
def softmax(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = y * (g - sum(g * y)), the sum along the axis"""
    y, axis = node.outputs[0], emit.ints(attribute(node, "axis", -1))
    total = emit.op("ReduceSum", emit.op("Mul", g, y), axis, keepdims=1)
    return [emit.op("Mul", y, emit.op("Sub", g, total))]


@vjp("LogSoftmax")
def log_softmax(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g - e^y * sum(g), the sum along the axis"""
    total = emit.op("ReduceSum", g, emit.ints(attribute(node, "axis", -1)), keepdims=1)
    return [emit.op("Sub", g, emit.op("Mul", emit.op("Exp", node.outputs[0]), total))]
