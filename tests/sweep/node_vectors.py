"""The ONNX project's own node vectors (onnx.backend.test) of every op of the reference, and networks around them.

A network hands the vector's input through a convolution that changes nothing (depthwise, 1 in the middle) to the op,
and its features are what the op gives: so builder and runtimes are held against numbers that nobody here computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from nodes import CLASSES
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from reference import OPS

OLDEST, NEWEST = 11, 23
# A head holds as many columns, and class statistics the square of it.
_MOST_FEATURES = 4096
# Where the vectors and the specification's text, torch and all runtimes differ, or training is meant.
LEFT_OUT = {
    "test_resize_downsample_scales_linear_align_corners": "divides by a length that is not whole",
    "test_resize_downsample_scales_cubic_align_corners": "divides by a length that is not whole",
    "test_batchnorm_example_training_mode": "training mode",
    "test_batchnorm_epsilon_training_mode": "training mode",
    "test_training_dropout_default": "random",
    "test_training_dropout_default_mask": "random",
    "test_training_dropout": "random",
    "test_training_dropout_mask": "random",
    "test_reduce_max_empty_set": "nothing to reduce: infinite",
    "test_reduce_min_empty_set": "nothing to reduce: infinite",
    "test_spacetodepth_crd_mode_example": "of opset 28",
}


@dataclass(frozen=True)
class Vector:
    """One node with its inputs and its first output, in float32."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, NDArray]
    output: NDArray

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]


def node_vectors() -> Iterator[Vector]:
    """Those of one node, in float32, of an op that the reference has; newer ones in opset 23 where that knows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases()
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPS or case.name in LEFT_OUT:
            continue
        given, (output, *_) = case.data_sets[0]
        if not isinstance(output, np.ndarray) or output.dtype != np.float32 or not given:
            continue
        if not all(isinstance(one, np.ndarray) for one in given):
            continue
        names = [value.name for value in case.model.graph.input]
        model = _in_known_opset(case.model)
        if model is not None:
            yield Vector(case.name, model, dict(zip(names, given, strict=True)), output)


def _in_known_opset(model: onnx.ModelProto) -> onnx.ModelProto | None:
    version = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.opset_import[:]
    copy.opset_import.append(helper.make_opsetid("", min(max(version, OLDEST), NEWEST)))
    try:
        onnx.checker.check_model(copy)
    except onnx.checker.ValidationError:
        return None
    return copy


def around(vector: Vector) -> tuple[onnx.ModelProto, NDArray] | None:
    """A classifier around the vector's node, and the image that is its input; None where there is no batch."""
    node = vector.node
    first = node.input[0] if node.op_type != "Where" else node.input[1]
    x = vector.inputs.get(first)
    if (
        x is None
        or x.dtype != np.float32
        or x.ndim < 2
        or not x.size
        or not vector.output.size
        or vector.output.ndim < 2
    ):
        return None
    if vector.output.shape[0] != x.shape[0] or vector.output[0].size > _MOST_FEATURES:
        return None
    # Signals of three axes and images of four go in as they are; other inputs as images of one row or channel.
    shape = x.shape if x.ndim == 4 else (x.shape[0], 1, int(np.prod(x.shape[1:-1])), x.shape[-1])
    channels = shape[1]
    same = np.zeros((channels, 1, 3, 3), np.float32)
    same[:, :, 1, 1] = 1.0
    features = int(np.prod(vector.output.shape[1:]))
    rng = np.random.default_rng(0)
    head = rng.normal(scale=features**-0.5, size=(CLASSES, features)).astype(np.float32)
    constants = {"first_w": same, "head_w": head, "head_b": np.zeros(CLASSES, np.float32)}
    constants |= {name: value for name, value in vector.inputs.items() if name != first}
    nodes = [helper.make_node("Conv", ["x", "first_w"], ["seen"], "first", pads=[1, 1, 1, 1], group=channels)]
    taken = "seen"
    if x.shape != shape:
        constants["shape"] = np.array([-1, *x.shape[1:]])
        nodes.append(helper.make_node("Reshape", ["seen", "shape"], ["taken"], "take"))
        taken = "taken"
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = "op"
    for place, name in enumerate(copy.input):
        copy.input[place] = taken if name == first else name
    # Only the first output has a reader.
    nodes += [
        copy,
        helper.make_node("Flatten", [copy.output[0]], ["features"], "flat"),
        helper.make_node("Gemm", ["features", "head_w", "head_b"], ["logits"], "head", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        vector.name,
        [value("x", TensorProto.FLOAT, ["N", *shape[1:]])],
        [value("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", vector.model.opset_import[0].version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), x.reshape(shape)
