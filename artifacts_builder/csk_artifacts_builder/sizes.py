"""Sizes that an exporter left to be computed at run time, although all but the batch are known.

torch writes `n, c, h, w = x.shape` of a model with dynamic batch as Shape, Gather, arithmetic and Concat in front of
a Reshape. With them the shapes behind are unknown to shape inference, and a convolution there has no known size.

1. Gather(Shape(x), i) is a constant where x's dimensions i are fixed.
2. A Reshape whose output has one open dimension gets a constant target, with -1 there.

And torch's new exporter writes a change of strides (`as_strided`, from a mean over a permuted picture) as a Gather
from the flat tensor, with the indices of one batch size:

3. Gather(Reshape(x, [-1]), [[0, 1, ...]]) is Reshape(x, the indices' shape), which can follow the batch.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray
from onnxscript import optimizer

from csk_artifacts_builder.emit import Emitter, attribute, constant_array


def fold_sizes(model: ir.Model) -> bool:
    """Write sizes as constants wherever they follow from the picture's, in place; True when something was folded.

    Each round tells shape inference more, so rounds follow until nothing is left to fold.
    """
    emit = Emitter(model.graph)
    modified = False
    while any([_fold_gathered_sizes(model, emit), _fold_targets(model, emit)]):
        modified = True
        optimizer.fold_constants(model, onnx_shape_inference=False)
        passes.RemoveUnusedNodesPass()(model)
        infer_again(model)
    return modified


def gather_to_reshape(model: ir.Model) -> bool:
    """Case 3, in place; True when there was one."""
    emit = Emitter(model.graph)
    modified = False
    for node in list(model.graph):
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 0 or node.inputs[0] is None:
            continue
        flat, indices = node.inputs[0].producer(), constant_array(node.inputs[1])
        if flat is None or flat.op_type != "Reshape" or indices is None or indices.ndim < 2:
            continue
        to_one_axis = constant_array(flat.inputs[1])
        if to_one_axis is None or to_one_axis.tolist() != [-1]:
            continue
        if np.array_equal(indices.reshape(-1), np.arange(indices.size)) and _holds(flat, indices.size):
            with emit.before(node):
                same = emit.op("Reshape", flat.inputs[0], emit.ints(*indices.shape))
            same.shape, same.type = node.outputs[0].shape, node.outputs[0].type
            node.outputs[0].replace_all_uses_with(same, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
    return modified


def _holds(flat: ir.Node, count: int) -> bool:
    """Whether the flat tensor is known to have `count` elements: all of them are gathered."""
    x = flat.inputs[0]
    if x is None or x.shape is None or not all(isinstance(dim, int) for dim in x.shape):
        return False
    return int(np.prod([int(dim) for dim in x.shape])) == count  # type: ignore[arg-type]


def _fold_gathered_sizes(model: ir.Model, emit: Emitter) -> bool:
    modified = False
    for node in list(model.graph):
        sizes = _gathered(node)
        if sizes is not None:
            constant = emit.constant(sizes, np.int64, "sizes")
            node.outputs[0].replace_all_uses_with(constant, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
    return modified


def _gathered(node: ir.Node) -> NDArray[np.int64] | None:
    """What `Gather(Shape(x), i)` gives, or None where the node is something else or a dimension is open."""
    shape = node.inputs[0].producer() if node.op_type == "Gather" and node.inputs[0] is not None else None
    if shape is None or shape.op_type != "Shape" or shape.inputs[0] is None or shape.inputs[0].shape is None:
        return None
    dims = list(shape.inputs[0].shape)[attribute(shape, "start", 0) : attribute(shape, "end")]
    indices = constant_array(node.inputs[1])
    if indices is None:
        return None
    wanted = [dims[int(index)] for index in indices.reshape(-1)]
    if not all(isinstance(dim, int) for dim in wanted):
        return None
    return np.array(wanted, np.int64).reshape(indices.shape)


def _fold_targets(model: ir.Model, emit: Emitter) -> bool:
    modified = False
    for node in model.graph:
        if node.op_type != "Reshape" or constant_array(node.inputs[1]) is not None:
            continue
        shape = node.outputs[0].shape
        if shape is None or attribute(node, "allowzero", 0):
            continue
        target = [dim if isinstance(dim, int) else -1 for dim in shape]
        if target.count(-1) <= 1 and 0 not in target:
            node.replace_input_with(1, emit.ints(*target))
            modified = True
    return modified


def infer_again(model: ir.Model) -> None:
    """Shapes from the inputs on: what was open before may be known now, and what was known may be another."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    infer_where_possible(model)


def infer_where_possible(model: ir.Model) -> None:
    """Shapes up to the first node that onnx has another opinion of than the exporter, and behind it."""
    passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)
