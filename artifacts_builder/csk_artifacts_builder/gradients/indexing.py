"""Gradient rules of ops that take elements out at constant places, repeat them, or cut a tensor into parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.arithmetic import shaped
from csk_artifacts_builder.gradients.registry import vjp, vjp_of_all_outputs
from csk_sdk.errors import UnsupportedOpError

Gradients = Sequence[ir.Value | None]
Positions = NDArray[np.int64]


def _input(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    return x


def _unsupported(node: ir.Node, form: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"no gradient rule for '{node.op_type}' {form} (node '{node.name}'). "
        "Train only later layers with --trainable from:NODE."
    )


def put_back(emit: Emitter, g: ir.Value, rank: int, axis: int, positions: Positions, size: int) -> ir.Value:
    """A tensor of `size` along `axis`, with `g[i]` added at `positions[i]` and zeros elsewhere.

    That is a Gather too: place j takes the g that came from it, or a zero put behind the last one. Places taken
    several times need as many Gathers, added up.
    """
    sources = [np.flatnonzero(positions == place) for place in range(size)]
    nothing = len(positions)
    if min(map(len, sources)) < max(map(len, sources)):
        pads = np.zeros(2 * rank, np.int64)
        pads[rank + axis] = 1
        g = emit.op("Pad", g, emit.constant(pads, np.int64, "pads"))
    total: ir.Value | None = None
    for turn in range(max(map(len, sources))):
        taken = [int(source[turn]) if turn < len(source) else nothing for source in sources]
        part = emit.op("Gather", g, emit.ints(*taken), axis=axis)
        total = part if total is None else emit.op("Add", total, part)
    assert total is not None
    return total


@vjp_of_all_outputs("Split")
def split(emit: Emitter, node: ir.Node, gs: Sequence[ir.Value | None]) -> Gradients:
    """dx = the gradients of the parts, joined; zeros for a part that nobody uses"""
    parts = []
    for position, (y, g) in enumerate(zip(node.outputs, gs, strict=True)):
        if g is None:
            y.name = y.name or f"{node.name}.part{position}"
            with emit.behind(node):
                shape = emit.op("Shape", y)
            g = emit.op("ConstantOfShape", shape)
        parts.append(g)
    return [emit.op("Concat", *parts, axis=attribute(node, "axis", 0)), None]


@vjp("Slice")
def slice_(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g where the slice read, else 0: padding for steps of 1, else elements put back one by one"""
    rest = [constant_array(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(rest, node.inputs[1:], strict=True)):
        raise _unsupported(node, "with computed places")
    starts, ends, axes, steps = rest + [None] * (4 - len(rest))
    assert starts is not None
    assert ends is not None
    shape = static_shape(_input(node))
    rank = len(shape)
    pads = np.zeros(2 * rank, np.int64)
    gradients: list[ir.Value | None] = [None] * len(node.inputs)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (i if axes is None else int(axes[i])) % rank
        step, size = 1 if steps is None else int(steps[i]), shape[axis]
        if not isinstance(size, int):
            if (start, step) == (0, 1) and end >= np.iinfo(np.int32).max:
                continue
            raise _unsupported(node, "along a dynamic axis")
        positions = np.arange(size)[int(start) : int(end) : step]
        if step == 1 and len(positions):
            pads[axis], pads[axis + rank] = positions[0], size - 1 - positions[-1]
        elif len(positions):
            g = put_back(emit, g, rank, axis, positions, size)
        else:
            raise _unsupported(node, "that takes nothing")
    gradients[0] = emit.op("Pad", g, emit.constant(pads, np.int64, "pads")) if pads.any() else g
    return gradients


@vjp("Gather")
def gather(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g added up at the constant indices, else 0"""
    indices, shape = constant_array(node.inputs[1]), static_shape(_input(node))
    axis = int(attribute(node, "axis", 0)) % len(shape)
    size, behind = shape[axis], shape[axis + 1 :]
    if indices is None:
        raise _unsupported(node, "with computed indices")
    if not indices.size:
        raise _unsupported(node, "of nothing")
    if indices.ndim == 0:
        g = emit.op("Unsqueeze", g, emit.ints(axis))
    elif indices.ndim > 1:
        dynamic = [dim for dim in behind if not isinstance(dim, int)]
        if len(dynamic) > 1:
            raise _unsupported(node, "in front of two dynamic axes")
        kept = [dim if isinstance(dim, int) else -1 for dim in behind]
        g = emit.op("Reshape", g, emit.ints(*[0] * axis, indices.size, *kept))
    if not isinstance(size, int):
        return [_scatter(emit, g, _input(node), axis, indices.reshape(-1, *[1] * len(behind))), None]
    positions = indices.ravel().astype(np.int64) % size
    return [put_back(emit, g, len(shape), axis, positions, size), None]


def _scatter(emit: Emitter, g: ir.Value, x: ir.Value, axis: int, places: NDArray[Any]) -> ir.Value:
    """The same for a size that is known at run time only; slower than Gathers."""
    with emit.behind(x.producer()):
        shape = emit.op("Shape", x)
    zeros = emit.op("ConstantOfShape", shape)
    everywhere = emit.op("Expand", emit.constant(places, np.int64, "places"), emit.op("Shape", g))
    return emit.op("ScatterElements", zeros, everywhere, g, axis=axis, reduction="add")


@vjp("Expand")
def expand(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = g, summed over the axes along which x was repeated"""
    if node.outputs[0].shape is None:
        raise _unsupported(node, "to an unknown shape")
    return [shaped(emit, node, g, 0), None]


@vjp("Tile")
def tile(emit: Emitter, node: ir.Node, g: ir.Value) -> Gradients:
    """dx = the sum of the copies' gradients"""
    repeats, shape = constant_array(node.inputs[1]), static_shape(_input(node))
    if repeats is None:
        raise _unsupported(node, "with computed repeats")
    target: list[int] = []
    copies: list[int] = []
    for count, size in zip(repeats, shape, strict=True):
        if count != 1:
            copies.append(len(target))
            target.append(int(count))
        target.append(size if isinstance(size, int) else -1)
    if target.count(-1) > 1:
        raise _unsupported(node, "of two dynamic axes")
    if not copies:
        return [g, None]
    apart = emit.op("Reshape", g, emit.ints(*target))
    return [emit.op("ReduceSum", apart, emit.ints(*copies), keepdims=0), None]
