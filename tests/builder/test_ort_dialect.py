"""Each rewrite for onnxruntime-training is the same function, by onnx.reference in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model

from csk_artifacts_builder.ort_dialect import _REWRITES, speak_ort

ROWS = {
    "HardSigmoid": ["<>(x)", "<alpha=0.16666667, beta=0.4>(x)"],
    "HardSwish": ["(x)"],
    "LayerNormalization": ["<axis=-1>(x, s)", "<axis=-1, epsilon=0.1>(x, s, b)", "<axis=3>(x, s, b)"],
    "AveragePool": [
        "<kernel_shape=[2,2], strides=[2,2]>(x)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)",
        "<kernel_shape=[3,2], strides=[1,2], pads=[0,1,2,0]>(x)",
        "<kernel_shape=[3,2], strides=[1,2], pads=[0,1,2,0], count_include_pad=1>(x)",
        "<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
        "<kernel_shape=[3,3], strides=[2,2], pads=[1,0,0,1], ceil_mode=1>(x)",
        "<kernel_shape=[6,5]>(x)",
        "<kernel_shape=[1,1], strides=[3,3]>(x)",
    ],
}
CASES = [(op, call) for op, calls in ROWS.items() for call in calls]


def test_every_rewrite_has_a_row() -> None:
    assert set(ROWS) == set(_REWRITES)


@pytest.mark.parametrize(("op", "call"), CASES, ids=[op + call for op, call in CASES])
def test_a_rewrite_is_the_same_function(op: str, call: str) -> None:
    """Behind it stands a Mul, so that what reads the op is seen to read the rewrite."""
    rng = np.random.default_rng(0)
    shape = (2, 3, 6, 5)
    tensors = {"s": rng.normal(size=shape[-1:]), "b": rng.normal(size=shape[-1:])}
    call = call.replace("<>", "")
    source = model(
        f"(float[N,3,6,5] x) => (float[N,3,h,w] y) {{ z = {op} {call} y = Mul(z, z) }}",
        **{
            name: value.astype(np.float32)
            for name, value in tensors.items()
            if f"{name}" in call.split("(")[1]
        },
    )
    rewritten = ir.from_proto(source)
    passes.ShapeInferencePass()(rewritten)
    proto = ir.to_proto(speak_ort(rewritten))
    onnx.checker.check_model(proto, full_check=True)
    assert proto.SerializeToString() != source.SerializeToString()
    kinds = [node.op_type for node in proto.graph.node]
    assert op not in kinds or len(proto.graph.node[0].output) == 3
    x = rng.normal(scale=2.0, size=shape)
    expected = ReferenceEvaluator(in_float64(source)).run(None, {"x": x})[0]
    got = ReferenceEvaluator(in_float64(proto)).run(None, {"x": x})[0]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_layer_norms_that_share_their_parameters_get_their_own() -> None:
    source = model(
        "(float[N,4] x) => (float[N,4] y) { z = LayerNormalization(x, s, b) y = LayerNormalization(z, s, b) }",
        s=np.ones(4, np.float32), b=np.arange(4, dtype=np.float32),
    )  # fmt: skip
    proto = ir.to_proto(speak_ort(ir.from_proto(source)))
    read = [name for node in proto.graph.node for name in node.input[1:]]
    assert len(read) == len(set(read)) == 4
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    expected = ReferenceEvaluator(source).run(None, {"x": x})[0]
    np.testing.assert_allclose(ReferenceEvaluator(proto).run(None, {"x": x})[0], expected, rtol=1e-5)


def test_other_ops_stay_as_they_are() -> None:
    source = model("(float[N,3,4,4] x) => (float[N,3,4,4] y) { z = Relu(x) y = Sigmoid(z) }")
    assert [node.op_type for node in ir.to_proto(speak_ort(ir.from_proto(source))).graph.node] == [
        "Relu",
        "Sigmoid",
    ]
