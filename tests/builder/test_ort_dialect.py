"""What is written in other ops for onnxruntime-training is the same function, on ONNX Runtime and in float64.

That the gradients are right there too is tested where the package is: tests/ort_training/test_gradients.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest

sys.path.append(str(Path(__file__).parent / "gradients"))

from gradient_check import dims_of, run_ort, smooth, tensor
from gradient_row import Row
from kinks import KINKS, Kink
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model
from test_gradient_rows import ROWS

from conftest import REPOSITORY
from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import registered_ops
from csk_artifacts_builder.ort.dialect import REWRITES, speak_ort
from csk_artifacts_builder.ort.missing import MISSING


def rewritten(proto):
    """As if every input were a product of something trained."""
    graph_model = ir.from_proto(proto)
    passes.ShapeInferencePass()(graph_model)
    graph, emit = graph_model.graph, Emitter(graph_model.graph)
    one = emit.initializer(np.ones((), np.float32), "trained")
    for x in list(graph.inputs):
        uses = list(x.uses())
        with emit.before(next(iter(graph))):
            scaled = emit.op("Mul", x, one)
        scaled.shape, scaled.dtype = x.shape, x.dtype
        for node, position in uses:
            node.replace_input_with(position, scaled)
    return ir.to_proto(speak_ort(graph_model, ["trained"]))


@pytest.mark.parametrize("row", [row for row in ROWS if row.op in REWRITES], ids=str)
def test_the_rewritten_graph_computes_the_same(row: Row) -> None:
    rng = np.random.default_rng(0)
    proto = model(row.text, **{name: tensor(rng, spec) for name, spec in row.tensors.items()})
    feeds = {value.name: smooth(rng, dims_of(value), row) for value in proto.graph.input}
    other = rewritten(proto)
    right, got = (run_ort(one, feeds)["y"] for one in (proto, other))
    np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)
    if row.op in MISSING:
        assert row.op not in {node.op_type for node in other.graph.node} - {"ReduceMax", "ReduceMin"}


@pytest.mark.parametrize("kink", [kink for kink in KINKS if kink.op in REWRITES], ids=str)
def test_at_a_kink_too(kink: Kink) -> None:
    """To one float32: a bound of Clip is moved inwards by as much."""
    proto = model(kink.text, **kink.tensors)
    right, got = (run_ort(one, kink.feeds)["y"] for one in (proto, rewritten(proto)))
    np.testing.assert_allclose(got, right, rtol=2e-7, atol=1e-30)


CALLS = {
    "HardSigmoid": ["(t)", "<alpha=0.16666667, beta=0.4>(t)"],
    "HardSwish": ["(t)"],
    "LayerNormalization": ["<axis=-1>(t, s)", "<axis=-1, epsilon=0.1>(t, s, b)", "<axis=3>(t, s, b)"],
    "AveragePool": [
        "<kernel_shape=[2,2], strides=[2,2]>(t)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(t)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(t)",
        "<kernel_shape=[3,2], strides=[1,2], pads=[0,1,2,0]>(t)",
        "<kernel_shape=[3,2], strides=[1,2], pads=[0,1,2,0], count_include_pad=1>(t)",
        "<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(t)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,0,0,1], ceil_mode=1>(t)",
        "<kernel_shape=[6,5]>(t)",
        "<kernel_shape=[1,1], strides=[3,3]>(t)",
    ],
}
CASES = [(op, call) for op, calls in CALLS.items() for call in calls]


@pytest.mark.parametrize(("op", "call"), CASES, ids=[op + call for op, call in CASES])
def test_a_rewrite_is_the_same_function_by_the_reference(op: str, call: str) -> None:
    """Behind it stands a Mul, so that what reads the op is seen to read the rewrite."""
    rng = np.random.default_rng(0)
    shape = (2, 3, 6, 5)
    tensors = {"s": rng.normal(size=shape[-1:]), "b": rng.normal(size=shape[-1:]), "trained": np.array(1.0)}
    used = {name: value for name, value in tensors.items() if name == "trained" or name in call.split("(")[1]}
    source = model(
        f"(float[N,3,6,5] x) => (float[N,3,h,w] y) {{ t = Mul(x, trained) \n z = {op} {call} y = Mul(z, z) }}",
        **used,
    )
    graph_model = ir.from_proto(source)
    passes.ShapeInferencePass()(graph_model)
    proto = ir.to_proto(speak_ort(graph_model, ["trained"]))
    onnx.checker.check_model(proto, full_check=True)
    assert proto.SerializeToString() != source.SerializeToString()
    kinds = [node.op_type for node in proto.graph.node]
    assert op not in kinds or len(proto.graph.node[1].output) == 3
    x = rng.normal(scale=2.0, size=shape)
    expected = ReferenceEvaluator(in_float64(source)).run(None, {"x": x})[0]
    got = ReferenceEvaluator(in_float64(proto)).run(None, {"x": x})[0]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_layer_norms_that_share_their_parameters_get_their_own() -> None:
    source = model(
        "(float[N,4] x) => (float[N,4] y) { t = Mul(x, trained) \n z = LayerNormalization(t, s, b) "
        "y = LayerNormalization(z, s, b) }",
        s=np.ones(4, np.float32), b=np.arange(4, dtype=np.float32), trained=np.array(1.0),
    )  # fmt: skip
    proto = ir.to_proto(speak_ort(ir.from_proto(source), ["trained"]))
    read = [
        name for node in proto.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:]
    ]
    assert len(read) == len(set(read)) == 4
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = ReferenceEvaluator(source).run(None, {"x": x})[0]
    np.testing.assert_allclose(ReferenceEvaluator(proto).run(None, {"x": x})[0], expected, rtol=1e-5)


def test_other_ops_stay_as_they_are() -> None:
    source = model(
        "(float[N,3,4,4] x) => (float[N,3,4,4] y) { t = Mul(x, trained) z = Relu(t) y = Sigmoid(z) }",
        trained=np.array(1.0),
    )
    proto = ir.to_proto(speak_ort(ir.from_proto(source), ["trained"]))
    assert [node.op_type for node in proto.graph.node] == ["Mul", "Relu", "Sigmoid"]


def test_a_clip_between_computed_bounds_is_a_choice() -> None:
    proto = model(
        "(float[N,3] x, float a) => (float[N,3] y) { b = Add(a, one) \n y = Clip(x, a, b) }",
        one=np.array(1.0),
    )
    other = rewritten(proto)
    assert [node.op_type for node in other.graph.node if node.op_type == "Where"] == ["Where"] * 2
    feeds = {"x": np.array([[-1.0, 0.5, 3.0]], np.float32), "a": np.array(0.25, np.float32)}
    np.testing.assert_array_equal(run_ort(other, feeds)["y"], [[0.25, 0.5, 1.25]])


def test_what_lies_in_front_of_all_that_is_trained_stays() -> None:
    proto = model(
        "(float[N,3] x) => (float[N,3] y) { a = Elu(x) \n b = Mul(a, trained) \n y = Elu(b) }",
        trained=np.array([1.0, 2.0, 3.0]),
    )
    graph_model = ir.from_proto(proto)
    passes.ShapeInferencePass()(graph_model)
    speak_ort(graph_model, ["trained"])
    assert [node.op_type for node in graph_model.graph].count("Elu") == 1
    assert next(iter(graph_model.graph)).op_type == "Elu"


def test_only_ops_with_a_rule_are_rewritten() -> None:
    """Others never come so far in a bundle for both backends."""
    assert set(REWRITES) <= registered_ops()


def test_the_page_has_every_op_that_is_rewritten() -> None:
    page = (REPOSITORY / "docs" / "gradients.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Where onnxruntime-training 1.19.2 differs")
    table = [row for row in section.splitlines() if row.startswith("| `")]
    written = {name for row in table for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert written == {*REWRITES, "BatchNormalization", "auto_pad"}
