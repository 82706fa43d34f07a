"""Bringing a graph of opset 7 to 16 to opset 17.

onnx's version converter does it, but for ops that it changes in silence or takes apart. Those are rewritten here, and
hidden from it under a domain of their own:

1. Softmax, LogSoftmax and Hardmax below opset 13 go over all axes from `axis` on. Where only one of them is longer than
   1, it is that one's in opset 13, too; else the axes are made one, and apart again.
2. Upsample, and Resize of opset 10, take the pixel at the place divided by the scale: asymmetric, and
   rounded down, or up where the image becomes smaller. From opset 11 on, Resize without more words does neither.

The converter knows no external data and copies all weights, so it sees large ones as inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible
from csk_sdk.errors import ModelError

OURS = "csk.raised"
# Larger tensors are no axes or sizes.
_LARGE = 1024
_ALONG_AXES = {"Softmax", "LogSoftmax", "Hardmax"}


def raise_to(model: ir.Model, opset: int, where: str) -> ir.Model:
    """The model in `opset`, from an older one.

    Raises ModelError for one that onnx cannot convert.
    """
    version = int(model.graph.opset_imports[""])
    infer_where_possible(model)
    if version < 13:
        _raise_softmax(model)
    if version < 11:
        _raise_resize(model)
    large = _hide_large(model)
    converted = _converted(model, opset, where)
    for name, value in large.items():
        place = next(one for one in converted.graph.inputs if one.name == name)
        converted.graph.inputs.remove(place)
        place.const_value = value.const_value
        converted.graph.initializers[name] = place
    for node in converted.graph:
        if node.domain == OURS:
            node.domain = ""
    converted.graph.opset_imports.pop(OURS, None)
    return converted


def _converted(model: ir.Model, opset: int, where: str) -> ir.Model:
    version = int(model.graph.opset_imports[""])
    model.graph.opset_imports[OURS] = 1
    proto = ir.to_proto(model)
    proto.ir_version = max(proto.ir_version, 4)  # from here on initializers need not be inputs
    # What an exporter or a tool wrote of types is not always so, and the converter would take it over.
    del proto.graph.value_info[:]
    try:
        return ir.from_proto(onnx.version_converter.convert_version(proto, opset))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{where} could not be raised from opset {version} to {opset} ({reason}). "
            "Export the model again with opset 17."
        ) from None


def _hide_large(model: ir.Model) -> dict[str, ir.Value]:
    """Make inputs of large tensors, in place; what they were, by name."""
    large = {}
    for name, value in list(model.graph.initializers.items()):
        if (
            value.const_value is not None
            and value.const_value.nbytes > _LARGE
            and not value.is_graph_output()
        ):
            large[name] = value
            stand_in = ir.Value(name=name, shape=value.shape, type=value.type)
            del model.graph.initializers[name]
            value.replace_all_uses_with(stand_in)
            model.graph.inputs.append(stand_in)
    return large


def _raise_softmax(model: ir.Model) -> None:
    """Case 1, in place."""
    emit = Emitter(model.graph)
    for node in [node for node in model.graph if node.op_type in _ALONG_AXES]:
        x = node.inputs[0]
        if x is None or x.shape is None:
            continue
        sizes = list(x.shape)
        first = int(attribute(node, "axis", 1)) % max(len(sizes), 1)
        long = [axis for axis in range(first, len(sizes)) if sizes[axis] != 1]
        node.domain = OURS
        if len(long) <= 1:
            node.attributes["axis"] = ir.AttrInt64("axis", long[0] if long else first)
            continue
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        with emit.before(node):
            node.replace_input_with(0, emit.op("Flatten", x, axis=first))
            shape = emit.op("Shape", x)
        y = node.outputs[0]
        with emit.behind(node):
            apart = emit.op("Reshape", y, shape)
        apart.shape, apart.type = y.shape, y.type
        for user, position in list(y.uses()):
            if user is not apart.producer():
                user.replace_input_with(position, apart)
        if y.is_graph_output():
            apart.name, y.name = y.name, f"{y.name}.rows"
            outputs = model.graph.outputs
            outputs[list(outputs).index(y)] = apart
        y.shape = None


def _raise_resize(model: ir.Model) -> None:
    """Case 2, in place."""
    emit = Emitter(model.graph)
    for node in [node for node in model.graph if node.op_type in ("Upsample", "Resize")]:
        given = node.inputs[1] if len(node.inputs) > 1 else None
        scales = constant_array(given) if given is not None else np.asarray(attribute(node, "scales"))
        node.attributes.pop("scales", None)
        if scales is None or attribute(node, "mode", "nearest") != "nearest" or (scales >= 1).all():
            _as_resize(emit, node, given, scales, "floor")
            continue
        smaller = np.minimum(scales, 1).astype(np.float32)
        if (scales > 1).any():
            with emit.before(node):
                larger = emit.op("Resize", node.inputs[0], None, None, mode="nearest")
                producer = larger.producer()
                assert producer is not None
                _as_resize(emit, producer, None, np.maximum(scales, 1), "floor")
            node.replace_input_with(0, larger)
        _as_resize(emit, node, None, smaller, "ceil")


def _as_resize(
    emit: Emitter, node: ir.Node, given: ir.Value | None, scales: NDArray[Any] | None, rounded: str
) -> None:
    """Turn a node into the Resize of opset 11 that looks at the place divided by the scale."""
    node.resize_inputs(3)
    node.replace_input_with(1, None)
    node.replace_input_with(2, given if scales is None else emit.constant(scales, np.float32, "scales"))
    node.op_type, node.domain = "Resize", OURS
    for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", rounded)):
        node.attributes[name] = ir.AttrString(name, value)
