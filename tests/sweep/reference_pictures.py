"""The reference's ops on images: windows, resizing, normalisation (reference.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from reference import Node, ints, op
from torch import Tensor
from torch.nn import functional

Span = tuple[int, int]


def _padding(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[Span]:
    """What is added in front of and behind each axis."""
    rank = len(sizes)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    mode = node.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.get("pads", [0] * 2 * rank)
        return [(pads[axis], pads[axis + rank]) for axis in range(rank)]
    if mode == "VALID":
        return [(0, 0)] * rank
    found = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        whole = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        small = whole // 2
        found.append((small, whole - small) if mode == "SAME_UPPER" else (whole - small, small))
    return found


def _padded(x: Tensor, spans: Sequence[Span], value: float) -> Tensor:
    return functional.pad(x, [one for span in reversed(spans) for one in span], value=value)


@op("Conv")
def conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    x = _padded(x, _padding(node, x.shape[2:], w.shape[2:]), 0.0)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    settings = {
        name: node.get(short, [1] * rank)
        for name, short in (("stride", "strides"), ("dilation", "dilations"))
    }
    return function(x, w, b, groups=node.get("group", 1), **settings)


@op("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """All that the taps reach, cut (or continued by zeros) to what the pads leave."""
    rank = x.ndim - 2
    ones, zeros = [1] * rank, [0] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[
        rank - 1
    ]
    y = function(x, w, None, stride=strides, groups=node.get("group", 1), dilation=dilations)
    more, pads = node.get("output_padding", zeros), node.get("pads", zeros + zeros)
    spans = [(pads[axis], pads[axis + rank]) for axis in range(rank)]
    wanted, mode = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER") and wanted is None:
        wanted = [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        spans = []
        for axis, size in enumerate(wanted):
            whole = y.shape[axis + 2] + more[axis] - size
            small = whole // 2
            spans.append((small, whole - small) if mode == "SAME_UPPER" else (whole - small, small))
    cut = [(-before, extra - behind) for (before, behind), extra in zip(spans, more, strict=True)]
    y = _padded(y, cut, 0.0)
    return y if b is None else y + b.reshape(-1, *ones)


def _windows(node: Node, x: Tensor, value: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of a pool: windows `(n, c, *out, taps)`; and of each tap whether it is input, or input or declared padding.

    With `ceil_mode` a last window may reach beyond the padding, but not begin there (torch, and opset 22).
    """
    kernel = node.get("kernel_shape")
    rank, sizes = len(kernel), x.shape[2:]
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    spans = _padding(node, sizes, kernel)
    places, inside, declared = [], [], []
    for size, k, s, d, (before, behind) in zip(sizes, kernel, strides, dilations, spans, strict=True):
        room = size + before + behind - d * (k - 1) - 1
        count = (-(-room // s) if node.get("ceil_mode", 0) else room // s) + 1
        if node.get("ceil_mode", 0) and (count - 1) * s >= size + before:
            count -= 1
        place = torch.arange(count)[:, None] * s + torch.arange(k)[None, :] * d
        places.append(place)
        inside.append((place >= before) & (place < before + size))
        declared.append(place < before + size + behind)
    longest = [int(place.max()) + 1 for place in places]
    reach = [
        (before, max(behind, length - size - before))
        for (before, behind), size, length in zip(spans, sizes, longest, strict=True)
    ]
    x = _padded(x, reach, value)
    return _taken(x, places), _all(inside), _all(declared)


def _taken(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    for axis, place in enumerate(places):
        at = 2 + 2 * axis
        x = x.index_select(at, place.reshape(-1)).unflatten(at, tuple(place.shape))
    rank = len(places)
    order = [0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)]
    return x.permute(order).flatten(2 + rank)


def _all(parts: Sequence[Tensor]) -> Tensor:
    """The product over axes, as `(1, 1, *out, taps)`."""
    whole = torch.ones((1, 1, *(part.numel() for part in parts)), dtype=torch.bool)
    for axis, part in enumerate(parts):
        whole = whole & part.reshape([-1 if i == axis + 2 else 1 for i in range(whole.ndim)])
    for axis, part in enumerate(parts):
        whole = whole.unflatten(2 + 2 * axis, tuple(part.shape))
    rank = len(parts)
    order = [0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)]
    return whole.permute(order).flatten(2 + rank)


@op("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor:
    windows, inside, _ = _windows(node, x, -math.inf)
    return torch.where(inside, windows, -math.inf).amax(-1)


@op("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """Over the input's cells, or with `count_include_pad` over those and the declared padding's."""
    windows, inside, declared = _windows(node, x, 0.0)
    counted = declared if node.get("count_include_pad", 0) else inside
    return windows.sum(-1) / counted.sum(-1)


@op("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@op("Pad")
def pad(
    node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    given = ints(pads) or []
    along = [axis % x.ndim for axis in ints(axes) or range(x.ndim)]
    mode = node.get("mode", "constant")
    for place, axis in enumerate(along):
        before, behind = given[place], given[place + len(along)]
        size = x.shape[axis]
        places = np.arange(-before, size + behind)
        if mode == "constant":
            inside = torch.tensor((places >= 0) & (places < size)).reshape([-1] + [1] * (x.ndim - axis - 1))
            fill = 0.0 if value is None else value.reshape(())
            x = torch.where(inside, x.index_select(axis, torch.tensor(places.clip(0, size - 1))), fill)
            continue
        if mode == "reflect":
            around = max(1, 2 * (size - 1))
            places = np.abs((places + size - 1) % around - (size - 1))
        places = {"edge": places.clip(0, size - 1), "wrap": places % size}.get(mode, places)
        x = x.index_select(axis, torch.tensor(places))
    return x


@op("BatchNormalization")
def batch_normalization(node: Node, x: Tensor, scale: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    along = [1, -1] + [1] * (x.ndim - 2)
    scale, b, mean, var = (one.reshape(along) for one in (scale, b, mean, var))
    return (x - mean) / torch.sqrt(var + node.get("epsilon", 1e-5)) * scale + b


def _normalised(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(torch.square(centred).mean(axes, keepdim=True) + epsilon)


@op("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    along = [1, -1] + [1] * (x.ndim - 2)
    normal = _normalised(x, list(range(2, x.ndim)), node.get("epsilon", 1e-5))
    return normal * scale.reshape(along) + b.reshape(along)


@op("LayerNormalization")
def layer_normalization(node: Node, x: Tensor, scale: Tensor, b: Tensor | None = None) -> Tensor:
    axes = list(range(node.get("axis", -1) % x.ndim, x.ndim))
    y = _normalised(x, axes, node.get("epsilon", 1e-5)) * scale
    return y if b is None else y + b


@op("GroupNormalization")
def group_normalization(node: Node, x: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    """Scale and bias: one for each group up to opset 20, one for each channel from 21 on."""
    groups = node.get("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    y = _normalised(parts, [2], node.get("epsilon", 1e-5))
    if node.opset < 21:
        return (y * scale[:, None] + b[:, None]).reshape(x.shape)
    along = [-1] + [1] * (x.ndim - 2)
    return y.reshape(x.shape) * scale.reshape(along) + b.reshape(along)


@op("Resize")
def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """One matrix for each axis: the weights of the input's elements in each of the output's."""
    axes = [axis % x.ndim for axis in node.get("axes", range(x.ndim))]
    # A scale of 0.6 in float32 means 0.6.
    factors = (
        [float(str(np.float32(one))) for one in scales] if scales is not None and scales.numel() else None
    )
    given = ints(sizes)
    if factors is None and node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        wanted = [size / x.shape[axis] for size, axis in zip(given, axes, strict=True)]
        pick = min if node.get("keep_aspect_ratio_policy") == "not_larger" else max
        factors = [pick(wanted)] * len(axes)
        given = [math.floor(x.shape[axis] * factors[0] + 0.5) for axis in axes]
    for place, axis in enumerate(axes):
        size = x.shape[axis]
        out = given[place] if given else math.floor(size * factors[place])
        scale = factors[place] if factors else out / size
        if out == size and scale == 1.0:
            continue
        box = (
            (float(roi[place]), float(roi[place + len(axes)]))
            if roi is not None and roi.numel()
            else (0.0, 1.0)
        )
        matrix = _matrix(node, size, out, scale, box)
        weights, outside = torch.from_numpy(matrix), np.isnan(matrix).any(axis=1)
        y = torch.tensordot(x.movedim(axis, -1), torch.nan_to_num(weights).T, 1)
        if outside.any():
            y = torch.where(torch.tensor(outside), node.get("extrapolation_value", 0.0), y)
        x = y.movedim(-1, axis)
    return x


def _coordinate(node: Node, place: int, size: int, out: int, scale: float, box: tuple[float, float]) -> float:
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "half_pixel":
        return (place + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = out / (scale * size)
        centre = size / 2
        return centre * (1 - adjustment) + (place + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (place + 0.5) / scale - 0.5 if out > 1 else 0.0
    if mode == "align_corners":
        return place * (size - 1) / (out - 1) if out > 1 else 0.0
    if mode == "asymmetric":
        return place / scale
    if mode == "tf_crop_and_resize":
        begin, end = box
        if out > 1:
            return begin * (size - 1) + place * (end - begin) * (size - 1) / (out - 1)
        return 0.5 * (begin + end) * (size - 1)
    raise NotImplementedError(f"the reference has no coordinates '{mode}'")


def _matrix(node: Node, size: int, out: int, scale: float, box: tuple[float, float]) -> np.ndarray:
    matrix = np.zeros((out, size))
    for place in range(out):
        x = _coordinate(node, place, size, out, scale, box)
        if node.get("coordinate_transformation_mode") == "tf_crop_and_resize" and not 0 <= x <= size - 1:
            matrix[place] = np.nan
            continue
        mode = node.get("mode", "nearest")
        if mode == "nearest":
            matrix[place, min(max(_nearest(node, x), 0), size - 1)] = 1.0
            continue
        reach, kernel = (
            (1.0, _triangle) if mode == "linear" else (2.0, _cubic(node.get("cubic_coeff_a", -0.75)))
        )
        shrink = min(1.0, scale) if node.get("antialias", 0) else 1.0
        # As many taps as reach the coordinate; those beyond the edge repeat it, or are left out.
        first = math.floor(x) - math.ceil(reach / shrink) + 1
        last = math.floor(x) + math.ceil(reach / shrink)
        weights = {tap: kernel((tap - x) * shrink) for tap in range(first, last + 1)}
        if node.get("exclude_outside", 0):
            weights = {tap: weight for tap, weight in weights.items() if 0 <= tap < size}
        total = sum(weights.values())
        for tap, weight in weights.items():
            matrix[place, min(max(tap, 0), size - 1)] += weight / total
    return matrix


def _nearest(node: Node, x: float) -> int:
    mode = node.get("nearest_mode", "round_prefer_floor")
    if mode == "floor":
        return math.floor(x)
    if mode == "ceil":
        return math.ceil(x)
    return math.ceil(x - 0.5) if mode == "round_prefer_floor" else math.floor(x + 0.5)


def _triangle(distance: float) -> float:
    return max(0.0, 1.0 - abs(distance))


def _cubic(a: float):
    def kernel(distance: float) -> float:
        d = abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    return kernel
