"""Elementwise ops, products and reductions: forms that the sweep draws (kinds.py)."""

from __future__ import annotations

import numpy as np
from nodes import Network


def unary(op: str, net: Network, x: str) -> str:
    return net.add(op, x)


def of_positive(op: str, net: Network, x: str) -> str:
    """Away from 0, where its slope is steep."""
    positive = net.add("Add", net.add("Sigmoid", x), net.constant(net.number(0.3, 1.0)))
    return net.add(op, positive)


def sloped(op: str, net: Network, x: str, **attributes: tuple[float, float]) -> str:
    chosen = {name: net.number(*bounds) for name, bounds in attributes.items() if net.coin()}
    return net.add(op, x, **chosen)


def clip(net: Network, x: str) -> str:
    low, high = net.constant(net.number(-1.5, -0.1)), net.constant(net.number(0.1, 1.5))
    form = net.integer(0, 3)
    return net.add(
        "Clip", *[(x, low, high), (x, low), (x, "", high), (x, net.constant(0.0), net.constant(6.0))][form]
    )


def prelu(net: Network, x: str) -> str:
    c, h, w = net.shape(x)[1:]
    shape = net.one_of((c, 1, 1), (1, 1, 1), (c, h, w), (1,))
    return net.add("PRelu", x, net.constant(net.rng.uniform(0.05, 0.5, shape)))


def _operand(net: Network, x: str, low: float = -2.0, high: float = 2.0) -> str:
    """A constant that broadcasts, or another branch of the network."""
    c, h, w = net.shape(x)[1:]
    if net.coin():
        return net.add("Tanh", net.add("Mul", x, net.constant(net.number(0.5, 2.0))))
    shape = net.one_of((), (1,), (c, 1, 1), (1, c, 1, 1), (h, w), (w,), (c, h, w), (1, 1, h, 1))
    return net.constant(net.rng.uniform(low, high, shape))


def binary(op: str, net: Network, x: str) -> str:
    pair = [x, _operand(net, x)]
    return net.add(op, *(pair if net.coin() else pair[::-1]))


def divided(net: Network, x: str) -> str:
    if net.coin():
        return net.add("Div", x, net.constant(net.rng.uniform(0.5, 2.0, (net.shape(x)[1], 1, 1))))
    below = net.add("Add", net.add("Sigmoid", x), net.constant(0.5))
    return net.add("Div", _operand(net, x), below)


def power(net: Network, x: str) -> str:
    exponent = net.one_of(0.5, 1.5, 2.0, 3.0, -1.0)
    base = net.add("Add", net.add("Sigmoid", x), net.constant(0.5))
    return net.add(
        "Pow", base, net.constant(exponent, net.one_of(np.float32, np.int64) if exponent == 2 else np.float32)
    )


def many(op: str, net: Network, x: str) -> str:
    return net.add(op, *[x, *(_operand(net, x) for _ in range(net.integer(1, 2)))])


def where(net: Network, x: str) -> str:
    c, h, w = net.shape(x)[1:]
    shape = net.one_of((c, h, w), (1, c, 1, 1), (h, 1), (w,))
    if net.coin():
        mask = net.add("Greater", net.constant(net.rng.normal(size=shape)), net.constant(0.0))
    else:
        mask = net.add("Less", x, net.constant(net.number(-0.5, 0.5)))
    pair = [net.add("Mul", x, net.constant(0.7)), _operand(net, x)]
    return net.add("Where", mask, *(pair if net.coin() else pair[::-1]))


def softmax(op: str, net: Network, x: str) -> str:
    return net.add(op, x, axis=net.one_of(None, 1, 2, 3, -1, -2, -3))


def gemm(net: Network, x: str) -> str:
    flat = net.add("Flatten", x)
    size, made = net.shape(flat)[1], net.integer(2, 5)
    turned = net.integer(0, 1)
    w = net.normal(*((made, size) if turned else (size, made)), scale=size**-0.5)
    bias = net.one_of((made,), (1, made), (), (1,), None)
    given = [] if bias is None else [net.normal(*bias)]
    return net.add(
        "Gemm", flat, w, *given, transB=turned, alpha=net.one_of(None, 0.7), beta=net.one_of(None, 1.3)
    )


def matmul(net: Network, x: str) -> str:
    _n, c, h, w = net.shape(x)
    form = net.integer(0, 3)
    if form == 0:
        return net.add("MatMul", x, net.normal(w, net.integer(1, 4), scale=0.5))
    if form == 1:
        return net.add("MatMul", net.normal(net.integer(1, 4), h, scale=0.5), x)
    if form == 2:
        return net.add("MatMul", x, net.normal(c, w, net.integer(1, 4), scale=0.5))
    return net.add("MatMul", x, net.add("Transpose", net.add("Tanh", x), perm=[0, 1, 3, 2]))


def reduced(op: str, net: Network, x: str) -> str:
    axes = sorted(net.one_of([1], [2], [3], [2, 3], [1, 2], [1, 3], [1, 2, 3], [3, 1]))
    axes = [axis - 4 if net.coin() else axis for axis in axes]
    keep = net.one_of(None, 1, 0)
    by_input = net.opset >= (13 if op == "ReduceSum" else 18)
    if not by_input:
        return net.add(op, x, axes=axes, keepdims=keep)
    if net.integer(0, 4) == 0:
        return net.add(op, x, *([net.ints([])] if net.coin() else []), noop_with_empty_axes=1, keepdims=keep)
    return net.add(op, x, net.ints(axes), keepdims=keep)
