"""Ops that move, take, repeat or join elements: forms that the sweep draws (kinds.py)."""

from __future__ import annotations

import numpy as np
from nodes import Network


def reshaped(net: Network, x: str) -> str:
    c, h, w = net.shape(x)[1:]
    target = net.one_of([0, -1, w], [-1, c * h, w], [0, 0, -1], [-1, w, h, c], [0, h * w, -1], [0, c, -1, w])
    return net.add("Reshape", x, net.ints(target))


def flattened(net: Network, x: str) -> str:
    return net.add("Flatten", x, axis=net.one_of(None, 1, -3))


def transposition(net: Network, x: str) -> str:
    return net.add("Transpose", x, perm=net.one_of([0, 2, 3, 1], [0, 3, 2, 1], [0, 1, 3, 2], [0, 3, 1, 2]))


def squeezed(net: Network, x: str) -> str:
    axis = net.integer(1, 3)
    one = (
        net.add("ReduceMax", x, net.ints([axis])) if net.opset >= 18 else net.add("ReduceMax", x, axes=[axis])
    )
    axis = axis - 4 if net.coin() else axis
    return (
        net.add("Squeeze", one, net.ints([axis])) if net.opset >= 13 else net.add("Squeeze", one, axes=[axis])
    )


def unsqueezed(net: Network, x: str) -> str:
    axes = net.one_of([1], [-1], [2, 4], [5, 1], [3, -1])
    return net.add("Unsqueeze", x, net.ints(axes)) if net.opset >= 13 else net.add("Unsqueeze", x, axes=axes)


def joined(net: Network, x: str) -> str:
    axis = net.one_of(1, 2, 3, -1, -2, -3)
    shape = net.shape(x)
    parts = [x, net.add("Sigmoid", x)]
    if net.coin() and axis in (1, -3):
        parts.append(
            net.add("ReduceMean", x, net.ints([1])) if net.opset >= 18 else net.add("ReduceMean", x, axes=[1])
        )
    assert len(shape) == 4
    return net.add("Concat", *(parts if net.coin() else parts[::-1]), axis=axis)


def parted(net: Network, x: str) -> str:
    axis = net.one_of(1, 2, 3, -1)
    size = net.shape(x)[axis]
    if size < 2:
        return net.add("Identity", x)
    first = net.integer(1, size - 1)
    if net.opset >= 18 and net.coin():
        parts = net.add_all("Split", x, outputs=2, axis=axis, num_outputs=2)
    elif size % 2 == 0 and net.opset < 18 and net.coin():
        parts = net.add_all("Split", x, outputs=2, axis=axis)
    elif net.opset >= 13:
        parts = net.add_all("Split", x, net.ints([first, size - first]), outputs=2, axis=axis)
    else:
        parts = net.add_all("Split", x, outputs=2, axis=axis, split=[first, size - first])
    form = net.integer(0, 2)
    if form == 0:
        return parts[net.integer(0, 1)]
    if form == 1:
        return net.add("Concat", *parts[::-1], axis=axis)
    return net.add("Concat", net.add("Tanh", parts[1]), net.add("Sigmoid", parts[0]), axis=axis)


def sliced(net: Network, x: str) -> str:
    axis = net.one_of(1, 2, 3, -1, -2)
    size = net.shape(x)[axis]
    step = net.one_of(1, 1, 2, 3, -1, -2)
    begin = net.integer(0, size - 1)
    end = net.one_of(size, 2**31 - 1, 2**63 - 1) if step > 0 else net.one_of(-(2**31), -size - 1)
    begin = begin if net.coin() else begin - size
    given = [net.ints([begin]), net.ints([end]), net.ints([axis])]
    return net.add("Slice", x, *given, *([net.ints([step])] if step != 1 or net.coin() else []))


def gathered(net: Network, x: str) -> str:
    axis = net.one_of(1, 2, 3, -1)
    size = net.shape(x)[axis]
    shape = net.one_of((2,), (), (1,), (2, 2), (4,))
    return net.add("Gather", x, net.constant(net.rng.integers(-size, size, shape), np.int64), axis=axis)


def tiled(net: Network, x: str) -> str:
    return net.add("Tile", x, net.ints([1, net.integer(1, 2), net.integer(1, 2), net.integer(1, 3)]))


def expanded(net: Network, x: str) -> str:
    pooled = net.add("GlobalAveragePool", x)
    c = net.shape(x)[1]
    return net.add("Expand", pooled, net.ints(net.one_of([1, c, 3, 2], [1, 1, 4], [2, 1], [1, 1, 1, 5])))


def depth_to_space(net: Network, x: str) -> str:
    four = net.add("Concat", x, net.add("Neg", x), net.add("Tanh", x), net.add("Sigmoid", x), axis=1)
    return net.add("DepthToSpace", four, blocksize=2, mode=net.one_of(None, "DCR", "CRD"))


def space_to_depth(net: Network, x: str) -> str:
    h, w = net.shape(x)[2:]
    if h < 2 or w < 2:
        return net.add("Identity", x)
    even = net.add("Slice", x, net.ints([0, 0]), net.ints([h // 2 * 2, w // 2 * 2]), net.ints([2, 3]))
    return net.add("SpaceToDepth", even, blocksize=2)
