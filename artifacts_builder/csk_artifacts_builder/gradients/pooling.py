"""Gradient rules of pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, static_shape
from csk_artifacts_builder.gradients.layout import shape_as_tensor
from csk_artifacts_builder.gradients.reductions import at_extremum, spread
from csk_artifacts_builder.gradients.registry import vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


def _static_spatial(node: ir.Node) -> tuple[ir.Value, list[int]]:
    x = node.inputs[0]
    assert x is not None
    sizes = static_shape(x)[2:]
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedOpError(
            f"no gradient rule for '{node.op_type}' on an image of unknown size (node '{node.name}')."
        )
    return x, [int(size) for size in sizes]


@vjp("GlobalAveragePool")
def global_average_pool(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g / (height * width) everywhere"""
    x, sizes = _static_spatial(node)
    return [spread(emit, emit.op("Mul", g, emit.scalar(1.0 / int(np.prod(sizes)))), x)]


@vjp("GlobalMaxPool")
def global_max_pool(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where x = y, shared equally where several are; else 0"""
    x, sizes = _static_spatial(node)
    return [at_extremum(emit, node, x, node.outputs[0], g, range(2, 2 + len(sizes)))]


@vjp("MaxPool")
def max_pool(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g, added up where each window's first maximum was.

    MaxPool's second output is that place as an index into the flattened input (op specification, MaxPool-12),
    so windows may overlap, dilate and be padded.
    """
    x, _ = _static_spatial(node)
    if attribute(node, "storage_order", 0):
        raise UnsupportedOpError(f"no gradient rule for column-major 'MaxPool' (node '{node.name}').")
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    indices = node.outputs[1]
    indices.name = indices.name or f"{node.outputs[0].name}.argmax"
    with emit.behind(node):
        shape = emit.op("Shape", x)
    minus_one = emit.ints(-1)
    # Not by the product of the shape: shape inference follows this, and memory can be predicted.
    flat = emit.op("Reshape", emit.op("ConstantOfShape", shape), minus_one)
    added = emit.op(
        "ScatterElements",
        flat,
        emit.op("Reshape", indices, minus_one),
        emit.op("Reshape", g, minus_one),
        axis=0,
        reduction="add",
    )
    return [emit.op("Reshape", added, shape_as_tensor(emit, x))]


@vjp("AveragePool")
def average_pool(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g / count, added up over the windows that cover each pixel: a transposed depthwise convolution.

    `count` is the window's size, without its padding unless count_include_pad is set; it is the same for every
    image, so it is a constant.
    """
    x, sizes = _static_spatial(node)
    channels = static_shape(x)[1]
    out = [int(size) for size in static_shape(node.outputs[0])[2:]]
    kernel = attribute(node, "kernel_shape")
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    pads = attribute(node, "pads", [0] * 2 * rank)
    if not isinstance(channels, int) or any(d != 1 for d in attribute(node, "dilations", [1] * rank)):
        raise UnsupportedOpError(f"no gradient rule for dilated 'AveragePool' (node '{node.name}').")
    include = bool(attribute(node, "count_include_pad", 0))
    counts = np.ones(())
    for axis in range(rank):
        starts = np.arange(out[axis]) * strides[axis] - pads[axis]
        low = -pads[axis] if include else 0
        high = sizes[axis] + (pads[axis + rank] if include else 0)
        covered = np.minimum(starts + kernel[axis], high) - np.maximum(starts, low)
        counts = np.multiply.outer(counts, covered)
    scaled = emit.op("Mul", g, emit.constant(1.0 / counts[None, None], np.float32, "inverse_count"))
    covered_sizes = [(o - 1) * s + k for o, s, k in zip(out, strides, kernel, strict=True)]
    ones = emit.constant(np.ones((channels, 1, *kernel)), np.float32, "ones")
    full = emit.op("ConvTranspose", scaled, ones, strides=strides, group=channels)
    return [place(emit, full, covered_sizes, sizes, [-p for p in pads[:rank]])]


def place(
    emit: Emitter, value: ir.Value, have: Sequence[int], want: Sequence[int], begin: Sequence[int]
) -> ir.Value:
    """Put a `(N, C, *have)` tensor into a `(N, C, *want)` one of zeros at `begin`, cutting what falls outside."""
    first = [min(max(0, -b), h) for b, h in zip(begin, have, strict=True)]
    last = [max(f, min(h, w - b)) for f, b, h, w in zip(first, begin, have, want, strict=True)]
    axes = [axis for axis in range(len(have)) if first[axis] or last[axis] < have[axis]]
    if axes:
        value = emit.op(
            "Slice",
            value,
            emit.ints(*(first[axis] for axis in axes)),
            emit.ints(*(last[axis] for axis in axes)),
            emit.ints(*(2 + axis for axis in axes)),
        )
    # What lies wholly outside is cut to nothing, and padded with the whole size.
    before = [min(max(0, b), w) for b, w in zip(begin, want, strict=True)]
    after = [w - b - (e - f) for w, b, f, e in zip(want, before, first, last, strict=True)]
    if any(before) or any(after):
        value = emit.op("Pad", value, emit.ints(0, 0, *before, 0, 0, *after))
    return value
