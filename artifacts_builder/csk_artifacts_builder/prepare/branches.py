"""An If whose condition does not depend on the image, as the one branch that it takes.

TorchScript writes `squeeze(dim)` as an If on whether that axis is 1 long. Its condition follows from constants and
from sizes, but not from the batch, which other images have another of: an If on that stays, as any other does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.prepare.constant_sizes import infer_where_possible, known_sizes
from csk_artifacts_builder.prepare.constants import computed, fold_constants, is_random

_ANY = "any"


def take_branches(model: ir.Model) -> bool:
    """Put the branch that an If takes in its place, wherever that is known, in place; True when there was one."""
    if not any(node.op_type == "If" for node in model.graph.all_nodes()):
        return False
    passes.InlinePass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    fold_constants(
        model, of={ir.DataType.INT64}
    )  # pads that sizes follow from, and no weights of a quantised file
    modified = False
    while (found := _decided(model)) is not None:
        node, condition = found
        _put(model.graph, node, attribute(node, "then_branch" if condition else "else_branch"))
        modified = True
    if modified:
        passes.RemoveUnusedNodesPass()(model)
    return modified


def _decided(model: ir.Model) -> tuple[ir.Node, bool] | None:
    """The first If whose condition is known, and what it is."""
    choices = [node for node in model.graph if node.op_type == "If" and node.domain == ""]
    if not choices:
        return None
    shapes = _infer_for_any_batch(model)
    opset = model.graph.opset_imports.get("", 1)
    conditions = ((node, _known(node.inputs[0], opset)) for node in choices)
    found = next(((node, bool(array.item())) for node, array in conditions if array is not None), None)
    for value, shape in shapes.items():
        value.shape = shape
    return found


def _infer_for_any_batch(model: ir.Model) -> dict[ir.Value, ir.Shape | None]:
    """Infer shapes in which no first axis is known, as that may be the batch; what shapes there were."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    shapes = {value: value.shape for value in values}
    for value in values:
        value.shape = None
    for value in model.graph.inputs:
        value.shape = _with_any_batch(shapes[value])
    infer_where_possible(model)
    for value in values:
        value.shape = _with_any_batch(value.shape)
    return shapes


def _with_any_batch(shape: ir.Shape | None) -> ir.Shape | None:
    return ir.Shape([_ANY, *list(shape)[1:]]) if shape is not None and len(shape) else shape


def _known(value: ir.Value | None, opset: int) -> NDArray[Any] | None:
    """What a value is for every image and batch; None where that is not known."""
    array = constant_array(value)
    if array is not None or value is None:
        return array
    node = value.producer()
    if node is None or len(node.outputs) != 1 or is_random(node):
        return None
    sizes = known_sizes(node)
    if sizes is not None:
        return sizes
    if not node.inputs or node.op_type in ("If", "Loop", "Scan"):
        return None
    tensors: dict[str, ir.TensorProtocol] = {}
    for one in node.inputs:
        if one is None:
            continue
        given = _known(one, opset)
        if given is None:
            return None
        tensors[str(one.name)] = ir.tensor(np.asarray(given))
    arrays = computed(node, opset, tensors)
    return arrays[0] if arrays is not None else None


def _put(graph: ir.Graph, choice: ir.Node, branch: ir.Graph) -> None:
    """The nodes of a branch in front of the If, under names that are free, and its outputs for the If's."""
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {value.name for node in graph for value in node.outputs}
    for value in list(branch.initializers.values()):
        del branch.initializers[str(value.name)]
        value.name = _free(str(value.name), taken)
        graph.initializers[value.name] = value
    results = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    for node in nodes:
        for value in node.outputs:
            value.name = _free(str(value.name), taken) if value.name else value.name
    graph.insert_before(choice, nodes)
    for old, result in zip(choice.outputs, results, strict=True):
        same = ir.node("Identity", [result])
        graph.insert_before(choice, same)
        new = same.outputs[0]
        new.shape, new.type = old.shape, old.type
        new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(choice, safe=True)


def _free(name: str, taken: set[str | None]) -> str:
    while name in taken:
        name += ".taken"
    taken.add(name)
    return name
