"""A model of one number, the probability or logit of the second of two classes, learns a third."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_text import model
from preparing import HEAD, images

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import ConfigError, Learner, Task, TrainingConfig

BODY = "c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v) \n p = GlobalAveragePool(t)"
LINEAR = f"{BODY} \n f = Flatten(p) \n z = Gemm<transB=1>(f, one, bias)"
# Nodes, shape of the output, and what makes a logit of it.
ENDS = {
    "sigmoid": (f"{LINEAR} \n y = Sigmoid(z)", "N,1"),
    "logit": (LINEAR.replace("z =", "y ="), "N,1"),
    "sigmoid of a vector": (f"{LINEAR} \n s = Squeeze(z, axis) \n y = Sigmoid(s)", "N"),
    "sigmoid, made a vector": (f"{LINEAR} \n s = Sigmoid(z) \n y = Squeeze(s, axis)", "N"),
    "temperature": (f"{LINEAR} \n d = Div(z, heat) \n y = Sigmoid(d)", "N,1"),
    "picture": (f"{BODY} \n k = Conv(p, pixel, bias) \n y = Sigmoid(k)", "N,1,1,1"),
}


def written(case: str) -> onnx.ModelProto:
    nodes, shape = ENDS[case]
    tensors: dict[str, NDArray] = {"w": HEAD["w"], "v": HEAD["v"], "bias": np.array([0.1])}
    tensors |= {"one": HEAD["h"][:1]} if "one" in nodes else {"pixel": HEAD["h"][:1].reshape(1, 5, 1, 1)}
    tensors |= {"axis": np.array([1])} if "axis" in nodes else {}
    tensors |= {"heat": np.array(0.6)} if "heat" in nodes else {}
    return model(f"(float[N,3,9,9] x) => (float[{shape}] y) {{ {nodes} }}", **tensors)


def run(path: Path, x: NDArray) -> NDArray:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("case", ENDS)
def test_one_number_becomes_two_classes(tmp_path: Path, case: str) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(written(case), source)
    report = build_artifacts(source, tmp_path / "bundle", BuildOptions(classes=("no", "yes")))
    assert report.classes == 2
    assert any(
        "model.onnx has one output" in said and "the second of two classes" in said
        for said in report.warnings
    )
    learner = Learner.open(tmp_path / "bundle", state=tmp_path / "state")
    learner.export(tmp_path / "exported.onnx")
    x = images(6)
    expected, got = run(source, x).reshape(-1), run(tmp_path / "exported.onnx", x)
    assert got.shape == (6, 2)
    if case == "logit":
        np.testing.assert_allclose(got[:, 1] - got[:, 0], expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(got[:, 1], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)


def test_it_learns_a_third(tmp_path: Path) -> None:
    """Images that are black, white or striped, of which the model knows the first two."""
    rng = np.random.default_rng(0)
    nodes, tensors = LINEAR + " \n y = Sigmoid(z)", dict(HEAD)
    tensors = {"w": HEAD["w"], "v": HEAD["v"], "one": HEAD["h"][:1], "bias": np.array([0.1])}
    onnx.save(
        model(f"(float[N,3,9,9] x) => (float[N,1] y) {{ {nodes} }}", **tensors), tmp_path / "model.onnx"
    )
    base = tmp_path / "base"
    for name, value in (("black", 20), ("white", 220)):
        (base / name).mkdir(parents=True)
        for number in range(12):
            write(base / name / f"{number}.png", rng.integers(value - 20, value + 20, (9, 9, 3)))
    build_artifacts(
        tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(classes=("black", "white"), base_data=base)
    )
    pictures = rng.integers(0, 40, (24, 9, 9, 3)).astype(np.uint8)
    pictures[:12, ::2] += 200
    pictures[12:, :, ::2] += 200
    labels = np.repeat([0, 1], 12)
    task = Task.from_arrays("stripes", pictures, labels, ("rows", "columns"))
    learner = Learner.open(tmp_path / "bundle", state=tmp_path / "state", config=TrainingConfig(epochs=2))
    learner.learn(task)
    found = learner.predict(np.concatenate([pictures, np.full((4, 9, 9, 3), 20, np.uint8)]))[0]
    assert set(found[:12]) == {"rows"}
    assert set(found[12:24]) == {"columns"}
    assert set(found[24:]) == {"black"}
    learner.export(tmp_path / "exported.onnx")
    assert run(tmp_path / "exported.onnx", images(2)).shape == (2, 4)


def write(path: Path, pixels: NDArray) -> None:
    from PIL import Image

    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.parametrize("loss", ["binary-cross-entropy", "mse"])
def test_other_losses_keep_one_output(tmp_path: Path, loss: str) -> None:
    onnx.save(written("sigmoid" if loss != "mse" else "logit"), tmp_path / "model.onnx")
    report = build_artifacts(
        tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(loss=loss, classes=("a",))
    )
    assert report.classes == 1


@pytest.mark.parametrize(
    ("classes", "loss", "said"),
    [
        (
            ("yes",),
            "cross-entropy",
            "--classes has 1 name, and the one output of model.onnx tells two classes apart: give both names, the "
            "class of low values first. If it is one label that an image may have or not, build with --loss "
            "binary-cross-entropy.",
        ),
        (
            ("no", "yes", "so"),
            "cross-entropy",
            "--classes has 3 names, and the one output of model.onnx tells two",
        ),
        (("no", "yes"), "mse", "--classes has 2 names, but model.onnx has 1 output."),
    ],
)
def test_names_of_one_number(tmp_path: Path, classes: tuple[str, ...], loss: str, said: str) -> None:
    """The file has one output, whatever is made of it: a sentence about two would be about no file of the user's."""
    onnx.save(written("logit"), tmp_path / "model.onnx")
    with pytest.raises(ConfigError) as caught:
        build_artifacts(
            tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(classes=classes, loss=loss)
        )
    assert str(caught.value).startswith(said)
