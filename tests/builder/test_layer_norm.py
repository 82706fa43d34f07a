"""LayerNormalization of rows with a large mean, and of rows of one value, against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import outputs

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.prepare.layer_norm import center_layer_norms
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import EVAL_MODEL, EXPORT_TEMPLATE, MEMORY_MODEL, TRAINING_MODEL

WIDTH = 16
RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.normal(0, 0.3, (WIDTH, 2, 3, 3)),
    "s": RNG.normal(1, 0.2, WIDTH),
    "b": RNG.normal(0, 0.2, WIDTH),
    "h": RNG.normal(0, 0.4, (3, WIDTH)),
    "hb": np.zeros(3),
    "two": np.array(2.0),
    "epsilon": np.array(1e-5),
}
OP = "n = LayerNormalization(t, s, b)"
# As torch writes it below opset 17, and as others do: a product for the power, the difference twice.
BASIC = """m = ReduceMean<axes=[-1]>(t) d = Sub(t, m) q = Pow(d, two) v = ReduceMean<axes=[-1]>(q)
    a = Add(v, epsilon) r = Sqrt(a) u = Div(d, r) k = Mul(u, s) n = Add(k, b)"""
OTHERS = """m = ReduceMean<axes=[3]>(t) d = Sub(t, m) e = Sub(t, m) q = Mul(e, e) v = ReduceMean<axes=[3]>(q)
    a = Add(epsilon, v) r = Sqrt(a) u = Div(d, r) k = Mul(s, u) n = Add(b, k)"""
PLAIN = BASIC.replace("u = Div(d, r) k = Mul(u, s) n = Add(k, b)", "n = Div(d, r)")


def classifier(nodes: str) -> onnx.ModelProto:
    """Conv -> channels last -> `nodes` from t to n -> channels first -> mean -> logits."""
    text = f"""(float[N,2,5,5] x) => (float[N,3] y) {{
    [first] c = Conv<pads=[1,1,1,1]>(x, w) t = Transpose<perm=[0,2,3,1]>(c) {nodes}
    i = Transpose<perm=[0,3,1,2]>(n) p = GlobalAveragePool(i) f = Flatten(p)
    [head] y = Gemm<transB=1>(f, h, hb) }}"""
    return model(text, **TENSORS)


def normalised(x: NDArray, scale: NDArray | float = 1.0, bias: NDArray | float = 0.0) -> NDArray:
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5) * scale + bias


def rows(mean: float) -> NDArray[np.float32]:
    """Rows of a large mean and small differences, and in front one of a single value."""
    x = mean + np.random.default_rng(1).integers(0, 2, (6, WIDTH))
    x[0] = mean
    return x.astype(np.float32)


def centered() -> onnx.ModelProto:
    """A layer norm of x `(N, 16)` as the builder writes it, and only once."""
    text = f"(float[N,{WIDTH}] x) => (float[N,{WIDTH}] y) {{ y = LayerNormalization(x, s, b) }}"
    norm = ir.from_proto(model(text, s=TENSORS["s"], b=TENSORS["b"]))
    for _ in range(2):
        center_layer_norms(norm)
    norm.graph.sort()
    return ir.to_proto(norm)


@pytest.mark.parametrize("mean", [0.0, 3.3, 1e3, 1e4, -1e5])
def test_a_large_mean_changes_nothing(mean: float) -> None:
    proto, x = centered(), rows(mean)
    assert [node.op_type for node in proto.graph.node] == ["ReduceMean", "Sub", "LayerNormalization"]
    scale, bias = TENSORS["s"].astype(np.float32), TENSORS["b"].astype(np.float32)
    expected = normalised(x.astype(np.float64), scale, bias)
    np.testing.assert_allclose(outputs(proto, x), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("nodes", [OP, BASIC, OTHERS], ids=["op", "basic", "others"])
def test_every_graph_of_a_bundle_is_centered(nodes: str, tmp_path: Path) -> None:
    onnx.save(classifier(nodes), tmp_path / "model.onnx")
    build_artifacts(
        tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all", features="last")
    )
    bundle = Bundle.open(tmp_path / "bundle")
    for name in (TRAINING_MODEL, EVAL_MODEL, MEMORY_MODEL, EXPORT_TEMPLATE):
        graph = onnx.load(bundle.path(name), load_external_data=False).graph
        made_by = {output: node for node in graph.node for output in node.output}
        (norm,) = [node for node in graph.node if node.op_type == "LayerNormalization"]
        assert made_by[norm.input[0]].op_type == "Sub", name
        assert made_by[made_by[norm.input[0]].input[1]].op_type == "ReduceMean", name
        assert "Pow" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("nodes", [BASIC, OTHERS, PLAIN], ids=["basic", "others", "plain"])
def test_basic_ops_become_the_op(nodes: str, tmp_path: Path) -> None:
    proto = classifier(nodes)
    onnx.save(proto, tmp_path / "model.onnx")
    source = prepare(tmp_path / "model.onnx")
    kinds = [node.op_type for node in source.model.graph]
    assert kinds == [
        "Conv",
        "Transpose",
        "LayerNormalization",
        "Transpose",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    x = np.random.default_rng(0).normal(size=(4, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(outputs(ir.to_proto(source.model), x), outputs(proto, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "nodes"),
    [
        ("another exponent", BASIC.replace("Pow(d, two)", "Pow(d, epsilon)")),
        ("inner axis", PLAIN.replace("[-1]", "[2]")),
        ("another's square", PLAIN.replace("Pow(d, two)", "Pow(t, two)")),
        (
            "variance over other axes",
            PLAIN.replace("v = ReduceMean<axes=[-1]>", "v = ReduceMean<axes=[2,3]>"),
        ),
    ],
)
def test_what_only_looks_alike_stays(what: str, nodes: str, tmp_path: Path) -> None:
    onnx.save(classifier(nodes), tmp_path / "model.onnx")
    kinds = [node.op_type for node in prepare(tmp_path / "model.onnx").model.graph]
    assert "LayerNormalization" not in kinds, what
    assert "Div" in kinds


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [1, 2, -2])
def test_a_norm_over_several_axes_becomes_one_over_a_single_axis(axis: int, bias: bool) -> None:
    sizes = (3, 4, 5)[axis - 1 if axis > 0 else 1 :]
    scale, shift = (RNG.normal(size=sizes) for _ in range(2))
    text = f"""(float[N,3,4,5] x) => (float[N,3,4,5] y) {{
        y = LayerNormalization<axis={axis}, epsilon=0.01>(x, s{", b" if bias else ""}) }}"""
    tensors = {"s": scale, "b": shift} if bias else {"s": scale}
    norm = ir.from_proto(onnx.shape_inference.infer_shapes(model(text, **tensors)))
    for _ in range(2):
        center_layer_norms(norm)
    norm.graph.sort()
    proto = ir.to_proto(norm)
    assert [node.op_type for node in proto.graph.node if node.op_type != "Constant"] == [
        *("Reshape", "ReduceMean", "Sub", "LayerNormalization", "Reshape")
    ]
    x = np.random.default_rng(3).normal(2.0, size=(2, 3, 4, 5)).astype(np.float32)
    axes = tuple(range(4))[axis:]
    centered_x = x.astype(np.float64) - x.mean(axis=axes, keepdims=True, dtype=np.float64)
    expected = centered_x / np.sqrt((centered_x**2).mean(axis=axes, keepdims=True) + 0.01) * scale
    expected += shift if bias else 0.0
    np.testing.assert_allclose(outputs(proto, x), expected, atol=1e-5)
