"""Computing what a graph makes of its constants alone, whatever the size: kernels of weight norm, pads, turned weights.

Each node is run by ONNX Runtime at the model's own opset, so what is folded is what the deployed model computes. NumPy
has no bfloat16 and no float8, so ONNX Runtime takes none from it: what is made of those, `onnx.reference` computes.
onnxscript's folding, which follows with its partial knowledge of sizes, computes by onnx.reference, stops at 8,192
elements, and draws a random number once.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from csk_artifacts_builder.emit import constant_array
from csk_sdk.runtime.sessions import load_onnxruntime, open_session

# A constant may grow to so many bytes: larger ones must not be larger than what they are made of.
GROWS_TO = 64 << 20
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_GROWING = {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
_FED = {
    *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BOOL, ir.DataType.INT8),
    *(ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32, ir.DataType.UINT32),
    *(ir.DataType.INT64, ir.DataType.UINT64),
}
_NOT_FED = {
    *(ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ),
    *(ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ),
}
FOLDED = frozenset(_FED | _NOT_FED)


def fold_constants(model: ir.Model, of: Set[ir.DataType] = FOLDED) -> bool:
    """Replace every node whose inputs are all constants, `of` these types, by what it gives, in place.

    True when there was one.
    Nodes that draw random numbers stay, those whose result would be larger than 64 MiB and than all its inputs, and
    those that this ONNX Runtime does not run.
    """
    opset = model.graph.opset_imports.get("", 1)
    modified = False
    for node in list(model.graph):
        if _is_constant(node, of) and _fits(node):
            given = {str(value.name): value.const_value for value in node.inputs if value is not None}
            arrays = computed(node, opset, given)  # type: ignore[arg-type]
            if arrays is not None:
                _put(model.graph, node, arrays)
                modified = True
    return modified


def is_random(node: ir.Node) -> bool:
    """Whether a node draws random numbers each time that it runs."""
    if node.op_type == "Dropout":
        training = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        given = len(node.inputs) > 2 and node.inputs[2] is not None
        return given and (training is None or bool(training.item()))
    return node.op_type in _RANDOM


def may_fold(node: ir.Node) -> bool | None:
    """What onnxscript may fold: it would draw a random number once, and keep it."""
    return False if is_random(node) else None


def _is_constant(node: ir.Node, of: Set[ir.DataType]) -> bool:
    if node.domain not in ("", "ai.onnx") or is_random(node) or not any(node.outputs):
        return False
    if any(value.is_graph_output() for value in node.outputs):
        return False
    return all(
        value is None or (value.is_initializer() and value.dtype in of and value.const_value is not None)
        for value in node.inputs
    )


def _fits(node: ir.Node) -> bool:
    """Whether the result stays small, or is made of as much."""
    if node.op_type not in _GROWING:
        return True
    try:
        count = _elements(node)
    except (ValueError, OverflowError):
        return False
    read = sum(value.const_value.nbytes for value in node.inputs if value is not None and value.const_value)
    return count is not None and 8 * count <= max(GROWS_TO, 2 * read)


def _elements(node: ir.Node) -> int | None:
    """How many numbers a node that makes more of its input gives; None where that is not easily said.

    Raises ValueError or OverflowError for inputs that do not fit together.
    """
    arrays = [constant_array(value) for value in node.inputs]
    if node.op_type == "ConstantOfShape" and arrays[0] is not None:
        return int(np.prod(arrays[0]))
    if node.op_type == "Expand" and arrays[0] is not None and arrays[1] is not None:
        return int(np.prod(np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1]))))
    if node.op_type == "Tile" and arrays[0] is not None and arrays[1] is not None:
        return int(arrays[0].size * np.prod(arrays[1]))
    if node.op_type == "Range" and all(array is not None for array in arrays):
        start, limit, delta = (float(array.item()) for array in arrays if array is not None)
        return max(0, int(np.ceil((limit - start) / delta))) if delta else None
    shape = node.outputs[0].shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return int(np.prod(shape.numpy()))


def computed(node: ir.Node, opset: int, given: Mapping[str, ir.TensorProtocol]) -> list[NDArray[Any]] | None:
    """What the node makes of its inputs, by ONNX Runtime or, of numbers that it takes none of, by onnx.

    None where it is not run.
    """
    proto = ir.to_proto(node)
    inputs = [
        onnx.helper.make_tensor_value_info(name, int(tensor.dtype), list(tensor.shape.numpy()))
        for name, tensor in given.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "constant", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", opset)]
    single = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = load_onnxruntime().SessionOptions()
    options.log_severity_level = 4
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    try:
        if any(tensor.dtype in _NOT_FED for tensor in given.values()):
            return [np.asarray(one) for one in ReferenceEvaluator(single).run(None, arrays)]
        return list(open_session(single.SerializeToString(), options).run(None, arrays))
    except Exception:
        return None


def _put(graph: ir.Graph, node: ir.Node, arrays: list[NDArray[Any]]) -> None:
    """Initializers in the place of a node's outputs, under their names; what it alone read is gone."""
    named = [value for value in node.outputs if value.name]
    for old, array in zip(named, arrays, strict=True):
        name = str(old.name)
        old.name = None
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype  # type: ignore[union-attr]
        graph.initializers[name] = value
        old.replace_all_uses_with(value)
    read = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in read:
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)
