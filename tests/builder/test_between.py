"""Between convolutions in int8: what reads u8 instead of float32, and says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_text import model

from csk_artifacts_builder.int8.quantize import Calibration, Range, quantize
from csk_sdk.runtime.sessions import open_session

TOP = 6.0
MASKED = """(float[N,3,8,8] x, float[C,4] weight) => (float[N,C] y, bool[N,4,8,8] above, bool[N,4,8,8] below,
                                                    float[N,4,8,8] shown, float[N,2,8,8] some) {
    [one] a = Conv <pads=[1,1,1,1]> (x, one_w)
    r = Clip(a, zero, top)
    shown = Relu(r)
    g = Greater(r, low)
    l = Less(r, high)
    above = Not(g)
    below = Not(l)
    c = Gather <axis=1> (r, chosen)
    some = Relu(c)
    m = GlobalAveragePool(r)
    f = Flatten(m)
    y = Gemm <transB=1> (f, weight)
}"""


def masked(low: float, high: float, widest: float = 9.0) -> tuple[ir.Model, dict[str, NDArray]]:
    """In int8: what compares with `low` and `high`, and takes two channels."""
    rng = np.random.default_rng(0)
    proto = model(
        MASKED,
        one_w=rng.normal(size=(4, 3, 3, 3)),
        zero=np.array(0.0),
        top=np.array(TOP),
        low=np.array(low),
        high=np.array(high),
        chosen=np.array([2, 0]),
    )
    graph = ir.from_proto(proto)
    quantize(graph, Calibration({"one": Range(-3, 3)}, {"one": Range(-widest, widest)}, {}), "weight")
    session = open_session(ir.to_proto(graph).SerializeToString(), ort.SessionOptions())
    x = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {"x": x, "weight": np.eye(4, dtype=np.float32)})
    return graph, dict(zip(names, found, strict=True))


def ops(graph: ir.Model) -> set[str]:
    return {node.op_type for node in graph.graph}


STEP = np.float32(TOP / 255)


@pytest.mark.parametrize("low", [0.0, float(STEP / 3), float(np.nextafter(STEP, 0))])
def test_a_mask_of_u8_is_the_mask_of_its_numbers(low: float) -> None:
    high = TOP
    graph, found = masked(low, high)
    assert "Greater" not in ops(graph)
    assert 0 < found["above"].mean() < 1
    assert 0 < found["below"].mean() < 1
    np.testing.assert_array_equal(found["above"], found["shown"] <= np.float32(low))
    np.testing.assert_array_equal(found["below"], found["shown"] >= np.float32(high))


@pytest.mark.parametrize(
    ("low", "high", "widest"),
    [(1.234, 4.321, 9.0), (float(STEP), 0.5, 9.0), (-1.0, TOP, 4.0)],
    ids=["between", "on a step", "below the end"],
)
def test_other_masks_are_of_float32_as_before(low: float, high: float, widest: float) -> None:
    """More than one number is outside, or none."""
    graph, found = masked(low, high, widest)
    assert "Greater" in ops(graph)
    np.testing.assert_array_equal(found["above"], found["shown"] <= np.float32(low))
    np.testing.assert_array_equal(found["below"], found["shown"] >= np.float32(high))


def test_channels_are_chosen_of_u8() -> None:
    graph, found = masked(0.0, TOP)
    (gather,) = [node for node in graph.graph if node.op_type == "Gather"]
    source = gather.inputs[0]
    assert source is not None
    assert source.producer().op_type == "QLinearConv"
    np.testing.assert_array_equal(found["some"], found["shown"][:, [2, 0]])


LAYOUTS = """(float[N,3,8,8] x, float[C,4] weight, float[4,1,3,3] center) => (float[N,C] y) {
    [one] a = Conv <pads=[1,1,1,1]> (x, one_w)
    ra = Relu(a)
    [two] b = Conv <pads=[1,1,1,1]> (ra, two_w)
    rb = Relu(b)
    s = Add(ra, rb)
    [three] c = Conv <pads=[1,1,1,1]> (s, three_w)
    t = Mul(c, c)
    [site] d = Conv <pads=[1,1,1,1], group=4> (t, center)
    m = GlobalAveragePool(d)
    f = Flatten(m)
    y = Gemm <transB=1> (f, weight)
}"""


def test_the_runtime_transposes_bytes_where_a_float_kernel_reads(tmp_path: Path) -> None:
    """Behind the last int8 kernel channels come first in u8; the sum of two u8 tensors is none of a float kernel's."""
    rng = np.random.default_rng(1)
    kernels = {f"{name}_w": rng.normal(size=(4, 4, 3, 3)) / 6 for name in ("two", "three")}
    proto = model(LAYOUTS, one_w=rng.normal(size=(4, 3, 3, 3)) / 5, **kernels)
    graph = ir.from_proto(proto)
    spans = {"one": Range(-4, 4), "two": Range(0, 4), "three": Range(-8, 8)}
    quantize(graph, Calibration(spans, dict.fromkeys(spans, Range(-5, 5)), {}), "weight")
    kept = [node for node in graph.graph if node.op_type == "Reshape"]
    (last,) = [node for node in graph.graph if node.op_type == "QLinearConv"][2:]
    assert [node.inputs[0] for node in kept] == [last.outputs[0]]

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    content = ir.to_proto(graph).SerializeToString()
    session = open_session(content, options)
    feeds = {
        "x": rng.normal(size=(2, 3, 8, 8)).astype(np.float32),
        "weight": np.eye(4, dtype=np.float32),
        "center": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
    }
    exact = ort.InferenceSession(proto.SerializeToString()).run(["y"], feeds)[0]
    found = session.run(["y"], feeds)[0]
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)

    optimized = onnx.load(tmp_path / "optimized.onnx").graph.node
    makers = {name: node.op_type for node in optimized for name in node.output}
    assert "DequantizeLinear" not in {
        makers.get(node.input[0]) for node in optimized if node.op_type == "Transpose"
    }
