"""Between convolutions in int8: what can be asked of u8 is not asked of float32 (docs/decisions/0010).

Float32 tensors between them are four times as large, and going over one once takes as long as a convolution.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, constant_array

# What wants channels first and gives them so; and what takes them anywhere, but of all its inputs alike.
_CHANNELS_FIRST = frozenset(
    ("Conv", "ConvTranspose", "Flatten", "Gather", "Gemm", "MatMul", "Pad", "ReduceSum", "Reshape", "Slice")
)
_ELEMENTWISE = frozenset(
    ("Abs", "Add", "And", "Cast", "Clip", "Div", "Greater", "Less", "Max", "Min", "Mul", "Neg", "Relu", "Sub")
)


def read_rounded(graph: ir.Graph) -> None:
    """Let masks, and choices of channels, read u8 tensors in the place of what is made of them.

    The numbers are the same. What is rounded later is left: a mask of a rounded tensor is another one near 0.
    """
    emit = Emitter(graph)
    for node in list(graph):
        if node.op_type not in ("Greater", "Gather") or not is_dequantised(node.inputs[0]):
            continue
        with emit.before(node):
            new = _chosen(emit, node) if node.op_type == "Gather" else _mask(emit, node)
        # An output of the graph keeps its name.
        if new is None or node.outputs[0].is_graph_output():
            continue
        old = node.outputs[0]
        new.shape, new.dtype = old.shape, ir.DataType.FLOAT if node.op_type == "Gather" else ir.DataType.BOOL
        old.replace_all_uses_with(new)


def channels_first(graph: ir.Graph) -> None:
    """Let channels come first while a tensor is u8, where a float32 kernel needs them so.

    The runtime's int8 kernels want them last. It moves the transposition behind DequantizeLinear, and so does it with
    four times the bytes. A Reshape to the shape that is there keeps it in front.
    """
    emit, wanted = Emitter(graph), _wanted(list(graph))
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.outputs[0] not in wanted:
            continue
        made = node.inputs[0]
        source = made.producer() if made is not None else None
        if source is not None and source.op_type in ("QLinearConv", "MaxPool"):
            with emit.before(node):
                node.replace_input_with(0, emit.op("Reshape", made, emit.op("Shape", made)))


def is_dequantised(value: ir.Value | None) -> bool:
    """Whether it is made of integers."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _wanted(nodes: list[ir.Node]) -> set[ir.Value]:
    """All that the runtime must have with channels first, for itself or for what it is computed with."""
    first: set[ir.Value] = set()
    for node in nodes:
        among = node.op_type in _ELEMENTWISE and any(value in first for value in node.inputs)
        if among or node.op_type in _CHANNELS_FIRST:
            first.update(node.outputs)
    wanted: set[ir.Value] = set()
    for node in reversed(nodes):
        among = node.op_type in _ELEMENTWISE and any(y in first or y in wanted for y in node.outputs)
        if among or node.op_type in _CHANNELS_FIRST:
            wanted.update(value for value in node.inputs if value is not None)
    return wanted


def _source(node: ir.Node) -> ir.Node:
    """What makes a node's first input."""
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    assert producer is not None
    return producer


def _mask(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Whether a number is not 0, where all others are above the constant: as Relu ends, and Clip below.

    Comparisons of u8 would do, also for others, but ONNX Runtime 1.17 has none.
    """
    integers, *of = (*_source(node).inputs, node.inputs[1])
    scale, zero, limit = (constant_array(value) for value in of) if len(of) == 3 else (None,) * 3
    if limit is None or scale is None or zero is None or zero.dtype != np.uint8:
        return None
    if not limit.size == scale.size == zero.size == 1:
        return None
    values = (np.arange(2) - int(zero.item())).astype(np.float32) * scale.astype(np.float32)
    if not values[0] <= limit < values[1]:
        return None
    return emit.op("Cast", integers, to=ir.DataType.BOOL)


def _chosen(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Elements are chosen, and then dequantised, not all of them."""
    integers, *how = _source(node).inputs
    # A scale for each channel would have to be chosen, too.
    if any(value is None or value.shape is None or len(value.shape) > 0 for value in how):
        return None
    chosen = emit.op("Gather", integers, node.inputs[1], axis=attribute(node, "axis", 0))
    return emit.op("DequantizeLinear", chosen, *how)
