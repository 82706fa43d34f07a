"""What is no classifier is refused by what it is, and what is no ONNX model by what it is, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_text import model
from PIL import Image
from small_models import GOOD, RNG, TAIL, WEIGHTS, classifier

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.measure.base_knowledge import exchanged_names
from csk_sdk.errors import ConfigError, ModelError

BODY = "c = Conv(x, w) \n r = Relu(c) \n t = Conv(r, v)"
TOKENS = (
    "p = Conv<strides=[4,4]>(x, patch) \n s = Reshape(p, sequence) \n q = Transpose<perm=[0,2,1]>(s) \n"
    "k = MatMul(q, s) \n a = Softmax(k) \n z = MatMul(a, q) \n m = ReduceMean<axes=[1], keepdims=0>(z)"
)
KINDS = {
    "boxes in one output": (
        f"{BODY} \n b = Reshape(t, boxes) \n y = Transpose<perm=[0,2,1]>(b)",
        "float[N,25,5] y",
        "a detector: its output 'y' [N,25,5] has a box dimension",
    ),
    "boxes and scores": (
        f"{BODY} \n b = Reshape(t, boxes) \n q = Transpose<perm=[0,2,1]>(b) \n s = Softmax(q) \n"
        "y = Slice(q, zero, four, two)",
        "float[N,25,4] y, float[N,25,5] s",
        "a detector: its output 'y' [N,25,4] has a box dimension",
    ),
    "non-maximum suppression": (
        f"{BODY} \n b = Reshape(t, boxes) \n q = Transpose<perm=[0,2,1]>(b) \n e = Slice(q, zero, four, two) \n"
        "[nms] y = NonMaxSuppression(e, b)",
        "int64[k,3] y",
        "a detector: it chooses among boxes (op 'NonMaxSuppression', node 'nms')",
    ),
    "recogniser": (
        f"{BODY} \n p = ReduceMean<axes=[2], keepdims=0>(t) \n q = Transpose<perm=[0,2,1]>(p) \n"
        "m = MatMul(q, letters) \n y = Softmax(m)",
        "float[N,5,40] y",
        "a recogniser of sequences (text, speech): its output 'y' [N,5,40] tells a class at each of many places",
    ),
    "landmarks": (
        f"{BODY} \n p = ReduceMean<axes=[2,3], keepdims=0>(t) \n m = Gemm(p, letters) \n y = Reshape(m, points)",
        "float[N,20,2] y",
        "a model of many numbers (landmarks, boxes): its output 'y' [N,20,2] is a table of them",
    ),
    "segmenter": (
        f"{BODY} \n y = Softmax<axis=1>(t)",
        "float[N,5,5,5] y",
        "a model of maps (a segmenter, an autoencoder, a part of a detector): its output 'y' "
        "[N,5,5,5] has an answer for",
    ),
    "transformer": (
        f"{TOKENS} \n y = Gemm<transB=1>(m, h, hb)",
        "float[N,3] y",
        "a transformer: 1 attention layer holds what it knows, and its convolution only cuts the image into patches",
    ),
}
TENSORS = WEIGHTS | {
    "boxes": np.array([0, 5, 25]),
    "points": np.array([-1, 20, 2]),
    "zero": np.array([0]),
    "four": np.array([4]),
    "two": np.array([2]),
    "letters": RNG.normal(size=(5, 40)),
    "patch": RNG.normal(size=(5, 3, 4, 4)),
    "sequence": np.array([0, 5, 4]),
}


@pytest.mark.parametrize("size", ["9,9", "H,W"])
@pytest.mark.parametrize("case", KINDS)
def test_a_model_of_another_kind(tmp_path: Path, case: str, size: str) -> None:
    """An open size is not asked for first."""
    nodes, outputs, said = KINDS[case]
    used = {
        name: array for name, array in TENSORS.items() if name in nodes.replace("(", " ").replace(",", " ")
    }
    proto = model(f"(float[N,3,{size}] x) => ({outputs}) {{ {nodes} }}", **used)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle")
    assert f"model.onnx is {said}" in str(caught.value)
    assert "csk-sdk" in str(caught.value)


def test_a_recogniser_of_an_old_opset_and_of_open_width(tmp_path: Path) -> None:
    """Its Softmax is taken apart where the shape in front of it is not known."""
    nodes = KINDS["recogniser"][0]
    text = f"(float[N,3,9,W] x) => (float[N,T,40] y) {{ {nodes} }}"
    used = {name: TENSORS[name] for name in ("w", "v", "letters")}
    onnx.save(model(text, 12, ir_version=7, **used), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is a recogniser of sequences"):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x24\x00\x00\x00ORTM\x00\x00\x00\x00\x00\x00\x00\x00", "ONNX Runtime's own format (.ort)"),
        (b"\x1c\x00\x00\x00TFL3\x00\x00\x00\x00", "is a TensorFlow Lite model"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive, as torch and Keras save models"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is a Keras file (HDF5)"),
    ],
)
def test_a_file_of_another_format(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        build_artifacts(path, tmp_path / "bundle")
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_weights_that_were_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ModelError) as caught:
        build_artifacts(path, tmp_path / "bundle")
    assert "tensors in 'model.onnx.data', and there is no such file in" in str(caught.value)
    assert "Copy it there" in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ),
        ((127.5,) * 3, (1.0,) * 3, "--mean 0.5,0.5,0.5 --std 0.00392157,0.00392157,0.00392157"),
        ((0.0,) * 3, (255.0,) * 3, "--mean 0,0,0 --std 1,1,1"),
    ],
)
def test_numbers_for_pixels_of_0_to_255(tmp_path: Path, mean: tuple, std: tuple, said: str) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="Divide by 255") as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(mean=mean, std=std))
    assert said in str(caught.value)


CLASSES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("takes", "said"),
    [
        (
            {0: 1, 1: 0},
            ["the names of 2 classes look exchanged", "'a' are taken for 'b'", "'b' are taken for 'a'"],
        ),
        (
            {1: 2, 2: 3, 3: 1},
            ["the names of 3 classes look exchanged", "'b' are taken for 'c'", "'d' are taken for 'b'"],
        ),
        ({0: 1}, []),
        ({0: 1, 2: 1}, []),
        ({}, []),
    ],
)
def test_names_that_look_exchanged(takes: dict[int, int], said: list[str]) -> None:
    labels = np.repeat(np.arange(4), 20)
    predicted = np.array([takes.get(label, label) for label in labels])
    predicted[::20] = labels[::20]  # one of each is right
    found = exchanged_names(predicted, labels, CLASSES)
    assert len(found) == bool(said)
    for fragment in said:
        assert fragment in found[0]


def test_the_build_says_so(tmp_path: Path) -> None:
    """Of three classes two folders are exchanged."""
    rng = np.random.default_rng(0)
    colours = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    pictures = {
        name: [np.clip(rng.normal(colour, 10, (9, 9, 3)), 0, 255).astype(np.uint8) for _ in range(8)]
        for name, colour in colours.items()
    }
    means = np.stack([np.eye(3)[place] for place in range(3)])
    proto = model(
        f"(float[N,3,9,9] x) => (float[N,3] y) {{ {GOOD} \n {TAIL} \n }}",
        **WEIGHTS,
    )
    # The channels' means decide, through kernels that hand them on.
    tensors = {
        "w": np.pad(means, ((0, 1), (0, 0)))[:, :, None, None] * np.full((3, 3), 1 / 9),
        "v": np.pad(np.eye(3), ((0, 2), (0, 1)))[:, :, None, None] * np.full((3, 3), 1 / 9),
        "h": np.pad(10 * np.eye(3), ((0, 0), (0, 2))),
        "hb": np.zeros(3),
    }
    for tensor in proto.graph.initializer:
        if tensor.name in tensors:
            array = tensors[tensor.name].astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, tmp_path / "model.onnx")
    for name, folder in (("red", "red"), ("green", "blue"), ("blue", "green")):
        (tmp_path / "base" / folder).mkdir(parents=True)
        for number, picture in enumerate(pictures[name]):
            Image.fromarray(picture).save(tmp_path / "base" / folder / f"{number}.png")
    options = BuildOptions(classes=tuple(colours), base_data=tmp_path / "base")
    report = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", options)
    assert any("100 % of 'green' are taken for 'blue'" in said for said in report.warnings), report.warnings
