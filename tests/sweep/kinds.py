"""What the sweep draws: for each op with a gradient rule a function that adds it to a network in a random form.

Each takes a network and the name of a 4-d tensor `(n, c, h, w)`, and returns the name of what the op made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from nodes import Network

Kind = Callable[[Network, str], str]


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


def _spans(net: Network, sizes: tuple[int, ...], kernel: list[int], most: int | None = None) -> list[int]:
    """Pads of a window, never as wide as the window."""
    pads = [net.integer(0, min(k - 1, 2 if most is None else most)) for k in kernel]
    return pads + (pads if net.coin() else [net.integer(0, min(k - 1, 2)) for k in kernel])


def _window(net: Network, x: str, least: int = 1) -> dict:
    sizes = net.shape(x)[2:]
    kernel = [net.integer(least, min(3, size)) for size in sizes]
    strides = [net.integer(1, 3) for _ in sizes] if net.coin() else [net.integer(1, 2)] * 2
    found: dict = {"kernel_shape": kernel, "strides": strides}
    form = net.integer(0, 3)
    if form == 0:
        found["auto_pad"] = net.one_of("SAME_UPPER", "SAME_LOWER", "VALID")
    elif form < 3:
        found["pads"] = _spans(net, sizes, kernel)
    return found


def _dilated(net: Network, x: str, found: dict) -> dict:
    sizes = net.shape(x)[2:]
    pads = found.get("pads", [0] * 4)
    fits = all(
        2 * (k - 1) + 1 <= size + pads[i]
        for i, (k, size) in enumerate(zip(found["kernel_shape"], sizes, strict=False))
    )
    if fits and net.coin():
        found["dilations"] = [2, 2]
    return found


def convolution(net: Network, x: str) -> str:
    channels = net.shape(x)[1]
    group = net.one_of(*[g for g in (1, 2, 3, 4) if channels % g == 0])
    made = group * net.integer(1, 2)
    window = _dilated(net, x, _window(net, x))
    w = net.normal(made, channels // group, *window["kernel_shape"], scale=0.5)
    return net.add("Conv", x, w, *([net.normal(made)] if net.coin() else []), group=group, **window)


def transposed(net: Network, x: str) -> str:
    channels = net.shape(x)[1]
    group = net.one_of(*[g for g in (1, 2, 3, 4) if channels % g == 0])
    kernel = [net.integer(1, 3), net.integer(1, 3)]
    strides = [net.integer(1, 3), net.integer(1, 3)]
    attributes: dict = {"strides": strides, "group": group, "dilations": [net.integer(1, 2)] * 2}
    form = net.integer(0, 3)
    if form == 0:
        attributes["output_padding"] = [net.integer(0, s - 1) for s in strides]
    if form == 1:
        attributes["pads"] = [net.integer(0, (k - 1) // 2) for k in kernel * 2]
    if form == 2:
        attributes["auto_pad"] = net.one_of("SAME_UPPER", "SAME_LOWER")
        attributes["dilations"] = [1, 1]
        attributes["strides"] = [min(k, s) for k, s in zip(kernel, strides, strict=False)]
    w = net.normal(channels, net.integer(1, 2), *kernel, scale=0.5)
    rows = group * net.constants[w].shape[1]
    return net.add("ConvTranspose", x, w, *([net.normal(rows)] if net.coin() else []), **attributes)


def _ceil(net: Network, x: str, window: dict) -> int | None:
    """Whether to round up. Below opset 22 nobody says what a last window that begins in the padding is."""
    if "auto_pad" in window or not net.coin():
        return None
    pads, dilations = window.get("pads", [0] * 4), window.get("dilations", [1] * 2)
    for axis, (size, k, s) in enumerate(
        zip(net.shape(x)[2:], window["kernel_shape"], window["strides"], strict=True)
    ):
        before, behind = pads[axis], pads[axis + 2]
        count = -(-(size + before + behind - dilations[axis] * (k - 1) - 1) // s) + 1
        if (count - 1) * s >= size + before and net.opset < 22:
            return None
    return 1


def max_pool(net: Network, x: str) -> str:
    window = _dilated(net, x, _window(net, x))
    return net.add("MaxPool", x, ceil_mode=_ceil(net, x, window), **window)


def average_pool(net: Network, x: str) -> str:
    window = _window(net, x)
    if net.opset >= 19:
        window = _dilated(net, x, window)
    ceil = _ceil(net, x, window)
    return net.add("AveragePool", x, ceil_mode=ceil, count_include_pad=net.one_of(None, 1), **window)


def pad(net: Network, x: str) -> str:
    if net.opset >= 18 and net.coin():
        axes = net.one_of([2, 3], [-1], [3, 2], [1])
        pads = [net.integer(0, 2) for _ in range(2 * len(axes))]
        value = net.constant(net.number(-1, 1)) if net.coin() else ""
        return net.add("Pad", x, net.ints(pads), value, net.ints(axes))
    pads = [
        0,
        net.integer(0, 1),
        net.integer(0, 2),
        net.integer(0, 2),
        0,
        0,
        net.integer(0, 2),
        net.integer(0, 2),
    ]
    value = [net.constant(net.number(-1, 1))] if net.coin() else []
    return net.add("Pad", x, net.ints(pads), *value)


def resized(net: Network, x: str) -> str:
    h, w = net.shape(x)[2:]
    mode = net.one_of("nearest", "linear", "cubic")
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    coordinates += ["half_pixel_symmetric"] if net.opset >= 19 else []
    attributes: dict = {"mode": mode, "coordinate_transformation_mode": net.one_of(*coordinates)}
    if mode == "nearest":
        attributes["nearest_mode"] = net.one_of(
            None, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"
        )
    if mode == "cubic":
        attributes["cubic_coeff_a"] = net.one_of(None, -0.5)
        attributes["exclude_outside"] = net.one_of(None, 1)
    if net.opset >= 18 and mode != "nearest":
        attributes["antialias"] = net.one_of(None, None, 1)
    roi = "" if net.opset >= 13 else net.constant(np.zeros(0))
    if net.coin():
        sizes = [net.integer(1, 2 * h), net.integer(1, 2 * w)]
        if net.opset >= 18 and net.coin():
            return net.add("Resize", x, roi, "", net.ints(sizes), axes=[2, 3], **attributes)
        # The batch is free, so that its size is read from the graph: as exporters write it.
        head = net.add("Slice", net.add("Shape", x), net.ints([0]), net.ints([2]), net.ints([0]))
        scales = "" if net.opset >= 13 else net.constant(np.zeros(0))
        return net.add(
            "Resize", x, roi, scales, net.add("Concat", head, net.ints(sizes), axis=0), **attributes
        )
    factors = [net.one_of(0.5, 2.0, 1.0, 3.0, 0.6, 1.3, 2.5) for _ in range(2)]
    factors = [
        1.0 if int(size * factor) < 1 else factor for size, factor in zip((h, w), factors, strict=False)
    ]
    return net.add("Resize", x, roi, net.constant([1.0, 1.0, *factors]), **attributes)


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


def batch_norm(net: Network, x: str) -> str:
    c = net.shape(x)[1]
    given = [net.normal(c), net.normal(c), net.normal(c), net.constant(net.rng.uniform(0.3, 2.0, c))]
    return net.add("BatchNormalization", net.add("Tanh", x), *given, epsilon=net.one_of(None, 0.01))


def instance_norm(net: Network, x: str) -> str:
    c = net.shape(x)[1]
    return net.add("InstanceNormalization", x, net.normal(c), net.normal(c), epsilon=net.one_of(0.01, 0.1))


def layer_norm(net: Network, x: str) -> str:
    axis = net.one_of(1, 2, 3, -1, -2)
    shape = net.shape(x)[axis:]
    bias = [net.normal(*shape)] if net.coin() else []
    return net.add(
        "LayerNormalization", x, net.normal(*shape), *bias, axis=axis, epsilon=net.one_of(0.01, 0.1)
    )


def group_norm(net: Network, x: str) -> str:
    c = net.shape(x)[1]
    groups = net.one_of(*[g for g in (1, 2, 3, 4) if c % g == 0])
    count = groups if net.opset < 21 else c
    return net.add(
        "GroupNormalization", x, net.normal(count), net.normal(count), num_groups=groups, epsilon=0.05
    )


KINDS: dict[str, Kind] = {
    **{
        op: partial(unary, op)
        for op in (
            "Sigmoid",
            "Tanh",
            "Softplus",
            "Erf",
            "Exp",
            "Neg",
            "Identity",
            "Dropout",
            "Relu",
            "Abs",
            "Softsign",
        )
    },
    **{op: partial(unary, op) for op in ("GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Mish")},
    **{op: partial(of_positive, op) for op in ("Log", "Sqrt", "Reciprocal")},
    "LeakyRelu": partial(sloped, "LeakyRelu", alpha=(0.01, 0.5)),
    "Elu": partial(sloped, "Elu", alpha=(0.3, 1.5)),
    "Celu": partial(sloped, "Celu", alpha=(0.3, 1.5)),
    "Selu": partial(sloped, "Selu", alpha=(0.5, 1.7), gamma=(0.5, 1.2)),
    "HardSigmoid": partial(sloped, "HardSigmoid", alpha=(0.15, 0.4), beta=(0.3, 0.6)),
    "Gelu": lambda net, x: net.add("Gelu", x, approximate=net.one_of(None, "none", "tanh")),
    "Clip": clip,
    "PRelu": prelu,
    **{op: partial(binary, op) for op in ("Add", "Sub", "Mul")},
    "Div": divided,
    "Pow": power,
    **{op: partial(many, op) for op in ("Max", "Min", "Sum")},
    "Where": where,
    **{op: partial(softmax, op) for op in ("Softmax", "LogSoftmax")},
    "Conv": convolution,
    "ConvTranspose": transposed,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Pad": pad,
    "Resize": resized,
    **{
        op: partial(reduced, op)
        for op in (
            "ReduceMean",
            "ReduceSum",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
        )
    },
    "Gemm": gemm,
    "MatMul": matmul,
    "Reshape": reshaped,
    "Flatten": flattened,
    "Transpose": transposition,
    "Squeeze": squeezed,
    "Unsqueeze": unsqueezed,
    "Concat": joined,
    "Split": parted,
    "Slice": sliced,
    "Gather": gathered,
    "Tile": tiled,
    "Expand": expanded,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
}
# The first opset that has them.
SINCE = {
    "HardSwish": 14,
    "Mish": 18,
    "Celu": 12,
    "Gelu": 20,
    "LayerNormalization": 17,
    "GroupNormalization": 21,
}
# Drawn more often: they have the most attributes.
OFTEN = {
    "MaxPool": 6,
    "AveragePool": 6,
    "Pad": 4,
    "Resize": 8,
    "Conv": 4,
    "ConvTranspose": 4,
    "Slice": 2,
    "MatMul": 2,
}
# What stands in front of the op, or behind it: runtimes fuse such pairs.
NEIGHBOURS = (
    "Relu",
    "Clip",
    "Add",
    "Mul",
    "Pad",
    "MaxPool",
    "AveragePool",
    "Conv",
    "Transpose",
    "Sigmoid",
    "Concat",
)
