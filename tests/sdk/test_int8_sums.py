"""int8 products are added up as they are in int32, on every CPU, however a graph is opened."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from csk_sdk.runtime.sessions import int8_sums_saturate, open_session

ROOT = Path(__file__).parents[2]
# Where graphs are opened, and where it is found out how they must be.
OPENS = {"sdk/csk_sdk/runtime/sessions.py", "sdk/csk_sdk/runtime/int8_sums.py"}


def product() -> tuple[bytes, NDArray[np.uint8], NDArray[np.int64]]:
    """A MatMulInteger of large numbers as a model, its input, and what comes out in exact integers."""
    rng = np.random.default_rng(0)
    x = rng.integers(200, 256, size=(8, 64), dtype=np.uint8)
    weight = rng.integers(100, 128, size=(64, 32)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [8, 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [8, 32])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), x, x.astype(np.int64) @ weight.astype(np.int64)


def test_whether_sums_saturate_is_told_right_of_this_cpu() -> None:
    """Another op, on other numbers, opened without any setting."""
    model, x, expected = product()
    (got,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert int8_sums_saturate() == bool((got != expected).any())


@pytest.mark.parametrize("wide", [None, True])
def test_sums_are_exact(wide: bool | None) -> None:
    model, x, expected = product()
    (got,) = open_session(model, ort.SessionOptions(), wide).run(None, {"x": x})
    np.testing.assert_array_equal(got, expected)


def test_builder_sdk_and_runners_open_graphs_in_one_way() -> None:
    opening = {
        str(path.relative_to(ROOT))
        for package in ("sdk", "artifacts_builder", "device_runners")
        for path in (ROOT / package).rglob("*.py")
        if "js" not in path.relative_to(ROOT).parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "InferenceSession"
    }
    assert opening == OPENS
