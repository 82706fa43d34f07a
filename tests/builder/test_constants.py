"""What a graph computes from constants is folded, whatever its size, by ONNX Runtime at the model's own opset."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_text import model
from preparing import HEAD, TAIL, body, buildable, images, ops, outputs, prepared
from small_models import classifier, text, unchecked

from csk_artifacts_builder.emit import constant_array
from csk_artifacts_builder.prepare import constants
from csk_artifacts_builder.prepare.model import prepare

RNG = np.random.default_rng(0)
WIDE = RNG.normal(0, 0.1, (64, 40, 3, 3))  # 23,040 elements
GAIN = RNG.uniform(0.5, 2, (64, 1, 1, 1))


def wide(kernel: str, opset: int = 17) -> onnx.ModelProto:
    """The second of two convolutions reads the kernel `k`."""
    tensors = {
        "first": RNG.normal(0, 0.3, (40, 3, 3, 3)),
        "raw": WIDE,
        "gain": GAIN,
        "axes": np.array([1, 2, 3]),
        "h": RNG.normal(0, 0.3, (3, 64)),
        "hb": RNG.normal(0, 0.3, 3),
    }
    nodes = f"c = Conv(x, first) \n r = Relu(c) \n {kernel} \n t = Conv(r, k) \n {TAIL}"
    return model(body(nodes), opset, **{name: array for name, array in tensors.items() if name in nodes})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "opset"),
    [
        ("n = ReduceL2<axes=[1,2,3]>(raw) \n d = Div(raw, n) \n k = Mul(d, gain)", 17),
        ("n = ReduceL2(raw, axes) \n d = Div(raw, n) \n k = Mul(d, gain)", 20),
        ("s = Softmax(raw) \n k = Mul(s, gain)", 12),
        ("a = Transpose<perm=[3,2,1,0]>(raw) \n k = Transpose<perm=[3,2,1,0]>(a)", 17),
    ],
    ids=["weight-norm", "weight-norm-20", "softmax-of-all-axes", "turned-twice"],
)
def test_a_large_kernel_of_constants_is_a_site(tmp_path: Path, kernel: str, opset: int) -> None:
    """It was left out without a word above 8,192 elements."""
    source = prepared(wide(kernel, opset), tmp_path)
    assert ops(source)[:3] == ["Conv", "Relu", "Conv"]
    bundle = buildable(source, tmp_path)
    assert [site.shape for site in bundle.manifest.sites] == [(40, 3, 3, 3), (64, 40, 3, 3)]
    assert not bundle.manifest.left_out


STORED = {
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "float16": (TensorProto.FLOAT16, np.float16),
    "double": (TensorProto.DOUBLE, np.float64),
}


@pytest.mark.parametrize("turned", [False, True], ids=["cast", "turned-and-cast"])
@pytest.mark.parametrize("stored", STORED)
def test_a_large_kernel_in_another_type_behind_a_cast(tmp_path: Path, stored: str, turned: bool) -> None:
    """Exporters keep weights in bfloat16 and cast them; above 8,192 elements the kernel was said to be computed."""
    kind, numbers = STORED[stored]
    back = "q = Transpose<perm=[3,2,1,0]>(raw) \n j = Cast<to=1>(q) \n k = Transpose<perm=[3,2,1,0]>(j)"
    proto = wide(back if turned else "k = Cast<to=1>(raw)", 21)
    raw = next(one for one in proto.graph.initializer if one.name == "raw")
    rounded = WIDE.astype(numbers)
    raw.CopyFrom(
        helper.make_tensor("raw", kind, WIDE.shape, rounded.view(f"u{rounded.itemsize}").tobytes(), raw=True)
    )
    onnx.save(proto, tmp_path / "model.onnx")
    source = prepare(tmp_path / "model.onnx")
    kernels = [constant_array(node.inputs[1]) for node in source.model.graph if node.op_type == "Conv"]
    np.testing.assert_array_equal(kernels[1], rounded.astype(np.float32))
    bundle = buildable(source, tmp_path)
    assert [site.shape for site in bundle.manifest.sites] == [(40, 3, 3, 3), (64, 40, 3, 3)]
    assert not bundle.manifest.left_out


@pytest.mark.parametrize(
    "turn",
    ["g = Transpose(raw)", "a = Transpose(raw) \n g = Reshape(a, shape)"],
    ids=["transpose", "reshape"],
)
def test_a_head_whose_large_weight_is_turned(tmp_path: Path, turn: str) -> None:
    raw = RNG.normal(0, 0.1, (3, 4900))
    nodes = f"c = Conv(x, w) \n r = Relu(c) \n f = Flatten(r) \n {turn} \n y = Gemm(f, g, hb)"
    tensors = {"w": RNG.normal(0, 0.3, (100, 3, 3, 3)), "raw": raw, "hb": HEAD["hb"]}
    if "shape" in turn:
        tensors["shape"] = np.array([4900, 3])
    bundle = buildable(prepared(model(body(nodes), **tensors), tmp_path), tmp_path)
    np.testing.assert_allclose(bundle.checkpoint()["head/base/weight"], raw, rtol=1e-6)


def test_what_would_only_grow_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scalar spread over an image is no weight: folded, it would be one that the device holds."""
    monkeypatch.setattr(constants, "GROWS_TO", 1000)
    proto = classifier(
        "e = Expand(half, size) \n a = Add(x, e) \n c = Conv(a, w) \n t = Conv(c, v)",
        half=np.array([0.5]),
        size=np.array([1, 3, 9, 9]),
    )
    model_before = ir.from_proto(proto)
    assert not constants.fold_constants(model_before)
    monkeypatch.setattr(constants, "GROWS_TO", 10000)
    assert constants.fold_constants(model_before)


@pytest.mark.parametrize(
    ("node", "folded"),
    [
        ("e = ConstantOfShape(size)", False),
        ("e = ConstantOfShape(times)", True),
        ("e = Tile(cell, times)", False),
        ("e = Tile(cell, twice)", True),
        ("e = Range(zero, hundred, one)", True),
        ("e = Range(zero, thousand, one)", False),
        ("e = Range(hundred, zero, one)", True),
        ("e = Range(one, hundred, zero)", False),
        ("e = OneHot(places, ten, off_on)", True),
        ("e = OneHot(places, hundred, off_on)", False),
    ],
)
def test_what_a_node_makes_of_constants_is_counted_before_it_is_made(
    node: str, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 125 numbers here; what ONNX Runtime does not run stays, too."""
    monkeypatch.setattr(constants, "GROWS_TO", 1000)
    given = {
        **{"zero": np.array(0), "one": np.array(1), "ten": np.array(10)},
        **{"hundred": np.array(100), "thousand": np.array(1000)},
        **{"size": np.array([1, 3, 9, 9]), "times": np.array([2, 3, 4]), "twice": np.array([1, 2, 2])},
        **{
            "cell": np.arange(12.0).reshape(1, 3, 4),
            "places": np.array([1, 2, 9]),
            "off_on": np.array([0.0, 1.0]),
        },
    }
    read = re.findall(r"\w+", node)
    proto = model(
        f"(float[N] x) => (float[N] y) {{ {node} \n"
        " s = ReduceSum<keepdims=0>(e) \n c = Cast<to=1>(s) \n y = Add(x, c) }",
        **{name: array for name, array in given.items() if name in read},
    )
    loaded = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    constants.fold_constants(loaded)
    left = [one.op_type for one in loaded.graph]
    assert left == ["Add"] if folded else left[0] != "Add"
    if node != "e = Range(one, hundred, zero)":
        x = np.arange(3, dtype=np.float32)
        np.testing.assert_array_equal(outputs(ir.to_proto(loaded), x), outputs(proto, x))


@pytest.mark.parametrize(
    ("node", "tensors"),
    [
        ("e = Expand(cell, size)", {"cell": np.ones((2, 2)), "size": np.array([1, 3, 9, 9])}),
        ("e = ConstantOfShape(size)", {"size": np.array([-1, 3])}),
        ("e = Range(cell, size, size)", {"cell": np.ones((2, 2)), "size": np.array([3.0, 3.0])}),
        ("e = Range(cell, size, cell)", {"cell": np.array(1.0), "size": np.array(np.inf)}),
        ("e = Range(cell, size, cell)", {"cell": np.array(1.0), "size": np.array(np.nan)}),
    ],
    ids=["cannot-spread", "below-zero", "of-vectors", "without-end", "no-number"],
)
def test_what_does_not_run_stays(node: str, tensors: dict[str, NDArray]) -> None:
    """ONNX Runtime says so when the model is opened; here it was an error of NumPy's."""
    nodes = f"{node} \n d = ReduceSum<keepdims=0>(e) \n c = Conv(x, w) \n g = Mul(c, d) \n t = Conv(g, v)"
    loaded = ir.from_proto(unchecked(text(nodes), **tensors))
    assert not constants.fold_constants(loaded)


@pytest.mark.parametrize(("mode", "folded"), [("", True), (", off", True), (", on", False)])
def test_a_dropout_of_a_constant_is_folded_where_it_drops_nothing(mode: str, folded: bool) -> None:
    nodes = "off = Cast<to=9>(zero) \n on = Cast<to=9>(one_)"
    nodes += f" \n k = Dropout(w, half{mode}) \n c = Conv(x, k) \n t = Conv(c, v)"
    proto = classifier(nodes, half=np.array(0.5), zero=np.array(0), one_=np.array(1))
    loaded = ir.from_proto(proto)
    assert constants.fold_constants(loaded)
    assert ("Dropout" in [node.op_type for node in loaded.graph]) != folded


def test_a_random_number_is_not_folded() -> None:
    drawn = ir.from_proto(
        classifier("n = RandomNormal<shape=[4,3,3,3]>() \n k = Mul(n, w) \n c = Conv(x, k) \n t = Conv(c, v)")
    )
    assert not constants.fold_constants(drawn)


def test_pads_that_the_graph_computes(tmp_path: Path) -> None:
    """Keras 3 writes them so; the image behind had no known size."""
    nodes = (
        "z = ConstantOfShape<value = int64[1] {0}>(six) \n pads = Concat<axis=0>(z, ends) \n"
        f"q = Pad(x, pads) \n c = Conv(q, w) \n t = Conv(c, v) \n {TAIL}"
    )
    tensors = HEAD | {"six": np.array([6]), "ends": np.array([1, 1])}
    proto = model(body(nodes), **tensors)
    source = prepared(proto, tmp_path)
    assert ops(source)[:2] == ["Pad", "Conv"]
    after = ir.to_proto(prepare(tmp_path / "model.onnx").model)
    np.testing.assert_allclose(outputs(after, images(2)), outputs(proto, images(2)), rtol=1e-5, atol=1e-6)
    assert [site.input_size for site in buildable(source, tmp_path).manifest.sites] == [(10, 10), (8, 8)]
