"""Bringing a graph to opset 17, the one version that every bundle is written in.

Older graphs go up through onnx's own version converter and `old_opsets.py`. Newer ones come down by the table below,
which holds every op of CNN classifiers whose form changed between 18 and 28; all others read the same in both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.prepare.old_opsets import raise_to
from csk_sdk.errors import ModelError

TARGET_OPSET = 17
OLDEST_OPSET = 7
NEWEST_OPSET = 28
TARGET_IR_VERSION = 8


def upgrade(model: ir.Model, where: str) -> ir.Model:
    """Raise an old graph to opset 17; a graph at 17 or above comes back as it is.

    Raises ModelError for an opset outside 7 to 28, or one that onnx cannot convert.
    """
    version = int(model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 0)))
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ModelError(
            f"{where} uses opset {version}; opsets {OLDEST_OPSET} to {NEWEST_OPSET} are supported. "
            "Export the model again with opset 17."
        )
    return model if version >= TARGET_OPSET else raise_to(model, TARGET_OPSET, where)


def downgrade(model: ir.Model, where: str) -> None:
    """Lower a graph of opset 18 to 28 to opset 17, in place.

    Raises ModelError naming a node that cannot be written in opset 17.
    """
    version = model.graph.opset_imports.get("", TARGET_OPSET)
    for node in model.graph:
        if node.op_type in _ELEMENT and _reduces_nothing(node):
            _replace_by_element(node)
    if version > TARGET_OPSET:
        emit = Emitter(model.graph)
        for node in list(model.graph):
            lower = _LOWER.get(node.op_type)
            if lower is not None:
                lower(emit, node)
        for node in model.graph:
            _check_expressible(node, where)
    model.graph.opset_imports.clear()
    model.graph.opset_imports[""] = TARGET_OPSET
    model.ir_version = TARGET_IR_VERSION
    for node in model.graph:
        node.version = None


def _check_expressible(node: ir.Node, where: str) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, TARGET_OPSET, "")
    except onnx.defs.SchemaError:
        schema = None
    if schema is None or set(node.attributes) - set(schema.attributes) or len(node.inputs) > schema.max_input:
        raise ModelError(
            f"{where} has op '{node.op_type}' (node '{node.name}') in a form that opset {TARGET_OPSET} does "
            "not know. Export the model again with opset 17."
        )


def _axes_to_attribute(emit: Emitter, node: ir.Node) -> None:
    """Reduce*(x, axes) of opset 18 -> Reduce*(x) {axes}."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = constant_array(given)
    if given is not None and axes is None:
        raise ModelError(
            f"node '{node.name}' ({node.op_type}) takes its axes from the graph; export it with constant ones."
        )
    node.attributes.pop("noop_with_empty_axes", None)
    if len(node.inputs) > 1:
        node.resize_inputs(1)
    if axes is not None and axes.size:
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes])


# What is left of a reduction of single elements.
_ELEMENT = {
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"), "Identity"
    ),
    **dict.fromkeys(("ReduceL1", "ReduceL2"), "Abs"),
    "ReduceSumSquare": "Mul",
    "ReduceLogSum": "Log",
}


def _reduces_nothing(node: ir.Node) -> bool:
    """Whether it has no axes, and `noop_with_empty_axes`: then each element is reduced by itself.

    Runtimes differ in it: 1.17.0 does not run such a ReduceSum, and 1.22.1 leaves out the square of ReduceSumSquare.
    """
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = constant_array(given)
    empty = given is None or (axes is not None and not axes.size)
    return bool(empty and attribute(node, "noop_with_empty_axes", 0))


def _replace_by_element(node: ir.Node) -> None:
    op_type = _ELEMENT[node.op_type]
    x = node.inputs[0]
    node.resize_inputs(2 if op_type == "Mul" else 1)
    if op_type == "Mul":
        node.replace_input_with(1, x)
    node.op_type = op_type
    node.attributes.clear()


def _drop_defaults(**defaults: object) -> Callable[[Emitter, ir.Node], None]:
    """Drop younger attributes that say what older opsets do anyway."""

    def lower(emit: Emitter, node: ir.Node) -> None:
        for name, default in defaults.items():
            if attribute(node, name, default) == default:
                node.attributes.pop(name, None)

    return lower


def _cast(emit: Emitter, node: ir.Node) -> None:
    """Cast {saturate, round_mode} of opsets 19 and 24 only concern 8-bit floats."""
    for name in ("saturate", "round_mode"):
        node.attributes.pop(name, None)


def _average_pool(emit: Emitter, node: ir.Node) -> None:
    """AveragePool {dilations} of opset 19 -> without, where they are 1."""
    if all(dilation == 1 for dilation in attribute(node, "dilations", [])):
        node.attributes.pop("dilations", None)


def _split(emit: Emitter, node: ir.Node) -> None:
    """Split {num_outputs} of opset 18 -> Split into given sizes, the last one what is left."""
    parts = attribute(node, "num_outputs")
    node.attributes.pop("num_outputs", None)
    x = node.inputs[0]
    if parts is None or x is None or x.shape is None:
        return
    size = x.shape[attribute(node, "axis", 0)]
    if isinstance(size, int) and size % parts:
        part = -(-size // parts)
        node.resize_inputs(2)
        sizes = emit.ints(*[part] * (parts - 1), size - part * (parts - 1))
        node.replace_input_with(1, sizes)


def _pad(emit: Emitter, node: ir.Node) -> None:
    """Pad(x, pads, value, axes) of opset 18 -> Pad(x, pads over all axes, value)."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return
    axes, pads = constant_array(node.inputs[3]), constant_array(node.inputs[1])
    x = node.inputs[0]
    if axes is None or pads is None or x is None or x.shape is None:
        raise ModelError(
            f"node '{node.name}' (Pad) takes its axes from the graph; export it with constant pads."
        )
    rank = len(x.shape)
    full = np.zeros(2 * rank, np.int64)
    for position, axis in enumerate(axes):
        full[int(axis) % rank] = pads[position]
        full[int(axis) % rank + rank] = pads[position + len(axes)]
    node.replace_input_with(1, emit.constant(full, np.int64, "pads"))
    node.resize_inputs(3)


def _gelu(emit: Emitter, node: ir.Node) -> None:
    """Gelu of opset 20 -> x * 0.5 * (1 + erf(x / sqrt 2)), or its tanh approximation."""
    x = node.inputs[0]
    with emit.before(node):
        if attribute(node, "approximate", "none") == "tanh":
            cubed = emit.op("Mul", emit.op("Mul", x, x), x)
            inner = emit.op("Add", x, emit.op("Mul", cubed, emit.scalar(0.044715)))
            bell = emit.op("Tanh", emit.op("Mul", inner, emit.scalar(float(np.sqrt(2 / np.pi)))))
        else:
            bell = emit.op("Erf", emit.op("Div", x, emit.scalar(float(np.sqrt(2)))))
        half = emit.op("Mul", emit.op("Add", bell, emit.scalar(1.0)), emit.scalar(0.5))
        result = emit.op("Mul", x, half)
    _replace(node, result)


def _mish(emit: Emitter, node: ir.Node) -> None:
    """Mish of opset 18 -> x * tanh(softplus(x))"""
    x = node.inputs[0]
    with emit.before(node):
        result = emit.op("Mul", x, emit.op("Tanh", emit.op("Softplus", x)))
    _replace(node, result)


def _swish(emit: Emitter, node: ir.Node) -> None:
    """Swish of opset 24 -> x * sigmoid(alpha x)"""
    x, alpha = node.inputs[0], float(attribute(node, "alpha", 1.0))
    with emit.before(node):
        result = emit.op(
            "Mul", x, emit.op("Sigmoid", x if alpha == 1 else emit.op("Mul", x, emit.scalar(alpha)))
        )
    _replace(node, result)


def _group_normalization(emit: Emitter, node: ir.Node) -> None:
    """GroupNormalization of opset 21 -> InstanceNormalization of the groups, then each channel's scale and bias.

    (That of opset 18, with a scale for each group, is deprecated, and onnx's checker refuses it.)
    """
    x, scale, bias = node.inputs[0], constant_array(node.inputs[1]), constant_array(node.inputs[2])
    shape = list(x.shape or ())[1:] if x is not None else []
    if scale is None or bias is None or not shape or not all(isinstance(dim, int) for dim in shape):
        raise ModelError(
            f"node '{node.name}' (GroupNormalization) has a computed scale or bias, or an image of unknown size; "
            "export it with constant ones and a fixed image size."
        )
    channels, *picture = (int(dim) for dim in shape)  # type: ignore[arg-type]
    groups = int(attribute(node, "num_groups"))
    ones, zeros = emit.constant(np.ones(groups), np.float32), emit.constant(np.zeros(groups), np.float32)
    with emit.before(node):
        apart = emit.op("Reshape", x, emit.ints(0, groups, -1))
        epsilon = float(attribute(node, "epsilon", 1e-5))
        normal = emit.op("InstanceNormalization", apart, ones, zeros, epsilon=epsilon)
        result = emit.op("Reshape", normal, emit.ints(0, channels, *picture))
        for op_type, array in (("Mul", scale), ("Add", bias)):
            each = array.reshape(channels, *[1] * len(picture))
            result = emit.op(op_type, result, emit.constant(each, np.float32))
    _replace(node, result)


def _replace(node: ir.Node, value: ir.Value) -> None:
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


_LOWER: dict[str, Callable[[Emitter, ir.Node], None]] = {
    **dict.fromkeys(
        (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        ),
        _axes_to_attribute,
    ),
    "Split": _split,
    "Pad": _pad,
    "Gelu": _gelu,
    "Mish": _mish,
    "Swish": _swish,
    "GroupNormalization": _group_normalization,
    "AveragePool": _average_pool,
    "Resize": _drop_defaults(antialias=0, keep_aspect_ratio_policy="stretch"),
    "Cast": _cast,
}
