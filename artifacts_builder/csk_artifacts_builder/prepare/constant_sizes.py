"""Sizes that an exporter left to be computed at run time, although all but the batch are known.

torch writes `n, c, h, w = x.shape` of a model with dynamic batch as Shape, Gather, arithmetic and Concat in front of
a Reshape. With them the shapes behind are unknown to shape inference, and a convolution there has no known size.

1. Gather(Shape(x), i) is a constant where x's dimensions i are fixed.
2. A Reshape whose output has one open dimension gets a constant target, with -1 there.

3. A Resize to the input's own batch and to fixed sizes, joined at run time (`interpolate(size=...)` of a model with
   dynamic batch), gets constant scales.

And torch's new exporter writes a change of strides (`as_strided`, from a mean over a permuted image) as a Gather
from the flat tensor, with the indices of one batch size:

4. Gather(Reshape(x, [-1]), [[0, 1, ...]]) is Reshape(x, the indices' shape), which can follow the batch.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray
from onnxscript import optimizer

from csk_artifacts_builder.emit import Emitter, attribute, constant_array
from csk_artifacts_builder.prepare.constants import may_fold


def fold_sizes(model: ir.Model) -> bool:
    """Write sizes as constants wherever they follow from the image's, in place; True when something was folded.

    Each round tells shape inference more, so rounds follow until nothing is left to fold.
    """
    emit = Emitter(model.graph)
    modified = False
    while any([_fold_gathered_sizes(model, emit), _fold_targets(model, emit), _fold_resizes(model, emit)]):
        modified = True
        optimizer.fold_constants(model, onnx_shape_inference=False, should_fold=may_fold)
        passes.RemoveUnusedNodesPass()(model)
        infer_again(model)
    return modified


def gather_to_reshape(model: ir.Model) -> bool:
    """Case 4, in place; True when there was one."""
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
        sizes = known_sizes(node)
        if sizes is not None:
            constant = emit.constant(sizes, np.int64, "sizes")
            node.outputs[0].replace_all_uses_with(constant, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            modified = True
    return modified


def known_sizes(node: ir.Node) -> NDArray[np.int64] | None:
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


def _fold_resizes(model: ir.Model, emit: Emitter) -> bool:
    modified = False
    for node in model.graph:
        if node.op_type != "Resize" or len(node.inputs) < 4 or constant_array(node.inputs[3]) is not None:
            continue
        x, sizes = node.inputs[0], _joined(node.inputs[3])
        if x is None or x.shape is None or sizes is None or len(sizes) != len(x.shape):
            continue
        mode, producer = attribute(node, "mode", "nearest"), x.producer()
        if mode == "cubic" and producer is not None and producer.op_type == "Transpose":
            # ONNX Runtime would move the Transpose behind it, and then not open the graph.
            continue
        scales = [_scale(size, wanted, mode) for size, wanted in zip(x.shape, sizes, strict=True)]
        if None not in scales:
            node.replace_input_with(2, emit.constant(scales, np.float32, "scales"))
            node.resize_inputs(3)
            modified = True
    return modified


def sizes_to_scales(model: ir.Model) -> bool:
    """Resize to constant sizes, of a known image and batch, by scales, in place: these follow the batch."""
    emit = Emitter(model.graph)
    modified = False
    for node in model.graph:
        if node.op_type != "Resize" or len(node.inputs) < 4 or "axes" in node.attributes:
            continue
        x, sizes = node.inputs[0], constant_array(node.inputs[3])
        if x is None or x.shape is None or sizes is None or len(sizes) != len(x.shape):
            continue
        mode = attribute(node, "mode", "nearest")
        scales = [_scale(size, int(wanted), mode) for size, wanted in zip(x.shape, sizes, strict=True)]
        if None not in scales and attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch":
            node.replace_input_with(2, emit.constant(scales, np.float32, "scales"))
            node.resize_inputs(3)
            modified = True
    return modified


def _scale(size: int | ir.SymbolicDim, wanted: int | ir.SymbolicDim, mode: str) -> float | None:
    """By which every runtime comes from `size` to `wanted`; None where that is not known.

    Some multiply in float32 and some in float64 before they round down, so the scale is rounded up: between pixels that
    is nothing, but the nearest one it can make another.
    """
    if size == wanted:
        return 1.0
    if not (isinstance(size, int) and isinstance(wanted, int)):
        return None
    scale = np.float32(wanted / size)
    if float(scale) * size < wanted:
        scale = np.nextafter(scale, np.float32(np.inf))
    return None if mode == "nearest" and float(scale) * size != wanted else float(scale)


def _joined(value: ir.Value | None) -> list[int | ir.SymbolicDim] | None:
    """The sizes in a 1-d tensor that is made of constants and of shapes; None where it is made of anything else."""
    known = constant_array(value)
    if known is not None:
        return [int(size) for size in known.reshape(-1)]
    node = value.producer() if value is not None else None
    if node is None or not node.inputs:
        return None
    if node.op_type == "Shape":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None:
            return None
        return list(shape)[attribute(node, "start", 0) : attribute(node, "end")]
    if node.op_type == "Concat":
        parts = [_joined(one) for one in node.inputs]
        return None if None in parts else [size for part in parts for size in part or ()]
    sizes = _joined(node.inputs[0])
    if sizes is None or node.op_type in ("Cast", "Identity", "Unsqueeze"):
        return sizes
    given = [constant_array(one) for one in node.inputs[1:]]
    if any(one is None for one in given):
        return None
    numbers = [[int(number) for number in one.reshape(-1)] for one in given if one is not None]
    if node.op_type == "Gather":
        return [sizes[place] for place in numbers[0]]
    if node.op_type == "Slice":
        step = numbers[3][0] if len(numbers) > 3 else 1
        return sizes[numbers[0][0] : numbers[1][0] : step] if step > 0 else None
    return None


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
