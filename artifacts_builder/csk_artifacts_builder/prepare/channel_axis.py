"""Which axis of the input holds the channels: the one that the first convolution reads as its axis 1.

Ops in front of it may scale, cut, mix and rearrange pixels, as long as each axis stays where it is; a Transpose is
followed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute, called, constant_array
from csk_artifacts_builder.prepare.composites import einsum_order
from csk_sdk.errors import ModelError

# Numbers change, one by one; axes do not. Of two operands each may be the image.
_ELEMENTWISE = {"Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Exp", "Floor", "Identity", "Log", "Max", "Min"}
_ELEMENTWISE |= {"Mul", "Neg", "Pow", "Reciprocal", "Round", "Sqrt", "Sub"}
# Pixels and channels are left out, repeated or put in another order; axes are not.
_REARRANGING = {"Pad", "Resize", "Slice", "Split", "Tile"}
_REDUCING = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
# Ops in front of or instead of a first convolution, which read the channels from axis 1.
_CHANNELS_FIRST = {"Conv", "Pad", "BatchNormalization", "Unsqueeze"}
# What is behind these is no longer the image.
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_CHANNELS_OF_PICTURES = (1, 3, 4)

_Order = tuple[int, ...]


def is_channels_last(image: ir.Value) -> bool:
    """Whether an input `(n, a, b, c)` or `(n, a, b)` has its channels at the end.

    It does where the graph moves its last axis behind the batch, by a Transpose, an Einsum that is one, or a Reshape
    of one channel, before anything else is done that depends on the order of axes. A convolution reads its channels
    from axis 1.
    """
    return any(_takes_last(image, node, order) for node, order in _readers(image))


def require_known_layout(image: ir.Value, where: str) -> None:
    """Raise ModelError for what looks like a picture with its channels last, and is turned in a way not followed.

    Taken for channels first, it would be learned as a picture of as many channels as it has rows.
    """
    assert image.shape is not None
    rows, last = image.shape[1], image.shape[-1]
    if len(image.shape) != 4 or last not in _CHANNELS_OF_PICTURES or rows in (1, 2, 3, 4):
        return
    ends = list(_readers(image))
    first = any(node.op_type == "Conv" and order[1] == 1 for node, order in ends)
    if first or any(_takes_last(image, node, order) for node, order in ends):
        return
    turning = next((node for node in _ahead(image) if _moves_last_axis(node)), None)
    if turning is not None:
        raise ModelError(
            f"{where}: input '{image.name}' {image.shape} looks like an image with its channels last, but what is done "
            f"to it in front of '{called(turning)}' ({turning.op_type}) cannot be followed. Export the model with "
            "(batch, channels, height, width) input."
        )


def adds_its_batch(image: ir.Value) -> bool:
    """Whether an input of three axes is one image, which the graph makes a batch of itself."""
    assert image.shape is not None
    if len(image.shape) != 3:
        return False
    for node, _ in _readers(image):
        target = constant_array(node.inputs[1]) if node.op_type in ("Reshape", "Unsqueeze") else None
        if target is None:
            continue
        if node.op_type == "Unsqueeze" and not {0, -4}.isdisjoint(target.tolist()):
            return True
        one = isinstance(image.shape[0], int) and image.shape[0] != 1
        if node.op_type == "Reshape" and one and len(target) == 4 and target[0] == 1:
            return True
    return False


def _takes_last(image: ir.Value, node: ir.Node, order: _Order) -> bool:
    """Whether `node`, which reads the image's axes in this order, takes the last of them as the channels."""
    assert image.shape is not None
    last = len(order) - 1
    perm = _perm(node)
    if perm is not None:
        # Of three axes the swap is its own inverse, and a layer norm or a matrix product wants the channels last.
        behind = {user.op_type for user in node.outputs[0].consumers()}
        return _turned(order, perm) == _moved(last) and (last == 3 or bool(behind & _CHANNELS_FIRST))
    if node.op_type == "Reshape" and image.shape[-1] == 1:
        target = constant_array(node.inputs[1])
        whole = [image.shape[axis] for axis in _moved(last)[1:]]
        return target is not None and (
            list(target[1:]) == whole or _puts_one_first(node.inputs[0], target, order)
        )
    return node.op_type == "Conv" and order[1] == last


def _puts_one_first(x: ir.Value | None, target: NDArray[np.int64], order: _Order) -> bool:
    """Whether a Reshape moves the one channel of an image that was cut or padded behind the batch."""
    if order != tuple(range(len(order))) or len(target) != len(order) or target[1] != 1 or 1 in target[2:]:
        return False
    sizes = list(x.shape)[1:-1] if x is not None and x.shape is not None else [None] * (len(order) - 2)
    pairs = zip(target[2:], sizes, strict=True)
    return all(wanted < 1 or not isinstance(size, int) or wanted == size for wanted, size in pairs)


def _readers(image: ir.Value) -> Iterator[tuple[ir.Node, _Order]]:
    """The nodes at which following the image's axes ends, each with their order in what it reads."""
    assert image.shape is not None
    rank = len(image.shape)
    waiting: list[tuple[ir.Value, _Order]] = [(image, tuple(range(rank)))]
    seen = {image}
    while waiting:
        value, order = waiting.pop()
        for node in value.consumers():
            behind = _order_behind(node, value, order)
            if behind is None or behind == _moved(rank - 1):
                yield node, order
                continue
            waiting += [(output, behind) for output in node.outputs if output not in seen]
            seen.update(node.outputs)


def _order_behind(node: ir.Node, value: ir.Value, order: _Order) -> _Order | None:
    """The order of the axes in what `node` makes of `value`; None where they are not followed."""
    perm = _perm(node)
    if perm is not None:
        return _turned(order, perm)
    return order if _keeps_axes(node, value, len(order)) else None


def _keeps_axes(node: ir.Node, value: ir.Value, rank: int) -> bool:
    """Whether each axis of `value` is the same axis of what `node` makes of it."""
    if node.op_type in _ELEMENTWISE:
        arrays = [constant_array(operand) for operand in node.inputs]
        return all(array is None or array.ndim <= rank for array in arrays)
    if node.op_type == "Concat":
        return True
    if node.inputs[0] is not value:
        return False
    if node.op_type in _REDUCING:
        return bool(attribute(node, "keepdims", 1))
    other = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Gather":
        return other is not None and other.ndim == 1
    if node.op_type == "Expand":
        return other is not None and len(other) <= rank
    if node.op_type == "MatMul":  # one color made of the others
        return other is not None and other.ndim == 2 and max(other.shape) <= max(_CHANNELS_OF_PICTURES)
    return node.op_type in _REARRANGING


def _perm(node: ir.Node) -> list[int] | None:
    """The order in which a node puts the axes of its only input; None where it does anything else."""
    if node.op_type == "Einsum":
        return einsum_order(node)
    perm: list[int] | None = attribute(node, "perm") if node.op_type == "Transpose" else None
    return perm


def _turned(order: _Order, perm: list[int]) -> _Order:
    return tuple(order[axis] for axis in perm)


def _moved(last: int) -> _Order:
    """The order that has the last axis behind the batch, and the others as they were."""
    return 0, last, *range(1, last)


def _moves_last_axis(node: ir.Node) -> bool:
    perm = _perm(node)
    return perm is not None and perm[-1] != len(perm) - 1


def _ahead(image: ir.Value) -> Iterator[ir.Node]:
    """What is computed of the image in front of its first layers."""
    waiting, seen = [image], set()
    while waiting:
        for node in waiting.pop().consumers():
            if node.op_type not in _LAYERS and node not in seen:
                seen.add(node)
                yield node
                waiting += node.outputs
