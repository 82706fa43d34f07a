"""Which pixels a network takes, where it scales them itself: by what it does with them first.

A division by 255, a mean of 123.7 or a deviation of 58.4 is for pixels of 0 to 255; a mean of 0.485 or a deviation of
0.229 for pixels of 0 to 1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import constant_array

# What a pixel of white is.
BYTES, UNITS = 255.0, 1.0
_MOVES = {
    "Cast",
    "Identity",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Transpose",
    "Unsqueeze",
    "Clip",
    "Gather",
}
_AFFINE = {"Add", "Div", "Mul", "Sub"}
# A network that multiplies by less takes larger numbers than 0..1, and one that subtracts more does, too.
_SMALLEST_FACTOR, _LARGEST_MEAN = 0.1, 2.0


def in_front(model: ir.Model) -> tuple[ir.Node, ...]:
    """What is done to the image before its first layer: scaling, and what moves pixels, one node after another."""
    nodes: list[ir.Node] = []
    value = model.graph.inputs[0]
    while (node := _only_reader(value)) is not None:
        if node.op_type not in _MOVES and (node.op_type not in _AFFINE or _affine(node, value) is None):
            break
        nodes.append(node)
        value = node.outputs[0]
    return tuple(nodes)


def pixel_range(model: ir.Model, bytes_taken: bool) -> float | None:
    """255, 1, or None where the network does not scale pixels itself; `bytes_taken` says that its input is uint8."""
    if bytes_taken:
        return BYTES
    value, factor, shift, scales = model.graph.inputs[0], 1.0, 0.0, False
    for node in in_front(model):
        found = _affine(node, value) if node.op_type in _AFFINE else None
        if found is not None:
            factor, shift, scales = factor * found[0], shift * found[0] + found[1], True
        value = node.outputs[0]
    if not scales or factor == 0:
        return None
    larger = abs(factor) < _SMALLEST_FACTOR or abs(shift / factor) > _LARGEST_MEAN
    return BYTES if larger else UNITS


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = [node for node in value.consumers() if node.op_type != "Shape"]
    return readers[0] if len(readers) == 1 else None


def _affine(node: ir.Node, value: ir.Value) -> tuple[float, float] | None:
    """What `node` multiplies `value` by and adds to it, the mean over channels; None where it is no constant."""
    place = 0 if node.inputs[0] is value else 1
    array = constant_array(node.inputs[1 - place])
    if array is None or not array.size:
        return None
    constant = float(np.mean(array))
    if node.op_type == "Add":
        return 1.0, constant
    if node.op_type == "Mul":
        return constant, 0.0
    if node.op_type == "Sub":
        return (1.0, -constant) if place == 0 else (-1.0, constant)
    return (1 / constant, 0.0) if place == 0 and constant else None
