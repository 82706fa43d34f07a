"""Networks that scale their pixels themselves get the pixels that they take, without a word from their user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import HEAD, TAIL

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle

BODY = f"c = Conv(s, w) \n r = Relu(c) \n t = Conv(r, v) \n {TAIL}"
# The input, what leads from `x` to `s`, the largest pixel that it takes, and the tensors.
FRONTS: dict[str, tuple[str, str, float, dict[str, NDArray]]] = {
    "uint8": ("uint8[N,3,9,9]", "i = Cast<to=1>(x) \n s = Div(i, white)", 255, {"white": np.array(255.0)}),
    "uint8, mean and std": (
        "uint8[N,3,9,9]",
        "i = Cast<to=1>(x) \n d = Div(i, white) \n m = Sub(d, mean) \n s = Div(m, std)",
        255,
        {"white": np.array(255.0)},
    ),
    "uint8, channels last": (
        "uint8[N,9,9,3]",
        "i = Cast<to=1>(x) \n q = Transpose<perm=[0,3,1,2]>(i) \n m = Sub(q, mean255) \n s = Div(m, std255)",
        255,
        {},
    ),
    "uint8, turned first": (
        "uint8[N,9,9,3]",
        "q = Transpose<perm=[0,3,1,2]>(x) \n i = Cast<to=1>(q) \n s = Div(i, white)",
        255,
        {"white": np.array(255.0)},
    ),
    "divided by 255": ("float[N,3,9,9]", "s = Div(x, white)", 255, {"white": np.array(255.0)}),
    "Keras Rescaling": (
        "float[N,9,9,3]",
        "a = Mul(x, scale) \n b = Add(a, offset) \n s = Transpose<perm=[0,3,1,2]>(b)",
        255,
        {"scale": np.array(1 / 127.5), "offset": np.array(-1.0)},
    ),
    "Caffe's means": ("float[N,3,9,9]", "s = Sub(x, mean255)", 255, {}),
    "blue first": (
        "float[N,3,9,9]",
        "b = Gather<axis=1>(x, order) \n m = Sub(b, mean255) \n s = Div(m, std255)",
        255,
        {"order": np.array([2, 1, 0])},
    ),
    "channels last, blue first": (
        "float[N,9,9,3]",
        "b = Slice(x, from, to, axis, back) \n m = Sub(b, caffe) \n s = Transpose<perm=[0,3,1,2]>(m)",
        255,
        {
            "from": np.array([-1]),
            "to": np.array([np.iinfo(np.int64).min]),
            "axis": np.array([-1]),
            "back": np.array([-1]),
            "caffe": np.array([103.9, 116.8, 123.7]),
        },
    ),
    "uint8, channels last, in another order": (
        "uint8[1,9,9,3]",
        "b = Gather<axis=3>(x, order) \n i = Cast<to=1>(b) \n d = Div(i, white) \n s = Transpose<perm=[0,3,1,2]>(d)",
        255,
        {"order": np.array([1, 2, 0]), "white": np.array(255.0)},
    ),
    "channels last, turned by an Einsum": (
        "float[N,9,9,3]",
        'd = Mul(scale, x) \n s = Einsum<equation="nhwc->nchw">(d)',
        255,
        {"scale": np.array([0.02, 0.03, 0.04])},
    ),
    "channels last, apart and together": (
        "float[N,9,9,3]",
        "m = Sub(x, caffe) \n j, k, l = Split<axis=3>(m) \n q = Concat<axis=3>(l, k, j) \n"
        " s = Transpose<perm=[0,3,1,2]>(q)",
        255,
        {"caffe": np.array([103.9, 116.8, 123.7])},
    ),
    "mean and std of 0 to 1": ("float[N,3,9,9]", "m = Sub(x, mean) \n s = Div(m, std)", 1, {}),
    "resized first": (
        "float[1,3,12,12]",
        'q = Resize<mode="linear">(x, , , sizes) \n s = Div(q, white)',
        255,
        {"sizes": np.array([1, 3, 9, 9]), "white": np.array(255.0)},
    ),
}
STATISTICS = {
    "mean": np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1),
    "std": np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1),
}
STATISTICS |= {f"{name}255": 255 * array for name, array in STATISTICS.items()}


def written(case: str) -> onnx.ModelProto:
    given, front, _, tensors = FRONTS[case]
    used = {name: array for name, array in STATISTICS.items() if f" {name})" in front}
    batch = given.split("[")[1].split(",")[0]
    # Inputs that large need weights that small.
    return model(f"({given} x) => (float[{batch},3] y) {{ {front} \n {BODY} }}", **HEAD, **used, **tensors)


@pytest.mark.slow
@pytest.mark.parametrize("case", FRONTS)
def test_the_device_sees_the_same_pixels(tmp_path: Path, case: str) -> None:
    given, _, white, _ = FRONTS[case]
    source = tmp_path / "model.onnx"
    onnx.save(written(case), source)
    report = build_artifacts(source, tmp_path / "bundle", BuildOptions(features="last"))
    assert any(f"it is given pixels of 0 to {white:g}" in said for said in report.notes)
    assert not any("no --mean/--std given" in said for said in report.warnings)
    bundle = Bundle.open(tmp_path / "bundle")
    size = bundle.manifest.input.size
    pictures = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    shown = bundle.preprocessing.normalize(pictures)
    np.testing.assert_allclose(shown, pictures.transpose(0, 3, 1, 2) * (white / 255), rtol=1e-5, atol=1e-6)
    last = given.endswith(",3]")
    taken = pictures if last else pictures.transpose(0, 3, 1, 2)
    x = taken if given.startswith("uint8") else (taken * (white / 255)).astype(np.float32)
    learner = Learner.open(tmp_path / "bundle", state=tmp_path / "state")
    learner.export(tmp_path / "exported.onnx")
    batches = [x[i : i + 1] for i in range(4)] if "[1," in given else [x]
    expected = np.concatenate([run(source, batch) for batch in batches])
    np.testing.assert_allclose(run(tmp_path / "exported.onnx", x), expected, rtol=1e-4, atol=1e-4)


def run(path: Path, x: NDArray) -> NDArray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ascontiguousarray(x)})[0]


def test_what_its_user_says_counts(tmp_path: Path) -> None:
    onnx.save(written("divided by 255"), tmp_path / "model.onnx")
    options = BuildOptions(mean=(0.5,) * 3, std=(0.5,) * 3)
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    assert Bundle.open(tmp_path / "bundle").manifest.preprocessing.std == (0.5,) * 3
    assert not any("pixels of 0 to 255" in said for said in report.notes)


def test_a_network_that_scales_nothing_is_asked_about(tmp_path: Path) -> None:
    text = f"(float[N,3,9,9] s) => (float[N,3] y) {{ {BODY} }}"
    onnx.save(model(text, **HEAD), tmp_path / "model.onnx")
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle")
    assert any("no --mean/--std given" in said for said in report.warnings)
    assert Bundle.open(tmp_path / "bundle").manifest.preprocessing.std == (1.0,) * 3
