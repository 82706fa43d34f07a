"""The input gradient of a convolution, and of its center branch.

Stride 1: a convolution with the flipped, transposed kernel. Equal strides: one exact-size convolution for each
place in a square of pixels, interleaved. Everything else: ConvTranspose. The kernels are constants, so the runtime
flips and transposes them once, when it opens the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, static_shape
from csk_artifacts_builder.gradients.pooling import place
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_artifacts_builder.sites import Geometry, geometry
from csk_sdk.errors import UnsupportedOpError

_TO_START = int(np.iinfo(np.int64).min)


@vjp("Conv")
def conv(emit: Emitter, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """dx = g correlated with the flipped kernel; the kernel itself is frozen"""
    if needed(node, 1) or (len(node.inputs) > 2 and needed(node, 2)):
        raise UnsupportedOpError(
            f"no gradient rule for 'Conv' with a computed weight or bias (node '{node.name}')."
        )
    weight = node.inputs[1]
    assert weight is not None
    return [input_gradient(emit, g, weight, geometry(node)), None, None]


@vjp("ConvTranspose")
def conv_transpose(emit: Emitter, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """dx = the convolution of g with the same kernel, strides and pads; the kernel itself is frozen"""
    if needed(node, 1) or needed(node, 2):
        raise UnsupportedOpError(
            f"no gradient rule for 'ConvTranspose' with a computed weight or bias (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    kernel = list(static_shape(weight))[2:]
    sizes, out = static_shape(x)[2:], static_shape(node.outputs[0])[2:]
    if not all(isinstance(size, int) for size in (*sizes, *out, *kernel)):
        raise UnsupportedOpError(
            f"no gradient rule for 'ConvTranspose' on an image of unknown size (node '{node.name}'). "
            "Export the model with a fixed image size."
        )
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    given = attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "output_shape") is not None
    # ONNX Runtime refuses padding as wide as the stride too: x would not be what Conv makes of y's size.
    wide = any(p >= s for p, s in zip(attribute(node, "output_padding", []), strides, strict=False))
    if given or wide:
        raise UnsupportedOpError(
            "no gradient rule for 'ConvTranspose' with auto_pad, output_shape or output_padding as wide as the "
            f"stride (node '{node.name}'). Export the model with explicit pads."
        )
    dx = emit.op(
        "Conv",
        g,
        weight,
        strides=strides,
        dilations=attribute(node, "dilations", [1] * rank),
        pads=attribute(node, "pads", [0] * 2 * rank),
        group=attribute(node, "group", 1),
        kernel_shape=kernel,
    )
    return [dx, None, None]


def input_gradient(
    emit: Emitter, g: ir.Value, weight: ir.Value, shape: Geometry, through_center: ir.Value | None = None
) -> ir.Value:
    """dx of a convolution with constant `weight`, plus what a change of its center sends back.

    g `(N, c_out, *out)`, weight `(c_out, c_in / groups, *kernel)`; through_center `(N, c_in, *out)` is, for each
    output, the gradient of what its center tap has read, or None. The result is `(N, c_in, *in)`.
    """
    if set(shape.stride) == {1}:
        dx = _unit_stride(emit, g, weight, shape)
        if through_center is not None:
            dx = emit.op("Add", dx, place(emit, through_center, shape.out_size, shape.in_size, shape.offset))
        return dx
    square = shape.rank == 2 and shape.stride[0] == shape.stride[1]
    if square and set(shape.dilation) == {1}:
        return _by_phases(emit, g, weight, shape, through_center)
    return _transposed(emit, g, weight, shape, through_center)


def _unit_stride(emit: Emitter, g: ir.Value, weight: ir.Value, shape: Geometry) -> ir.Value:
    """Full correlation, cut or padded to the input's size by the convolution's own padding."""
    spans = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel, strict=True)]
    begin = [span - pad for span, pad in zip(spans, shape.pads, strict=False)]
    end = [i + p - o for i, p, o in zip(shape.in_size, shape.pads, shape.out_size, strict=False)]
    pads = [max(0, b) for b in begin] + [max(0, e) for e in end]
    dx = emit.op(
        "Conv",
        g,
        _flip(emit, swap_channels(emit, weight, shape), shape.rank),
        pads=pads,
        dilations=list(shape.dilation),
        group=shape.groups,
        kernel_shape=list(shape.kernel),
    )
    # Padding wider than the kernel's span: the outermost gradients belong to padded zeros, and are cut.
    have = [i + max(0, -b) + max(0, -e) for i, b, e in zip(shape.in_size, begin, end, strict=True)]
    return place(emit, dx, have, shape.in_size, [min(0, b) for b in begin])


def _by_phases(
    emit: Emitter, g: ir.Value, weight: ir.Value, shape: Geometry, through_center: ir.Value | None
) -> ir.Value:
    """Of every `stride` pixels along an axis, the q-th see only the taps `r, r + stride, ...` of the kernel.

    With `r = (q + pad) % stride`. So the pixels of each place in such squares are a small convolution of g, and the
    places are interleaved.
    """
    stride, begins = shape.stride[0], shape.pads[:2]
    squares = [-(-size // stride) for size in shape.in_size]
    swapped = swap_channels(emit, weight, shape)
    places: list[ir.Value | None] = []
    for place_in_square in product(range(stride), repeat=2):
        firsts, taps, before, after = [], [], [], []
        for axis, q in enumerate(place_in_square):
            skipped, first = divmod(q + begins[axis], stride)
            firsts.append(first)
            taps.append(max(0, -(-(shape.kernel[axis] - first) // stride)))
            before.append(taps[-1] - 1 - skipped)
            after.append(skipped + squares[axis] - shape.out_size[axis])
        if 0 in taps:
            places.append(None)
            continue
        kernel = emit.op(
            "Slice",
            swapped,
            emit.ints(*firsts),
            emit.ints(*shape.kernel),
            emit.ints(2, 3),
            emit.ints(stride, stride),
        )
        if max(taps) > 1:
            kernel = _flip(emit, kernel, 2)
        # Gradients that only padding has seen are cut.
        cut = [max(0, -b) for b in before]
        rest = [o - c - max(0, -a) for o, c, a in zip(shape.out_size, cut, after, strict=True)]
        seen = place(emit, g, shape.out_size, rest, [-c for c in cut])
        pads = [max(0, p) for p in (*before, *after)]
        dx = emit.op("Conv", seen, kernel, pads=pads, group=shape.groups, kernel_shape=taps)
        if through_center is not None and place_in_square == tuple(o % stride for o in shape.offset):
            lag = [o // stride for o in shape.offset]
            dx = emit.op("Add", dx, place(emit, through_center, shape.out_size, squares, lag))
        places.append(dx)
    full = _interleaved(emit, places, squares, shape)
    return place(emit, full, [m * stride for m in squares], shape.in_size, [0, 0])


def _interleaved(
    emit: Emitter, places: Sequence[ir.Value | None], squares: Sequence[int], shape: Geometry
) -> ir.Value:
    """The places `(N, c_in, *squares)` of each square of pixels side by side; zeros where there is None.

    Channels last, where an int8 convolution leaves them, each pixel is one piece of memory: DepthToSpace moves
    number by number, and takes eight times as long.
    """
    stride, (height, width), channels = shape.stride[0], squares, shape.channels
    apart = emit.ints(0, height, 1, width, 1, channels)
    pieces = [
        None if one is None else emit.op("Reshape", emit.op("Transpose", one, perm=[0, 2, 3, 1]), apart)
        for one in places
    ]
    lines = [_beside(emit, pieces[row * stride :][:stride], axis=4) for row in range(stride)]
    full = _beside(emit, lines, axis=2)
    assert full is not None
    joined = emit.op("Reshape", full, emit.ints(0, height * stride, width * stride, channels))
    return emit.op("Transpose", joined, perm=[0, 3, 1, 2])


def _beside(emit: Emitter, pieces: Sequence[ir.Value | None], axis: int) -> ir.Value | None:
    """Pieces of size 1 along one of six axes, joined along it; zeros where there is None, None where all are."""
    given = [position for position, piece in enumerate(pieces) if piece is not None]
    if not given:
        return None
    first, last = given[0], given[-1]
    inner = pieces[first : last + 1]
    zeros = emit.op("Mul", inner[0], emit.scalar(0.0)) if None in inner else None
    joined = emit.op("Concat", *(piece or zeros for piece in inner), axis=axis) if inner[1:] else inner[0]
    if len(inner) == len(pieces):
        return joined
    pads = [0] * 12
    pads[axis], pads[6 + axis] = first, len(pieces) - 1 - last
    return emit.op("Pad", joined, emit.ints(*pads))


def _transposed(
    emit: Emitter, g: ir.Value, weight: ir.Value, shape: Geometry, through_center: ir.Value | None
) -> ir.Value:
    spans = [
        (o - 1) * s + d * (k - 1) + 1
        for o, s, d, k in zip(shape.out_size, shape.stride, shape.dilation, shape.kernel, strict=True)
    ]
    full = emit.op(
        "ConvTranspose",
        g,
        weight,
        strides=list(shape.stride),
        dilations=list(shape.dilation),
        group=shape.groups,
        kernel_shape=list(shape.kernel),
    )
    dx = place(emit, full, spans, shape.in_size, [-p for p in shape.pads[: shape.rank]])
    if through_center is None:
        return dx
    spread = emit.op(
        "ConvTranspose",
        through_center,
        emit.constant(np.ones((shape.channels, 1, *[1] * shape.rank)), np.float32, "ones"),
        strides=list(shape.stride),
        group=shape.channels,
        kernel_shape=[1] * shape.rank,
    )
    reached = [(o - 1) * s + 1 for o, s in zip(shape.out_size, shape.stride, strict=True)]
    return emit.op("Add", dx, place(emit, spread, reached, shape.in_size, shape.offset))


def swap_channels(emit: Emitter, kernel: ir.Value, shape: Geometry) -> ir.Value:
    """`(c_out, c_in / groups, ...)` -> `(c_in, c_out / groups, ...)`, group by group."""
    spatial = range(2, 2 + shape.rank)
    if shape.groups == 1:
        return emit.op("Transpose", kernel, perm=[1, 0, *spatial])
    if kernel.shape is not None and kernel.shape[0] == shape.groups == shape.channels:
        return kernel  # depthwise
    per_group = shape.channels // shape.groups
    sizes = emit.op("Shape", kernel, start=2)
    split = emit.op("Concat", emit.ints(shape.groups, -1, per_group), sizes, axis=0)
    joined = emit.op("Concat", emit.ints(shape.channels, -1), sizes, axis=0)
    swapped = emit.op(
        "Transpose", emit.op("Reshape", kernel, split), perm=[0, 2, 1, *(axis + 1 for axis in spatial)]
    )
    return emit.op("Reshape", swapped, joined)


def _flip(emit: Emitter, kernel: ir.Value, rank: int) -> ir.Value:
    axes = range(2, 2 + rank)
    return emit.op(
        "Slice",
        kernel,
        emit.ints(*[-1] * rank),
        emit.ints(*[_TO_START] * rank),
        emit.ints(*axes),
        emit.ints(*[-1] * rank),
    )
