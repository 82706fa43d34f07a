"""Gradient rules of ops that move elements and do not change them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.registry import needed, vjp
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]


def shape_as_tensor(emit: Emitter, value: ir.Value) -> ir.Value:
    """The shape of `value` as a Reshape target: constant, with -1 for a dynamic batch, or computed."""
    shape = static_shape(value) if value.shape is not None else ("?", "?")
    dynamic = [dim for dim in shape if not isinstance(dim, int)]
    if len(dynamic) <= 1:
        return emit.ints(*(dim if isinstance(dim, int) else -1 for dim in shape))
    return emit.op("Shape", value)


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g in x's shape"""
    x = node.inputs[0]
    assert x is not None
    return [emit.op("Reshape", g, shape_as_tensor(emit, x)), None]


@vjp("Identity", "Dropout")
def identity(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g; dropout does nothing outside training mode"""
    return [g, None, None]


@vjp("Transpose")
def transpose(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g with the inverse permutation"""
    permutation = attribute(node, "perm")
    if permutation is None:
        return [emit.op("Transpose", g)]
    return [emit.op("Transpose", g, perm=[int(axis) for axis in np.argsort(permutation)])]


@vjp("Concat")
def concat(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx_i = the slice of g that came from x_i"""
    axis = int(attribute(node, "axis"))
    gradients: list[ir.Value | None] = []
    start = 0
    for position, value in enumerate(node.inputs):
        assert value is not None
        length = static_shape(value)[axis]
        if not isinstance(length, int):
            raise UnsupportedOpError(
                f"no gradient rule for 'Concat' along a dynamic axis (node '{node.name}')."
            )
        end = start + length
        wanted = needed(node, position)
        gradients.append(
            emit.op("Slice", g, emit.ints(start), emit.ints(end), emit.ints(axis)) if wanted else None
        )
        start = end
    return gradients


@vjp("Pad")
def pad(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = the middle of g, and zeros where negative pads have cut; only constant padding"""
    pads, mode = constant_array(node.inputs[1]), attribute(node, "mode", "constant")
    if pads is None or mode != "constant":
        form = "computed pads" if mode == "constant" else f"mode '{mode}'"
        raise UnsupportedOpError(
            f"no gradient rule for 'Pad' with {form} (node '{node.name}'). "
            "Train only later layers with --trainable from:NODE."
        )
    rank = len(pads) // 2
    added, cut = np.maximum(pads, 0), np.maximum(-pads, 0)
    axes = [axis for axis in range(rank) if added[axis] or added[axis + rank]]
    if axes:
        starts = [int(added[axis]) for axis in axes]
        # A negative end counts from the back; nothing to cut there means "to the end".
        ends = [-int(added[axis + rank]) or np.iinfo(np.int64).max for axis in axes]
        g = emit.op("Slice", g, emit.ints(*starts), emit.ints(*ends), emit.ints(*axes))
    if cut.any():
        g = emit.op("Pad", g, emit.constant(cut, np.int64, "pads"))
    return [g, None, None]


@vjp("DepthToSpace")
def depth_to_space(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g, each block of the image back in its channels, in the order that the mode says"""
    block = int(attribute(node, "blocksize"))
    if attribute(node, "mode", "DCR") == "DCR":
        return [emit.op("SpaceToDepth", g, blocksize=block)]
    x = node.inputs[0]
    assert x is not None
    _, channels, height, width = static_shape(x)
    if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        raise UnsupportedOpError(
            f"no gradient rule for 'DepthToSpace' on an image of unknown size (node '{node.name}'). "
            "Export the model with a fixed image size."
        )
    # (n, c, h, b, w, b) -> (n, c, b, b, h, w)
    blocks = emit.op("Reshape", g, emit.ints(0, channels // block**2, height, block, width, block))
    deep = emit.op("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    return [emit.op("Reshape", deep, emit.ints(0, channels, height, width))]


@vjp("SpaceToDepth")
def space_to_depth(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g, the channels back in their blocks of the image"""
    return [emit.op("DepthToSpace", g, blocksize=int(attribute(node, "blocksize")), mode="DCR")]
