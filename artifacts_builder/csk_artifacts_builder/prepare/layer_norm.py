"""LayerNormalization so that every declared ONNX Runtime computes it as accurately as the newest.

Up to 1.25 the runtime takes the variance as `mean(x^2) - mean(x)^2` in float32: NaN for a row of equal values, and any
number where the mean is large. Around a mean of 0 that formula is exact enough, so every row is moved there first.

1. LayerNormalization(x) becomes LayerNormalization(x - mean(x)), the same function: `center_layer_norms`.
2. What exporters wrote in basic ops before opset 17 becomes LayerNormalization: the runtime would fuse it into its own,
   with the same fault: `recognise_layer_norms`.
3. LayerNormalization over several axes becomes one over a single axis, between two Reshapes, in the same pass: the
   process ends where 1.17 opens some such graphs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array


def center_layer_norms(model: ir.Model) -> None:
    """Case 1 and 3, in place and once only. Last of all: gradients read the x of the layer itself."""
    emit = Emitter(model.graph)
    for node in list(model.graph):
        x = node.inputs[0] if node.op_type == "LayerNormalization" else None
        if x is None or x.shape is None:
            continue
        axes = list(range(attribute(node, "axis", -1) % len(x.shape), len(x.shape)))
        if _centered(x, axes) is None:
            if len(axes) > 1 and (flat := _flat_parameters(node, axes)) is not None:
                node, x, axes = _over_one_axis(emit, node, flat, axes)
            with emit.before(node):
                mean = emit.op("ReduceMean", x, axes=axes, keepdims=1)
                centered = emit.op("Sub", x, mean)
            assert x.shape is not None
            mean.shape = ir.Shape([1 if axis in axes else size for axis, size in enumerate(x.shape)])
            centered.shape, mean.type, centered.type = x.shape, x.type, x.type
            node.replace_input_with(0, centered)


def _flat_parameters(node: ir.Node, axes: list[int]) -> list[NDArray[np.float32]] | None:
    """Scale, and bias if there is one, as vectors over all normalized elements; None where they are no constants."""
    x = node.inputs[0]
    assert x is not None
    assert x.shape is not None
    sizes = list(x.shape)[axes[0] :]
    arrays = [constant_array(value) for value in node.inputs[1:] if value is not None]
    if not all(isinstance(size, int) for size in sizes) or any(array is None for array in arrays):
        return None
    if any(value.uses() for value in node.outputs[1:]):
        return None
    whole = [int(size) for size in sizes]  # type: ignore[arg-type]
    return [np.broadcast_to(array, whole).reshape(-1) for array in arrays if array is not None]


def _over_one_axis(
    emit: Emitter, node: ir.Node, flat: list[NDArray[np.float32]], axes: list[int]
) -> tuple[ir.Node, ir.Value, list[int]]:
    """Case 3: the same layer between two Reshapes, over one last axis; the new node, its input and its axis."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    assert x.shape is not None
    front = list(x.shape)[: axes[0]]
    zeros = [0] * len(front)
    with emit.before(node):
        long = emit.op("Reshape", x, emit.ints(*zeros, flat[0].size))
        long.shape, long.type = ir.Shape([*front, flat[0].size]), x.type
        parameters = [emit.constant(array, np.float32) for array in flat]
        normal = emit.op(
            "LayerNormalization", long, *parameters, axis=-1, epsilon=attribute(node, "epsilon", 1e-5)
        )
        normal.shape, normal.type = long.shape, x.type
        back = emit.op("Reshape", normal, emit.ints(*zeros, *(int(x.shape[axis]) for axis in axes)))  # type: ignore[arg-type]
    back.shape, back.type = x.shape, x.type
    y.replace_all_uses_with(back, replace_graph_outputs=True)
    emit.graph.remove(node, safe=True)
    made = normal.producer()
    assert made is not None
    return made, long, [len(front)]


def recognise_layer_norms(model: ir.Model) -> bool:
    """Case 2, in place: `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)`, times a scale and plus a bias where
    they follow; True when there was one."""
    emit = Emitter(model.graph)
    modified = False
    for node in list(model.graph):
        found = _standardised(node)
        if found is None:
            continue
        x, axis, epsilon, size = found
        last = node
        scale, last = _applied(last, "Mul", size)
        bias, last = _applied(last, "Add", size)
        ones, zeros = np.ones(size, np.float32), np.zeros(size, np.float32)
        with emit.before(last):
            normal = emit.op(
                "LayerNormalization",
                x,
                scale or emit.constant(ones, np.float32),
                bias or emit.constant(zeros, np.float32),
                axis=axis,
                epsilon=epsilon,
            )
        old = last.outputs[0]
        normal.shape, normal.type = old.shape, old.type
        old.replace_all_uses_with(normal, replace_graph_outputs=True)
        modified = True
    return modified


def _standardised(node: ir.Node) -> tuple[ir.Value, int, float, list[int]] | None:
    """Of `node`, if it divides x - mean(x) by its standard deviation: x, first axis, epsilon, and the axes' sizes."""
    if node.op_type != "Div":
        return None
    centered, deviation = node.inputs
    root = _producer(deviation, "Sqrt")
    total = _producer(root.inputs[0], "Add") if root is not None else None
    if centered is None or centered.shape is None or total is None:
        return None
    variance = next((mean for value in total.inputs if (mean := _producer(value, "ReduceMean"))), None)
    epsilon = next((e for value in total.inputs if (e := constant_array(value)) is not None), None)
    if variance is None or epsilon is None or epsilon.size != 1 or not attribute(variance, "keepdims", 1):
        return None
    rank = len(centered.shape)
    axes = sorted(int(axis) % rank for axis in attribute(variance, "axes", range(rank)))
    sizes = list(centered.shape)[axes[0] :]
    x = _centered(centered, axes)
    if (
        x is None
        or not _squares(variance.inputs[0], x, axes)
        or axes != list(range(axes[0], rank))
        or not all(isinstance(size, int) for size in sizes)
    ):
        return None
    return x, axes[0], float(epsilon.item()), [int(size) for size in sizes]  # type: ignore[arg-type]


def _centered(value: ir.Value, axes: list[int]) -> ir.Value | None:
    """x, where `value` is x minus its mean over `axes`."""
    difference = _producer(value, "Sub")
    mean = _producer(difference.inputs[1], "ReduceMean") if difference is not None else None
    if difference is None or mean is None or mean.inputs[0] is not difference.inputs[0]:
        return None
    x = difference.inputs[0]
    if x is None or x.shape is None or not attribute(mean, "keepdims", 1):
        return None
    rank = len(x.shape)
    return x if sorted(int(axis) % rank for axis in attribute(mean, "axes", range(rank))) == axes else None


def _squares(value: ir.Value | None, x: ir.Value, axes: list[int]) -> bool:
    """Whether `value` is the square of x minus its mean, which may be computed once more for it."""
    power, product = _producer(value, "Pow"), _producer(value, "Mul")
    if power is not None:
        exponent = constant_array(power.inputs[1])
        squared = exponent is not None and bool((exponent == 2).all())
        return squared and _is_centered(power.inputs[0], x, axes)
    return product is not None and all(_is_centered(factor, x, axes) for factor in product.inputs)


def _is_centered(value: ir.Value | None, x: ir.Value, axes: list[int]) -> bool:
    return value is not None and _centered(value, axes) is x


def _applied(node: ir.Node, op_type: str, size: list[int]) -> tuple[ir.Value | None, ir.Node]:
    """The constant of `size` that the only reader of `node` applies with `op_type`, and that reader; else None."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0][0].op_type != op_type:
        return None, node
    reader, position = uses[0]
    constant = reader.inputs[1 - position]
    array = constant_array(constant)
    if array is None or list(array.shape) != size or constant is None or not constant.is_initializer():
        return None, node
    return constant, reader


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None
