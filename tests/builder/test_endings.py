"""What a file does with its scores: taken off for learning, and put on again by the export, which equals the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import HEAD, images
from typer.testing import CliRunner

from csk_artifacts_builder import BuildOptions, build, build_artifacts
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.cli import app
from csk_sdk.errors import ConfigError, CskError, ModelError

BODY = "c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v) \n p = GlobalAveragePool(t)"
FLAT = f"{BODY} \n f = Flatten(p)"
LOGITS = f"{FLAT} \n [fc] z = Gemm<transB=1>(f, h, hb)"
CONV = f"{BODY} \n [fc] k = Conv(p, hc, hb)"
TENSORS: dict[str, NDArray] = HEAD | {
    "ht": HEAD["h"].T.copy(),
    "hc": HEAD["h"].reshape(3, 5, 1, 1),
    "hp": HEAD["h"][:, :4].reshape(3, 4, 1, 1),
    "h2": np.flip(HEAD["h"]).copy(),
    "h2t": np.flip(HEAD["h"]).T.copy(),
    "scale": np.array(0.7),
    "three": np.array([2.0, 0.5, -1.5]),
    "row": np.array([[0.1, 0.2, 0.3]]),
    "column": np.array([2.0, 0.5, 1.5]).reshape(3, 1, 1),
    "two": np.array([2]),
    "last": np.array([-1]),
    "four": np.array([0, 3, 1, 1]),
    "between": np.array([-1, 1, 3]),
    "axes": np.array([2, 3]),
    "first": np.array([1]),
    "eps": np.array(1e-6),
}

# Nodes, outputs, opset.
ENDINGS = {
    "argmax": (f"{LOGITS} \n [last] y = ArgMax<axis=1, keepdims=0>(z)", "int64[N] y", 17),
    "argmax kept": (f"{LOGITS} \n y = ArgMax<axis=1>(z)", "int64[N,1] y", 17),
    "argmax, cast": (f"{LOGITS} \n a = ArgMax<axis=-1, keepdims=0>(z) \n y = Cast<to=6>(a)", "int32[N] y", 17),
    "softmax, argmax": (f"{LOGITS} \n s = Softmax(z) \n y = ArgMax<axis=1, keepdims=0>(s)", "int64[N] y", 17),
    "argmax of opset 9": (f"{LOGITS} \n y = ArgMax<axis=1, keepdims=0>(z)", "int64[N] y", 9),
    "argmax of opset 23": (f"{LOGITS} \n y = ArgMax<axis=1, keepdims=0>(z)", "int64[N] y", 23),
    "argmax of an image": (f"{CONV} \n y = ArgMax<axis=1, keepdims=0>(k)", "int64[N,1,1] y", 17),
    "topk": (f"{LOGITS} \n y, i = TopK(z, two)", "float[N,2] y, int64[N,2] i", 17),
    "topk of opset 9": (f"{LOGITS} \n y, i = TopK<k=2>(z)", "float[N,2] y, int64[N,2] i", 9),
    "topk's places": (f"{LOGITS} \n s = Softmax(z) \n v2, i = TopK(s, two) \n y = Cast<to=6>(i)", "int32[N,2] y", 17),
    "temperature": (f"{LOGITS} \n [heat] y = Div(z, scale)", "float[N,3] y", 17),
    "scale, softmax": (f"{LOGITS} \n m = Mul(scale, z) \n y = Softmax(m)", "float[N,3] y", 17),
    "scale of each class": (f"{LOGITS} \n y = Mul(z, three)", "float[N,3] y", 17),
    "shift": (f"{LOGITS} \n y = Sub(row, z)", "float[N,3] y", 17),
    "shift and scale": (f"{LOGITS} \n a = Add(z, three) \n y = Div(a, scale)", "float[N,3] y", 17),
    "MatMul, Mul, Add": (f"{FLAT} \n m = MatMul(f, ht) \n s = Mul(m, scale) \n y = Add(s, hb)", "float[N,3] y", 17),
    "two classifiers": (
        f"{LOGITS} \n d = Gemm<transB=1>(f, h2) \n [both] s = Add(z, d) \n y = Div(s, scale)", "float[N,3] y", 17,
    ),
    "two products, softmax": (
        f"{FLAT} \n m = MatMul(f, ht) \n z = Add(m, hb) \n d = MatMul(f, h2t) \n s = Add(d, z) \n y = Softmax(s)",
        "float[N,3] y", 17,
    ),
    "reshape": (f"{LOGITS} \n y = Reshape(z, four)", "float[N,3,1,1] y", 17),
    "unsqueeze": (f"{LOGITS} \n y = Unsqueeze(z, first)", "float[N,1,3] y", 17),
    "reshape, softmax": (f"{LOGITS} \n u = Reshape(z, between) \n y = Softmax(u)", "float[N,1,3] y", 17),
    "picture": (CONV.replace("k =", "y ="), "float[N,3,1,1] y", 17),
    "image, softmax": (f"{CONV} \n y = Softmax<axis=1>(k)", "float[N,3,1,1] y", 17),
    "image, softmax of opset 12": (f"{CONV} \n y = Softmax<axis=1>(k)", "float[N,3,1,1] y", 12),
    "image, softmax of opset 11": (f"{CONV} \n y = Softmax(k)", "float[N,3,1,1] y", 11),
    "image, scale": (f"{CONV} \n m = Mul(k, scale) \n y = Flatten(m)", "float[N,3] y", 17),
    "mean of images, temperature": (
        "c = Conv(x, w) \n r = Relu(c) \n k = Conv(r, hp, hb) \n q = GlobalAveragePool(k) \n d = Div(q, scale) \n"
        "y = Flatten(d)",
        "float[N,3] y",
        17,
    ),
    "cosine": (f"{FLAT} \n n = ReduceL2<axes=[1]>(f) \n e = Add(n, eps) \n d = Div(f, e) \n y = MatMul(d, ht)",
               "float[N,3] y", 17),
    "cosine, scaled": (
        f"{FLAT} \n n = ReduceL2<axes=[1]>(f) \n d = Div(f, n) \n wn = ReduceL2<axes=[0]>(ht) \n u = Div(ht, wn) \n"
        "m = MatMul(d, u) \n y = Mul(m, scale)",
        "float[N,3] y",
        17,
    ),
    "transposed head": (f"{FLAT} \n g = Transpose(ht) \n y = Gemm<transB=1>(f, g, hb)", "float[N,3] y", 17),
    "logits and features": (LOGITS.replace("z =", "y ="), "float[N,3] y, float[N,5] f", 17),
    "features and logits": (LOGITS.replace("z =", "y ="), "float[N,5] f, float[N,3] y", 17),
    "logits and probabilities": (f"{LOGITS} \n s = Softmax(z)", "float[N,3] z, float[N,3] s", 17),
    "probabilities and labels": (
        f"{LOGITS} \n i = ArgMax<axis=1>(z) \n s = Softmax(z)", "int64[N,1] i, float[N,3] s", 17
    ),
    "best probability and label": (
        f"{LOGITS} \n s = Softmax(z) \n m = ReduceMax<axes=[1], keepdims=0>(s) \n i = ArgMax<axis=1, keepdims=0>(s)",
        "float[N] m, int64[N] i",
        17,
    ),
}  # fmt: skip
LEFT = {
    "logits and features": "y",
    "features and logits": "y",
    "logits and probabilities": "z",
    "probabilities and labels": "s",
    "best probability and label": "i",
}


def written(
    nodes: str, outputs: str, opset: int = 17, image: str = "3,9,9", **more: NDArray
) -> onnx.ModelProto:
    used = {
        name: array
        for name, array in (TENSORS | {"hp": TENSORS["hc"][:, :4]} | more).items()
        if name in words(nodes)
    }
    return model(f"(float[N,{image}] x) => ({outputs}) {{ {nodes} }}", opset, ir_version=8, **used)


def words(text: str) -> set[str]:
    for mark in "(),<>=":
        text = text.replace(mark, " ")
    return set(text.split())


def results(path: Path, x: NDArray) -> dict[str, NDArray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def exported(folder: Path) -> Path:
    Learner.open(folder / "bundle", state=folder / "state").export(folder / "exported.onnx")
    onnx.checker.check_model(str(folder / "exported.onnx"), full_check=True)
    return folder / "exported.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("features", ["last", "layers"])
@pytest.mark.parametrize("case", ENDINGS)
def test_the_export_ends_as_the_source_does(tmp_path: Path, case: str, features: str) -> None:
    nodes, declared, opset = ENDINGS[case]
    source = tmp_path / "model.onnx"
    onnx.save(written(nodes, declared, opset), source)
    report = build_artifacts(source, tmp_path / "bundle", BuildOptions(features=features))
    assert Bundle.open(tmp_path / "bundle").checkpoint()["head/base/weight"].shape[0] == report.classes == 3
    x = images(6)
    expected, got = results(source, x), results(exported(tmp_path), x)
    if case in LEFT:
        assert any(f"output '{LEFT[case]}'" in said and "leave out" in said for said in report.notes)
        expected = {LEFT[case]: expected[LEFT[case]]}
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        ("float[N] m, int64[N] i", "i"),
        ("int64[N] i, float[N] m", "i"),
        ("float[N] m, float[N,3] s", "s"),
        ("float[N,3] z, float[N] m, int64[N] i", "z"),
    ],
)
def test_the_best_score_holds_no_scores(tmp_path: Path, outputs: str, chosen: str) -> None:
    """`softmax(x).max(1)` gives it beside the label: one of two outputs had to be named, and only the label works."""
    nodes, _, opset = ENDINGS["best probability and label"]
    onnx.save(written(nodes, outputs, opset), tmp_path / "model.onnx")
    found = prepare(tmp_path / "model.onnx")
    assert found.output == chosen
    assert f"output '{chosen}' of model.onnx; bundle and exports leave out 'm'" in found.notes[0]
    assert ("the scores of the classes" in found.notes[0]) == (chosen != "i")


def test_what_is_cut_or_folded_is_said(tmp_path: Path) -> None:
    for case, sentence in (
        ("argmax", "op 'ArgMax' at the end of model.onnx is cut off"),
        ("temperature", "op 'Div' (node 'heat') behind the classifier is folded into it."),
        ("two classifiers", "two classifiers, whose scores are added (node 'both'), are one."),
    ):
        nodes, declared, opset = ENDINGS[case]
        onnx.save(written(nodes, declared, opset), tmp_path / "model.onnx")
        report = build_artifacts(tmp_path / "model.onnx", tmp_path / case)
        assert any(sentence in said for said in report.notes), report.notes


TWO_HEADS = f"{LOGITS} \n y = Gemm<transB=1>(f, g)"


def test_an_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(written(TWO_HEADS, "float[N,3] z, float[N,4] y", g=np.ones((4, 5))), source)
    with pytest.raises(ModelError) as caught:
        build_artifacts(source, tmp_path / "bundle")
    assert "model.onnx has 2 outputs ('z' [N,3], 'y' [N,4])" in str(caught.value)
    assert "--output NAME" in str(caught.value)
    with pytest.raises(ModelError, match=r"has no output 'a'; it has 'z' \[N,3\], 'y' \[N,4\]"):
        build_artifacts(source, tmp_path / "bundle", BuildOptions(output="a"))
    command = ["build-artifacts", str(source), "--out", str(tmp_path / "bundle"), "--output", "y"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    x = images(3)
    np.testing.assert_allclose(
        results(exported(tmp_path), x)["y"], results(source, x)["y"], rtol=1e-4, atol=1e-5
    )


OPEN = LOGITS.replace("z =", "y =")


@pytest.mark.parametrize("size", ["H,W", "H,H", "H,11", "9,W"])
def test_a_size_that_the_file_leaves_open(tmp_path: Path, size: str) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(written(OPEN, "float[N,3] y", image=f"3,{size}"), source)
    with pytest.raises(ModelError, match=r"has dynamic height or width .* --input-size 224x224"):
        build_artifacts(source, tmp_path / "bundle")
    command = ["build-artifacts", str(source), "--out", str(tmp_path / "bundle"), "--input-size", "9x11"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    assert Bundle.open(tmp_path / "bundle").manifest.input.shape == (3, 9, 11)
    x = images(3, "3,9,11")
    np.testing.assert_allclose(
        results(exported(tmp_path), x)["y"], results(source, x)["y"], rtol=1e-4, atol=1e-5
    )


def test_an_open_size_with_channels_last(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    nodes = OPEN.replace("c = Conv(x, w)", "u = Transpose<perm=[0,3,1,2]>(x) \n c = Conv(u, w)")
    onnx.save(written(nodes, "float[N,3] y", image="H,W,3"), source)
    build_artifacts(source, tmp_path / "bundle", BuildOptions(input_size=(9, 11)))
    assert Bundle.open(tmp_path / "bundle").manifest.input.shape == (3, 9, 11)
    x = images(3, "9,11,3")
    np.testing.assert_allclose(
        results(exported(tmp_path), x)["y"], results(source, x)["y"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "given", "said"),
    [
        ("9,9", (8, 9), "--input-size is 8x9, but model.onnx takes [N,3,9,9]: leave it out."),
        ("H,9", (9,), "--input-size is 9; for model.onnx it must be HEIGHTxWIDTH, such as 224x224."),
        ("H,9", (0, 9), "--input-size is 0x9; for model.onnx it must be"),
    ],
)
def test_a_size_that_does_not_fit(tmp_path: Path, size: str, given: tuple[int, ...], said: str) -> None:
    onnx.save(written(OPEN, "float[N,3] y", image=f"3,{size}"), tmp_path / "model.onnx")
    with pytest.raises(ConfigError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(input_size=given))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("size", "given", "kind", "said"),
    [
        (
            "H,W",
            (8192, 8192),
            ConfigError,
            "--input-size is 8192x8192: more than the 67,108,864 numbers that an input of",
        ),
        (
            "H,W",
            (1 << 40, 1 << 40),
            ConfigError,
            "--input-size is 1099511627776x1099511627776: more than the",
        ),
        (
            "8192,8192",
            None,
            ModelError,
            "model.onnx: input 'x' is [N,3,8192,8192], more than the 67,108,864 numbers",
        ),
    ],
)
def test_a_size_beyond_what_a_bundle_may_have(
    tmp_path: Path, size: str, given: tuple[int, ...] | None, kind: type[CskError], said: str
) -> None:
    """Said before anything is computed at that size; it was built for minutes, and no device would open it."""
    onnx.save(written(OPEN, "float[N,3] y", image=f"3,{size}"), tmp_path / "model.onnx")
    with pytest.raises(kind) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(input_size=given))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((9, 11), "try a smaller --input-size than 9x11, or a machine"),
        (None, "try the model exported for smaller inputs"),
    ],
)
def test_a_build_without_memory_names_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[int, ...] | None, said: str
) -> None:
    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(build, "same_logits", too_large)
    onnx.save(written(OPEN, "float[N,3] y", image="3,H,W" if given else "3,9,9"), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=f"ran out of memory over model.onnx: {said}"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(input_size=given))
    assert not (tmp_path / "bundle").exists()


def test_a_memory_budget_that_is_too_small_for_a_size_names_it(tmp_path: Path) -> None:
    onnx.save(written(OPEN, "float[N,3] y", image="3,H,W"), tmp_path / "model.onnx")
    options = BuildOptions(input_size=(900, 901), memory_budget=20 << 20)
    with pytest.raises(
        ConfigError, match=r"alone, at 900x901, in batches of 16.* a smaller --batch-size or --input-size"
    ):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)


@pytest.mark.parametrize("text", ["", "224x", "axb", "1x2x3", "0x4", "-1"])
def test_a_size_that_is_none(tmp_path: Path, text: str) -> None:
    onnx.save(written(OPEN, "float[N,3] y"), tmp_path / "model.onnx")
    command = [
        "build-artifacts",
        str(tmp_path / "model.onnx"),
        "--out",
        str(tmp_path / "bundle"),
        "--input-size",
        text,
    ]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 2
    assert "224x224" in run.output


def test_a_named_output_without_scores_is_refused_by_what_it_is(tmp_path: Path) -> None:
    """What is put behind it in preparation is no op of the file, and helps nobody."""
    nodes = (
        "[first] c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v) \n s = Sigmoid(t) \n"
        "[pool] p = GlobalAveragePool(s) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h, hb)"
    )
    onnx.save(written(nodes, "float[N,3] y, float[N,5,1,1] p"), tmp_path / "model.onnx")
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(output="p"))
    assert str(caught.value) == (
        "--output names 'p', which op 'GlobalAveragePool' (node 'pool') of model.onnx gives: it is not what a fully "
        "connected layer (Gemm, or MatMul and Add) gives, nor made of that, so it holds no scores of classes. The "
        "other outputs are 'y'."
    )
