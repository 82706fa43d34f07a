"""Squeeze that may leave out the batch, as Squeeze of the axes beside it; without axes it leaves out every axis of 1.

`pool(x).squeeze()` of a batch of one leaves out the batch, too, and `scores.squeeze(0)` nothing else: then what follows
must be ops that compute the same for a batch of vectors as for one vector, and their axes move by one.
"""

from __future__ import annotations

import onnx_ir as ir

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible

_BY_NUMBER = {
    *("Cast", "Clip", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Relu"),
    *("Sigmoid", "Softplus", "Tanh"),
}
_TWO = {"Add", "Div", "Mul", "Sub"}
_ALONG_AXIS = {"ArgMax", "Concat", "LogSoftmax", "Softmax", "TopK"}
_DEFAULT_AXIS = {"ArgMax": 0}


def squeeze_beside_batch(model: ir.Model) -> bool:
    """Write their axes, in place, wherever the sizes beside the batch are known; True when there was one."""
    modified = False
    while _write_first(model):
        modified = True
        infer_where_possible(model)
    return modified


def _write_first(model: ir.Model) -> bool:
    """The first one only: what is behind it has known sizes then."""
    for node in model.graph:
        axes = _axes(node, model.graph.inputs[0])
        x = node.inputs[0] if node.inputs else None
        if axes is None or x is None or x.shape is None:
            continue
        if x.shape[0] == 1:
            moved = _behind(node)
            if moved is None:
                continue
            for reader in moved:
                _for_a_batch(model, reader)
        emit = Emitter(model.graph)
        with emit.before(node):
            y = emit.op("Squeeze", x, emit.ints(*axes)) if axes else emit.op("Identity", x)
        old, producer = node.outputs[0], y.producer()
        assert producer is not None
        producer.name, y.name, y.type = node.name, old.name, x.type
        old.name = None
        old.replace_all_uses_with(y, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        return True
    return False


def _axes(node: ir.Node, image: ir.Value) -> list[int] | None:
    """The axes beside the batch that a Squeeze leaves out; None where they are not known, or it says others alone."""
    if node.op_type != "Squeeze":
        return None
    x = node.inputs[0]
    if x is None or x.dtype != ir.DataType.FLOAT or x.shape is None or image.shape is None:
        return None
    sizes = list(x.shape)
    if len(sizes) < 2 or sizes[0] != image.shape[0] or not all(isinstance(size, int) for size in sizes[1:]):
        return None
    given = constant_array(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    if given is None:
        says_none = "axes" not in node.attributes and not any(node.inputs[1:])
        return [axis for axis, size in enumerate(sizes) if axis and size == 1] if says_none else None
    axes = {int(axis) % len(sizes) for axis in given}
    return sorted(axes - {0}) if 0 in axes and sizes[0] == 1 else None


def _behind(squeeze: ir.Node) -> list[ir.Node] | None:
    """All nodes behind a Squeeze that left the batch out, whose axes move; None where one is no op on a vector."""
    x = squeeze.inputs[0]
    assert x is not None
    assert x.shape is not None
    if sum(size != 1 for size in x.shape) > 1:
        return None
    vectors = set(squeeze.outputs)
    moved = []
    graph = squeeze.graph
    assert graph is not None
    for node in graph:
        if vectors.isdisjoint(node.inputs):
            continue
        others = [value for value in node.inputs if value is not None and value not in vectors]
        if any(constant_array(value) is None for value in others) or not _is_of_vectors(node, vectors):
            return None
        moved.append(node)
        if node.op_type != "Unsqueeze":
            vectors.update(node.outputs)
    return moved


def _is_of_vectors(node: ir.Node, vectors: set[ir.Value]) -> bool:
    arrays = [constant_array(value) for value in node.inputs[1:]]
    if node.op_type == "MatMul":
        return node.inputs[0] in vectors and arrays[0] is not None and arrays[0].ndim == 2
    if node.op_type in _TWO:
        given = [constant_array(value) for value in node.inputs]
        return all(array is None or array.ndim <= 1 for array in given)
    if node.op_type == "Unsqueeze":
        return arrays[0] is not None and arrays[0].tolist() == [0]
    if node.op_type == "ArgMax" and not attribute(node, "keepdims", 1):
        return all(not value.uses() for value in node.outputs)
    return node.op_type in _BY_NUMBER | _ALONG_AXIS and node.inputs[0] in vectors


def _for_a_batch(model: ir.Model, node: ir.Node) -> None:
    """An axis is one further on, and the batch, which is there, is not put back."""
    if node.op_type == "Unsqueeze":
        emit = Emitter(model.graph)
        with emit.before(node):
            same = emit.op("Identity", node.inputs[0])
        same.name, same.type, node.outputs[0].name = node.outputs[0].name, node.outputs[0].type, None
        node.outputs[0].replace_all_uses_with(same, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        return
    axis = int(attribute(node, "axis", _DEFAULT_AXIS.get(node.op_type, -1)))
    if node.op_type in _ALONG_AXIS and axis >= 0:
        node.attributes["axis"] = ir.AttrInt64("axis", axis + 1)
