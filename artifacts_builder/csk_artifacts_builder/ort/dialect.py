"""Ops that onnxruntime-training 1.19.2 has no right gradient for, in ops that it has one for.

Only where both are the same function: the artifacts' loss is checked against the model's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx_ir as ir
import onnx_ir.convenience as convenience
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.arithmetic import constant_zeros, is_zero
from csk_artifacts_builder.gradients.reductions import reduced_axes
from csk_artifacts_builder.ort.missing import MISSING, Rewrite, between, like


def speak_ort(model: ir.Model, trained: Collection[str]) -> ir.Model:
    """The same model, rewritten in place behind the tensors `trained`; its nodes and values are named, and stay so.

    After every other pass: one of them would drop outputs that only the gradient reads.
    """
    emit = Emitter(model.graph)
    for node in nodes_behind(model.graph, [model.graph.initializers[name] for name in trained]):
        rewrite = REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rewrite is not None:
            with emit.before(node):
                outputs = rewrite(emit, node)
            if outputs is not None:
                pairs = [(y, new) for y, new in zip(node.outputs, outputs, strict=False) if new is not None]
                convenience.replace_nodes_and_values(
                    model.graph, node, [node], [], [y for y, _ in pairs], [new for _, new in pairs]
                )
    for node in model.graph:
        if node.op_type in ("Add", "Mul"):
            _own_vectors(emit, node)
    passes.NameFixPass()(model)
    return model


def nodes_behind(graph: ir.Graph, values: Iterable[ir.Value]) -> list[ir.Node]:
    """The nodes that read something made of `values`, in order."""
    active = set(values)
    nodes = []
    for node in graph:
        if any(value in active for value in node.inputs):
            active.update(node.outputs)
            nodes.append(node)
    return nodes


def _own_vectors(emit: Emitter, node: ir.Node) -> None:
    """Scale and bias of a layer normalization written in parts, which the package makes one node of: see below."""
    for position, value in enumerate(node.inputs):
        if value is not None and value.shape is not None and len(value.shape) == 1:
            own = _own(emit, value)
            if own is not value:
                node.replace_input_with(position, own)


def _layer_normalization(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """The same with its optional outputs, which the gradient reads: mean and 1 / standard deviation.

    And with a bias, which it asks for, and both of its own: the package derives their gradients even where they are
    frozen, and stumbles over a second gradient of the same tensor.
    """
    attributes = {name: value.value for name, value in node.attributes.items()}
    inputs = [node.inputs[0], *(_own(emit, value) for value in node.inputs[1:])]
    scale = inputs[1]
    if len(inputs) < 3 and scale is not None:
        sizes = [int(size) for size in static_shape(scale)]
        inputs.append(emit.initializer(np.zeros(sizes, np.float32), f"{node.outputs[0].name}.bias"))
    outputs = list(emit.ops("LayerNormalization", *inputs, outputs=3, **attributes))
    for value in outputs:
        value.dtype = ir.DataType.FLOAT
    return [like(node, outputs[0]), *outputs[1:]]


def _own(emit: Emitter, value: ir.Value | None) -> ir.Value | None:
    """A copy of a constant that other nodes read too."""
    array = constant_array(value)
    if value is None or array is None or len(value.uses()) == 1:
        return value
    number = 1
    while f"{value.name}.{number}" in emit.graph.initializers:
        number += 1
    return emit.initializer(array, f"{value.name}.{number}")


def _average_pool(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """A sum by a depthwise convolution with ones, divided by how many pixels each sum has.

    AveragePoolGrad of 1.19.2 gives an empty gradient where the batch is free.
    """
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    channels, *sizes = (int(dim) for dim in static_shape(x)[1:])
    counts = np.ones(())
    kernel = list(attribute(node, "kernel_shape"))
    rank = len(kernel)
    strides, given = attribute(node, "strides", [1] * rank), attribute(node, "pads", [0] * 2 * rank)
    begins, ends = given[:rank], []
    for axis, (size, out) in enumerate(zip(sizes, static_shape(y)[2:], strict=True)):
        first = np.arange(int(out))[:, None] * strides[axis] - begins[axis]
        taps = first + np.arange(kernel[axis])
        # Pixels that only rounding up has added are never counted.
        padded = (begins[axis], given[rank + axis]) if attribute(node, "count_include_pad", 0) else (0, 0)
        counts = np.multiply.outer(counts, ((taps >= -padded[0]) & (taps < size + padded[1])).sum(axis=1))
        ends.append(max(0, int(taps.max()) + 1 - size))
    ones = emit.constant(np.ones((channels, 1, *kernel)), np.float32, "ones")
    summed = emit.op(
        "Conv", x, ones, kernel_shape=kernel, strides=list(strides), pads=[*begins, *ends], group=channels
    )
    return [like(node, emit.op("Mul", like(node, summed), emit.constant(1.0 / counts, np.float32, "shares")))]


def _clip(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """With gradient 0 at the bounds."""
    x, low, high = (node.inputs[i] if len(node.inputs) > i else None for i in range(3))
    assert x is not None
    clipped = between(emit, node, x, low, high)
    return [clipped if clipped is not x else like(node, emit.op("Identity", x))]


def _split(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    """Slices: SplitGrad of 1.19.2 writes the gradient into wrong places where a part is not used."""
    axis = int(attribute(node, "axis", 0))
    sizes = [static_shape(y)[axis] for y in node.outputs]
    if not all(isinstance(size, int) for size in sizes):
        return None
    parts: list[ir.Value | None] = []
    start = 0
    for y, size in zip(node.outputs, sizes, strict=True):
        end = start + int(size)
        used = y.uses() or y.is_graph_output()
        parts.append(_cut(emit, node, y, [start, end, axis, 1]) if used else None)
        start = end
    return parts


def _cut(emit: Emitter, node: ir.Node, y: ir.Value, place: list[int]) -> ir.Value:
    """A Slice along one axis, said with another one that is left whole.

    The package makes a Split of slices that together leave nothing out, and its gradient is wrong where one of them is
    only compared.
    """
    x = node.inputs[0]
    assert x is not None
    shape = static_shape(x)
    others = [axis for axis in range(len(shape)) if axis != place[2] % len(shape)]
    whole = [
        0,
        np.iinfo(np.int64).max,
        max(others, key=lambda axis: isinstance(shape[axis], int), default=0),
        1,
    ]
    lines = [place, whole] if others else [place]
    made = emit.op("Slice", x, *(emit.ints(*column) for column in zip(*lines, strict=True)))
    made.shape, made.dtype = y.shape, ir.DataType.FLOAT
    return made


def _where(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """Of values expanded to its shape: WhereGrad of 1.19.2 does not add up over the places that a value went to."""
    condition, *values = node.inputs
    y = node.outputs[0]
    narrow = [value for value in values if constant_array(value) is None and not _same_shape(value, y)]
    if not narrow:
        return None
    whole = next((value for value in node.inputs if _same_shape(value, y)), None)
    shape = emit.op("Shape", whole if whole is not None else emit.op("Where", *node.inputs))
    wide = [like(node, emit.op("Expand", value, shape)) if value in narrow else value for value in values]
    return [like(node, emit.op("Where", condition, *wide))]


def _extremum(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """`max(x, 0)` as `relu(x)`, and `min(x, 0)` as `-relu(-x)`: MaxGrad and MinGrad of 1.19.2 are a half at 0.

    Of constants that are 0 in some places: there `relu(max(x, c))`, which is the same number.
    """
    places = constant_zeros(node)
    zeros = [x for x in node.inputs if is_zero(x)]
    others = [x for x in node.inputs if not is_zero(x)]
    if places is None or not others:
        return None
    x = others[0] if len(others) == 1 else emit.op(node.op_type, *others)
    assert x is not None
    if zeros and not _same_shape(others[0], node.outputs[0]):
        for zero in zeros:
            x = emit.op("Add", x, zero)
    bent = like(node, emit.op("Relu", x)) if node.op_type == "Max" else _negative_part(emit, node, x)
    if zeros:
        return [bent]
    return [like(node, emit.op("Where", emit.constant(places, np.bool_, "zeros"), bent, like(node, x)))]


def _negative_part(emit: Emitter, node: ir.Node, x: ir.Value) -> ir.Value:
    return like(node, emit.op("Neg", like(node, emit.op("Relu", like(node, emit.op("Neg", x))))))


def _power(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """With exponents of float32, and x in the shape of the result.

    PowGrad of 1.19.2 subtracts an integer from a float, and does not add up over the places that x went to.
    """
    x, array = node.inputs[0], constant_array(node.inputs[1])
    if array is None or (array.dtype == np.float32 and _same_shape(x, node.outputs[0])):
        return None
    if not _same_shape(x, node.outputs[0]):
        x = like(node, emit.op("Mul", x, emit.constant(np.ones(array.shape), np.float32, "ones")))
    return [like(node, emit.op("Pow", x, emit.constant(array, np.float32, "exponent")))]


def _reduce_l2(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """With its axes kept, and taken away then: without them, ReduceL2Grad of 1.19.2 is no valid graph."""
    if attribute(node, "keepdims", 1):
        return None
    axes = reduced_axes(node)
    kept = emit.op("ReduceL2", node.inputs[0], axes=axes, keepdims=1)
    return [like(node, emit.op("Squeeze", kept, emit.ints(*axes)))]


def _slice(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """A Gather for each axis, where one is read backwards, where SliceGrad of 1.19.2 fails; else as a Split's part."""
    x, places = node.inputs[0], [constant_array(value) for value in node.inputs[1:]]
    known = [array.tolist() for array in places if array is not None]
    if x is None or x.dtype != ir.DataType.FLOAT or len(known) < len(places) or len(known) < 3:
        return None
    cuts = list(zip(*known, *([[1] * len(known[0])] if len(known) < 4 else []), strict=True))
    if all(step > 0 for *_, step in cuts):
        return [_cut(emit, node, node.outputs[0], list(cuts[0]))] if len(cuts) == 1 else None
    shape = static_shape(x)
    for start, end, axis, step in cuts:
        size = shape[axis]
        if not isinstance(size, int):
            return None
        until = None if end < -size else end  # behind the first element, backwards
        x = emit.op("Gather", x, emit.ints(*range(size)[start:until:step]), axis=axis)
    return [like(node, x)]


def _transpose(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """With its order written out, which TransposeGrad of 1.19.2 wants."""
    if "perm" in node.attributes or node.inputs[0] is None:
        return None
    rank = len(static_shape(node.inputs[0]))
    return [like(node, emit.op("Transpose", node.inputs[0], perm=list(range(rank))[::-1]))]


def _same_shape(value: ir.Value | None, y: ir.Value) -> bool:
    return value is not None and value.shape is not None and value.shape == y.shape


REWRITES: dict[str, Rewrite] = {
    **MISSING,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "LayerNormalization": _layer_normalization,
    "Max": _extremum,
    "Min": _extremum,
    "Pow": _power,
    "ReduceL2": _reduce_l2,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "Where": _where,
}
