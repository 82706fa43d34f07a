"""Pools: what they compute by definition, in a form that no declared runtime reads otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_text import initializer, model
from pool_rows import ROWS, PoolRow, convolved, pooled

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_artifacts_builder.emit import attribute, constant_array
from csk_artifacts_builder.measure import running
from csk_artifacts_builder.prepare.model import prepare
from csk_artifacts_builder.prepare.pools import write_windows
from csk_device_runners import check_bundle
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ModelError

LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def run(proto: onnx.ModelProto, x: NDArray, level: object) -> NDArray:
    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 4, level
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def assert_one_reading(source: ir.Model) -> None:
    """No pool with a rule that releases read differently, and no zeros in front of one that they would swallow."""
    for node in source.graph:
        if node.op_type not in ("MaxPool", "AveragePool"):
            continue
        assert attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        assert not attribute(node, "ceil_mode", 0)
        assert node.op_type == "MaxPool" or set(attribute(node, "dilations", [1])) == {1}
        kernel, pads = attribute(node, "kernel_shape"), attribute(node, "pads", [0])
        assert max(pads) < max(kernel)
        pad = node.inputs[0].producer()
        if pad is not None and pad.op_type == "Pad":
            assert constant_array(pad.inputs[2]) != 0


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_prepared_as_defined(row: PoolRow, tmp_path: Path) -> None:
    onnx.save(row.proto(), tmp_path / "model.onnx")
    source = prepare(tmp_path / "model.onnx")
    assert_one_reading(source.model)
    x = np.random.default_rng(0).normal(size=(2, 2, *row.size)).astype(np.float32)
    for level in LEVELS:
        got = run(ir.to_proto(source.model), x, level)
        np.testing.assert_allclose(got, row.expected(x), rtol=1e-5, atol=1e-5)


# Of opsets in which pads of a Pad were attributes, and a Max had no broadcasting (7): what stands in front, the pool.
OLD = [
    *[(opset, (1, 1, 1, 1), "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2]}) for opset in range(7, 11)],
    *[(opset, (3, 3, 4, 3), "MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4}) for opset in range(7, 11)],
    *[(opset, (1, 0, 0, 1), "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2]}) for opset in range(7, 11)],
    (10, (0,) * 4, "MaxPool", {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1,
                               "dilations": [2, 2]}),
    (10, (0,) * 4, "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1,
                                   "count_include_pad": 1}),
]  # fmt: skip


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize(("opset", "pads", "op", "attributes"), OLD)
def test_windows_are_written_in_the_opset_of_the_source(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opset: int,
    pads: tuple[int, ...],
    op: str,
    attributes: dict,
    ir_version: int,
) -> None:
    """Older runtimes are shown the source with its windows as numbers; this one is here, too."""
    front = f"q = Pad<pads={[0, 0, *pads[:2], 0, 0, *pads[2:]]}>(c)" if any(pads) else "q = Identity(c)"
    given = ", ".join(f"{name}={value}" for name, value in attributes.items())
    nodes = f"c = Conv<pads=[1,1,1,1]>(x, w) {front} p = {op}<{given}>(q)"
    nodes += " m = GlobalAveragePool(p) f = Flatten(m) y = Gemm(f, h, b)"
    text = f"(float[N,2,16,16] x) => (float[N,3] y) {{ {nodes} }}"
    rng = np.random.default_rng(0)
    proto = model(text, opset, w=rng.normal(size=(4, 2, 3, 3)), h=rng.normal(size=(4, 3)), b=np.full(3, 0.1))
    proto.ir_version = ir_version
    for tensor in proto.graph.initializer if ir_version < 4 else ():
        one = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(one)
    onnx.save(proto, tmp_path / "model.onnx")
    monkeypatch.setattr(running, "_ONE_READING", (1000, 0))
    try_model(tmp_path / "model.onnx", BuildOptions(trainable="all"))  # compares it with the prepared graph
    written = running.rewritten_source(prepare(tmp_path / "model.onnx"))
    onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
    x = rng.normal(size=(3, 2, 16, 16)).astype(np.float32)
    w, h, b = (onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in proto.graph.initializer)
    before = np.pad(
        convolved(x.astype(np.float64), w), [(0, 0), (0, 0), *zip(pads[:2], pads[2:], strict=True)]
    )
    expected = pooled(op, before, **attributes).mean(axis=(2, 3)) @ h + b
    np.testing.assert_allclose(
        run(onnx.load_from_string(written), x, LEVELS[0]), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("row", [ROWS[0], ROWS[4], ROWS[14], ROWS[19]], ids=str)
def test_gradients_of_a_bundle(row: PoolRow, tmp_path: Path) -> None:
    onnx.save(row.proto(), tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
    assert [result for result in check_bundle(tmp_path / "bundle") if not result.passed] == []


def test_zeros_that_can_change_nothing_cost_nothing(tmp_path: Path) -> None:
    """Behind a Relu no maximum is less than 0: the Pad that Keras writes in front of a stem's pool is gone."""
    onnx.save(ROWS[1].proto(), tmp_path / "model.onnx")
    names = [node.op_type for node in prepare(tmp_path / "model.onnx").model.graph]
    assert names == ["Conv", "Relu", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize("batch", ["1", "N"])
def test_windows_that_torch_leaves_out_in_front_of_a_flatten(batch: str, tmp_path: Path) -> None:
    """torch writes the classifier for 3x3 windows; onnx's own inference counts 4x4 below opset 22, and refuses it."""
    text = f"""(float[{batch},2,8,8] x) => (float[{batch},3] y) {{
    [first] c = Conv<pads=[1,1,1,1]>(x, w)
    p = MaxPool<kernel_shape=[2,2], strides=[3,3], pads=[1,1,1,1], ceil_mode=1>(c)
    f = Flatten(p) [head] y = Gemm<transB=1>(f, h, hb) }}"""
    rng = np.random.default_rng(0)
    tensors = {"w": rng.normal(size=(4, 2, 3, 3)), "h": rng.normal(size=(3, 36)), "hb": rng.normal(size=3)}
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    proto.graph.initializer.extend(initializer(name, array) for name, array in tensors.items())
    onnx.save(proto, tmp_path / "model.onnx")
    build_artifacts(
        tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all", features="last")
    )
    assert Bundle.open(tmp_path / "bundle").manifest.head.features == 36
    source = prepare(tmp_path / "model.onnx")
    x = rng.normal(size=(3, 2, 8, 8)).astype(np.float32)
    one = {name: array.astype(np.float32).astype(np.float64) for name, array in tensors.items()}
    before = convolved(x.astype(np.float64), one["w"])
    seen = pooled("MaxPool", before, [2, 2], [3, 3], [1, 1, 1, 1], ceil_mode=1)
    expected = seen.reshape(3, -1) @ one["h"].T + one["hb"]
    np.testing.assert_allclose(run(ir.to_proto(source.model), x, LEVELS[1]), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("noop", ["i = Mul(q, one)", "i = Add(q, zero)", "i = Identity(q)", "i = Dropout(q)"])
def test_zeros_behind_what_a_runtime_takes_away(noop: str, tmp_path: Path) -> None:
    text = f"""(float[N,1,6,6] x) => (float[N,9] y) {{
    c = Conv(x, w) q = Pad(c, around) {noop} p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(i)
    f = Flatten(p) y = Gemm(f, h) }}"""
    tensors = {"w": -np.ones((1, 1, 1, 1)), "around": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "h": np.eye(9)}
    onnx.save(model(text, one=np.array(1.0), zero=np.array(0.0), **tensors), tmp_path / "model.onnx")
    source = prepare(tmp_path / "model.onnx")
    assert "Pad" not in [node.op_type for node in source.model.graph]


def test_a_window_without_a_pixel_is_refused(tmp_path: Path) -> None:
    text = """(float[N,1,5,5] x) => (float[N,9] y) {
    c = Conv(x, w) [far] p = MaxPool<kernel_shape=[2,2], dilations=[6,6], pads=[1,1,1,1]>(c)
    f = Flatten(p) y = Gemm(f, h) }"""
    onnx.save(model(text, w=np.ones((1, 1, 1, 1)), h=np.ones((1, 9))), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model.onnx: 'far' \(MaxPool\) has a window in its padding alone"):
        prepare(tmp_path / "model.onnx")


def vectors() -> Iterator[tuple[str, onnx.ModelProto, NDArray, NDArray]]:
    """The ONNX project's own cases of pools in one and two dimensions, which it computes when they are imported."""
    from onnx.backend.test.case import node as cases
    from onnx.backend.test.case.node import averagepool, maxpool

    assert averagepool
    assert maxpool  # imported: each module adds its cases to the list
    for case in cases._NodeTestCases:
        node = case.model.graph.node[0]
        if node.op_type not in ("AveragePool", "MaxPool") or len(node.output) > 1:
            continue
        (x, *_), (y, *_) = case.data_sets[0]
        if x.dtype == np.float32 and x.ndim in (3, 4):
            yield case.name, case.model, x, y


def test_vectors_of_the_onnx_project() -> None:
    found = list(vectors())
    assert len(found) >= 20
    for name, proto, x, y in found:
        source = ir.from_proto(proto)
        write_windows(source, name)
        assert_one_reading(source)
        if "ceil_mode" in str(proto) or "auto_pad" in str(proto):
            shape = ir.to_proto(source).graph.output[0].type.tensor_type.shape
            assert [dim.dim_value for dim in shape.dim] == list(y.shape), name
        source.graph.opset_imports[""], source.ir_version = 17, 8
        # Its numbers are written with four digits, and compared like this.
        got = run(ir.to_proto(source), x, LEVELS[1])
        np.testing.assert_allclose(got, y, rtol=1e-3, atol=1e-5, err_msg=name)


@st.composite
def drawn(draw: st.DrawFn) -> PoolRow:
    rank = draw(st.integers(1, 2))

    def each(least: int, most: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(least, most), min_size=count, max_size=count))

    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    kernel = each(1, 4)
    attributes = {"kernel_shape": kernel, "strides": each(1, 4)}
    mode = draw(st.sampled_from(["NOTSET"] * 3 + ["SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    else:
        attributes["auto_pad"] = mode
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    opset = draw(st.sampled_from([11, 17, 18, 19, 22]))
    if draw(st.booleans()) and (op == "MaxPool" or opset >= 19):
        attributes["dilations"] = each(1, 3)
    pads = tuple(each(0, 4, 2 * rank)) if draw(st.booleans()) else ()
    size = tuple(each(3, 10))
    return PoolRow("drawn", op, size, attributes, pads if any(pads) else (), draw(st.booleans()), opset)


@pytest.mark.slow
@given(drawn())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_pool(tmp_path_factory: pytest.TempPathFactory, row: PoolRow) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, *row.size)).astype(np.float32)
    size = tuple(n + b + e for n, b, e in zip(row.size, *_halves(row.pads, len(row.size)), strict=True))
    spans = [
        d * (k - 1) + 1
        for k, d in zip(row.pool["kernel_shape"], row.pool.get("dilations", [1, 1]), strict=False)
    ]
    assume(all(n >= span for n, span in zip(size, spans, strict=True)))
    assume(np.isfinite(pooled(row.op, np.zeros((1, 1, *size)), **row.pool)).all())
    path = tmp_path_factory.mktemp("drawn") / "model.onnx"
    onnx.save(row.proto(), path)
    source = prepare(path)
    assert_one_reading(source.model)
    for level in LEVELS:
        np.testing.assert_allclose(
            run(ir.to_proto(source.model), x, level), row.expected(x), rtol=1e-5, atol=1e-5
        )


def _halves(pads: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (pads[:rank], pads[rank:]) if pads else ((0,) * rank, (0,) * rank)
