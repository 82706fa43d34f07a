"""A quantised file as the float model that it stands for, so that all behind it works as for any other.

Weights and biases become float32, which holds each of their numbers exactly. Activations that are rounded to a grid of
integers are held within its ends, and not rounded: what the ends cut off is part of the network (a Relu, mostly, which
quantisers leave out because the range says it), and the rounding in between is noise
(docs/decisions/0031-quantised-models.md). The scores at the end of the graph have no range: new classes have others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir
import onnx_ir.passes.common as passes

from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.prepare.quantized_ending import float_outputs, loosen_ending
from csk_artifacts_builder.prepare.quantized_ops import DYNAMIC, FEW_BITS, QOPERATORS, fold_scale
from csk_artifacts_builder.prepare.quantized_values import MICROSOFT, Grid, Values

QDQ, QOPERATOR, DYNAMIC_STYLE, WEIGHTS = "QDQ", "QOperator", "dynamic", "weights only"
_STANDARD = ("", "ai.onnx")
_OPS = {"QuantizeLinear", "DequantizeLinear", *QOPERATORS, *DYNAMIC, *FEW_BITS}
# These move integers, or choose among them, as they would the numbers that these stand for.
_MOVES = {
    *("Concat", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze", "ArgMax", "TopK"),
}  # fmt: skip
# How many of their outputs are no labels.
_LABELS = {"ArgMax": 0, "TopK": 1}


@dataclass(frozen=True)
class Quantised:
    """How a file is quantised: its style, whether kernels have a scale for each channel, and their grids by name.

    `ends` are the grids of activations, by the two numbers that the float model holds them between, and `largest` is
    the largest integer of any kernel.
    """

    style: str
    per_channel: bool
    weights: dict[str, Grid] = field(default_factory=dict)
    ends: dict[tuple[float, float], Grid] = field(default_factory=dict)
    largest: int = 127

    @property
    def said(self) -> str:
        """What was done with it."""
        if self.style == WEIGHTS:
            return "quantised model (weights only): weights dequantised."
        kind = f"quantised model ({self.style}, per {'channel' if self.per_channel else 'tensor'})"
        if self.style == DYNAMIC_STYLE:
            return f"{kind}: weights dequantised; its activations have no ranges of their own, and are not rounded."
        return f"{kind}: weights dequantised; activations are held to the ranges it was deployed with."


def to_float(model: ir.Model, where: str) -> Quantised | None:
    """Rewrite a quantised model in place, and say how it was quantised; None for one that is not.

    Raises ModelError naming a node that is quantised in a way that is not understood.
    """
    if not any(node.op_type in _OPS for node in model.graph.all_nodes()):
        return None
    passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    style = _style(model)
    values = Values(model, where)
    for node in list(model.graph):
        _rewrite(values, node)
    float_outputs(values)
    loosen_ending(values)
    passes.RemoveUnusedNodesPass()(model)
    if MICROSOFT in model.graph.opset_imports and not any(node.domain == MICROSOFT for node in model.graph):
        del model.graph.opset_imports[MICROSOFT]
    per_channel = any(grid.scale.ndim and grid.scale.size > 1 for grid in values.weights.values())
    return Quantised(style, per_channel, values.weights, values.ends, values.largest)


def _style(model: ir.Model) -> str:
    ops = {node.op_type for node in model.graph}
    if not ops.isdisjoint(QOPERATORS):
        return QOPERATOR
    if not ops.isdisjoint(DYNAMIC):
        return DYNAMIC_STYLE
    return QDQ if _rounds_activations(model) else WEIGHTS


def _rounds_activations(model: ir.Model) -> bool:
    return any(
        node.op_type == "QuantizeLinear" and constant_array(node.inputs[0]) is None for node in model.graph
    )


def _rewrite(values: Values, node: ir.Node) -> None:
    rule = QOPERATORS.get(node.op_type) or DYNAMIC.get(node.op_type) or FEW_BITS.get(node.op_type)
    read = [value for value in node.inputs if value is not None]
    if node.domain not in (*_STANDARD, MICROSOFT):
        return
    if node.op_type == "QuantizeLinear":
        _quantize(values, node)
    elif node.op_type == "DequantizeLinear":
        _dequantize(values, node)
    elif rule is not None:
        rule(values, node)
    elif any(value in values.reals and (node, value) not in values.float_reads for value in read):
        _move(values, node)
    elif read and all(constant_array(value) is not None for value in read) and _is_scale_or_integers(node):
        _fold(values, node)
    elif node.op_type == "Mul":
        fold_scale(values, node)


def _is_scale_or_integers(node: ir.Node) -> bool:
    """Weights that are moved as integers, and the product of two scales."""
    value = node.inputs[0]
    integers = value is not None and value.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return (node.op_type in _MOVES and integers) or node.op_type == "Mul"


def _fold(values: Values, node: ir.Node) -> None:
    """A node of constants alone, computed."""
    old = node.outputs[0]
    settings = {name: attribute(node, name) for name in node.attributes}
    array = values.computed(node, node.op_type, node.inputs, node.domain, **settings)
    old.replace_all_uses_with(values.initializer(old, array))


def _quantize(values: Values, node: ir.Node) -> None:
    """A constant is rounded by ONNX Runtime; anything else stays as it is, within the ends of the grid."""
    x, scale, zero = [*node.inputs, None][:3]
    assert x is not None
    if constant_array(x) is not None:
        _fold(values, node)
        return
    kind = ir.DataType(int(attribute(node, "output_dtype", 0)) or ir.DataType.UINT8)
    grid = values.grid(node, scale, zero, kind, int(attribute(node, "axis", 1)))
    if attribute(node, "block_size", 0):
        raise values.refuse(node, "rounds activations in blocks")
    with values.emit.before(node):
        values.reals[node.outputs[0]] = values.held(x, grid), grid


def _dequantize(values: Values, node: ir.Node) -> None:
    x, scale, zero = [*node.inputs, None][:3]
    assert x is not None
    axis, old = int(attribute(node, "axis", 1)), node.outputs[0]
    if constant_array(x) is not None:
        block = attribute(node, "block_size", 0)
        grid = values.grid(node, scale, zero, x.dtype or ir.DataType.INT8, axis)
        real = values.dequantised(node, x, scale, zero, grid, block_size=block)
    else:
        real = values.real(node, x, scale, zero, axis)
    values.float_reads.update((reader, real) for reader in old.consumers())
    if old.is_graph_output():
        if real.producer() is None or real.is_graph_output():
            with values.emit.before(node):
                real = values.emit.op("Identity", real)
        real.shape, real.type = old.shape, old.type
        real.name, old.name = old.name, None
    old.replace_all_uses_with(real, replace_graph_outputs=True)


def _move(values: Values, node: ir.Node) -> None:
    """An op that handles integers as the numbers that they stand for."""
    if node.op_type == "Cast" and attribute(node, "to") == ir.DataType.FLOAT:
        _cast(values, node)
        return
    if node.op_type not in _MOVES:
        raise values.refuse(node, "computes with the integers themselves")
    grids = [values.reals[value][1] for value in node.inputs if value is not None and value in values.reals]
    grid = grids[0]
    if not all(grid.is_like(other) for other in grids):
        raise values.refuse(node, "joins integers of several scales")
    for place, value in enumerate(node.inputs):
        if value is not None and value in values.reals:
            node.replace_input_with(place, values.reals[value][0])
    if node.op_type == "Pad" and attribute(node, "mode", "constant") == "constant":
        _pad(values, node, grid)
    for value in node.outputs[: _LABELS.get(node.op_type)]:
        value.dtype = ir.DataType.FLOAT
        values.reals[value] = value, grid


def _pad(values: Values, node: ir.Node, grid: Grid) -> None:
    """Padding with an integer, 0 where none is given, is padding with the number that it stands for."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    integer = 0 if given is None else int(values.constant(node, given, "padding").item())
    number = values.emit.scalar(float(grid.scale) * (integer - int(grid.zero)))
    node.resize_inputs(max(3, len(node.inputs)))
    node.replace_input_with(2, number)


def _cast(values: Values, node: ir.Node) -> None:
    """A product of integers as float, which its scales follow."""
    x, old = node.inputs[0], node.outputs[0]
    assert x is not None
    real, grid = values.reals[x]
    if float(grid.scale) != 1 or int(grid.zero) != 0:
        raise values.refuse(node, "computes with the integers themselves")
    if old.is_graph_output():
        real.name, old.name = old.name, None
    old.replace_all_uses_with(real, replace_graph_outputs=True)
