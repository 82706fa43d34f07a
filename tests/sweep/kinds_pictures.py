"""Ops on images: windows, sizes, normalisation: forms that the sweep draws (kinds.py)."""

from __future__ import annotations

import numpy as np
from nodes import Network


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
