"""Models of every opset become opset 17, and still say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_text import model
from preparing import HEAD, TAIL, body, buildable, drawn, images, in_opset, last_conv, ops, outputs, prepared

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare.model import prepare


@pytest.mark.parametrize("opset", [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
@pytest.mark.parametrize("batch", ["N", "1"], ids=["dynamic", "static"])
def test_every_opset(tmp_path: Path, opset: int, batch: str) -> None:
    source = prepared(in_opset(opset, batch), tmp_path)
    assert "Dropout" not in ops(source)
    build_artifacts(
        source.path,
        tmp_path / "bundle",
        BuildOptions(features="last", trainable=f"from:{last_conv(source)}"),
    )


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 23])
@pytest.mark.parametrize("end", ["y = Softmax<axis=1>(z)", "y = Softmax(z)", "y = LogSoftmax<axis=-1>(z)"])
def test_probabilities_at_the_end(tmp_path: Path, opset: int, end: str) -> None:
    source = prepared(in_opset(opset, "N", end), tmp_path)
    assert split_head(source.model, "").activation == end.split(" ")[2].split("<")[0].split("(")[0]


def test_ops_younger_than_opset_17_are_rewritten(tmp_path: Path) -> None:
    for number, gelu in enumerate(("Gelu", 'Gelu<approximate="tanh">')):
        nodes = f"c = Conv(x, w) \n g = {gelu}(c) \n t = Conv(g, v) \n {TAIL}"
        folder = tmp_path / str(number)
        folder.mkdir()
        source = prepared(model(body(nodes), 20, **HEAD), folder)
        assert "Gelu" not in ops(source)


def test_mish_is_rewritten(tmp_path: Path) -> None:
    source = prepared(
        model(body(f"c = Conv(x, w) \n g = Mish(c) \n t = Conv(g, v) \n {TAIL}"), 18, **HEAD), tmp_path
    )
    assert "Mish" not in ops(source)
    buildable(source, tmp_path)


def test_group_normalization_is_rewritten(tmp_path: Path) -> None:
    nodes = f"c = Conv(x, w) \n g = GroupNormalization<num_groups=2>(c, s, b) \n t = Conv(g, v) \n {TAIL}"
    source = prepared(model(body(nodes), 21, **HEAD, **drawn(("s", (4,)), ("b", (4,)))), tmp_path)
    assert "InstanceNormalization" in ops(source)
    buildable(source, tmp_path)


def test_reductions_without_axes(tmp_path: Path) -> None:
    """No axes reduces everything, unless `noop_with_empty_axes` says nothing."""
    nodes = (
        "c = Conv(x, w) \n m = ReduceMax(c, all) \n o = ReduceMean<noop_with_empty_axes=1>(c) \n"
        f"a = Add(o, m) \n n = ReduceL2<keepdims=0>(all_w) \n b = Mul(a, n) \n t = Conv(b, v) \n {TAIL}"
    )
    tensors = HEAD | {"all": np.array([0, 1, 2, 3])} | drawn(("all_w", (2, 2)))
    proto = model(body(nodes), 18, **tensors)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    after = ir.to_proto(prepare(path).model)
    np.testing.assert_allclose(outputs(after, images(3)), outputs(proto, images(3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "opset", "element"),
    [
        ("ReduceSum", 13, "Identity(c)"),
        ("ReduceSum", 18, "Identity(c)"),
        ("ReduceMax", 18, "Identity(c)"),
        ("ReduceLogSumExp", 18, "Identity(c)"),
        ("ReduceL1", 18, "Abs(c)"),
        ("ReduceL2", 20, "Abs(c)"),
        ("ReduceSumSquare", 18, "Mul(c, c)"),
    ],
)
@pytest.mark.parametrize("axes", ["", ", none"])
def test_a_reduction_of_nothing_is_one_of_single_elements(
    tmp_path: Path, op: str, opset: int, element: str, axes: str
) -> None:
    """ONNX Runtime 1.17.0 does not run such a ReduceSum, and 1.22.1 leaves the square out."""
    behind = f"b = Conv(a, v) \n {TAIL.replace('(t)', '(b)')}"
    tensors = HEAD | {"none": np.zeros(0, np.int64)}
    reduced = f"c = Conv(x, w) \n a = {op}<noop_with_empty_axes=1>(c{axes}) \n {behind}"
    same = f"c = Conv(x, w) \n a = {element} \n {behind}"
    path = tmp_path / "model.onnx"
    onnx.save(model(body(reduced), opset, **tensors), path)
    after = ir.to_proto(prepare(path).model)
    assert not [node for node in after.graph.node if node.op_type == op]
    expected = outputs(model(body(same), 17, **tensors), images(3))
    np.testing.assert_allclose(outputs(after, images(3)), expected, rtol=1e-5, atol=1e-6)


def test_pooling_with_dilations_of_one_is_lowered(tmp_path: Path) -> None:
    nodes = "c = Conv(x, w) \n a = AveragePool<kernel_shape=[2,2], dilations=[1,1]>(c) \n t = Conv(a, v)"
    buildable(prepared(model(body(f"{nodes} \n {TAIL}"), 19, **HEAD), tmp_path), tmp_path)


def test_split_into_uneven_parts(tmp_path: Path) -> None:
    """`num_outputs` of opset 18 may leave a smaller last part."""
    nodes = (
        "c = Conv(x, w) \n u = Conv(c, v) \n a, b, d = Split<axis=1, num_outputs=3>(u) \n"
        f"e = Concat<axis=1>(d, b, a) \n t = Conv(e, vv) \n {TAIL}"
    )
    tensors = HEAD | drawn(("vv", (5, 5, 3, 3)))
    prepared(model(body(nodes), 18, **tensors), tmp_path)
