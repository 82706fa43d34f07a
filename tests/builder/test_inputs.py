"""What a model may take: images of any number of channels, signals; and what is said of the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import AUDIO, chain
from onnx.reference import ReferenceEvaluator
from onnx_text import model
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError, CskError, ModelError, TaskError

RNG = np.random.default_rng(0)


# Taken apart into rows of pixels, and put together again with the channels first.
UNFOLLOWED = "r = Reshape(x, to) \n [turn] t = Transpose<perm=[0,2,1]>(r) \n i = Reshape(t, back)"


def conv(
    shape: str, nodes: str = "i = Identity(x)", channels: int = 3, rank: int = 1, **tensors: Any
) -> onnx.ModelProto:
    """A classifier whose `nodes` lead from `x` to `i` `(N, channels, ...)`."""
    text = (
        f"(float[{shape}] x) => (float[N,3] y) {{ {nodes} \n c = Conv(i, w) \n p = GlobalAveragePool(c) \n"
        " f = Flatten(p) \n y = Gemm<transB=1>(f, h, b) }"
    )
    weights = {
        "w": RNG.normal(size=(4, channels, *[3] * rank)),
        "h": RNG.normal(size=(3, 4)),
        "b": np.zeros(3),
    }
    return model(text, **weights, **tensors)


def build(proto: onnx.ModelProto, folder: Path, **options: Any) -> Bundle:
    onnx.save(proto, folder / "model.onnx")
    build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(**options))
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [("N,1,9", 1, (9,)), ("N,12,9", 12, (9,)), ("1,3,9", 3, (9,)), ("N,7,9,8", 7, (9, 8)), ("N,6,9,3", 6, (9, 3))],
)  # fmt: skip
def test_any_number_of_channels(tmp_path: Path, shape: str, channels: int, size: tuple[int, ...]) -> None:
    manifest = build(conv(shape, channels=channels, rank=len(size)), tmp_path).manifest
    assert (manifest.input.channels, manifest.input.size) == (channels, size)
    signal = len(size) == 1
    assert manifest.flip is not signal
    assert manifest.preprocessing.resize == ("crop" if signal else "bilinear")
    assert manifest.preprocessing.scale == (1 / 32768 if signal else 1 / 255)
    assert len(manifest.preprocessing.mean) == channels


def test_a_signal_bundle_says_how_its_signals_are_made(tmp_path: Path) -> None:
    options = {"mean": (0.5, 1.0), "std": (2.0, 3.0), "resize": "none", "sample_rate": 16000, "flip": False}
    manifest = build(AUDIO.proto(), tmp_path, **options).manifest
    made = manifest.preprocessing
    assert (made.mean, made.std, made.resize, made.sample_rate) == ((0.5, 1.0), (2.0, 3.0), "none", 16000)
    assert not manifest.flip


def test_signals_that_are_normalised_over_their_channels_first(tmp_path: Path) -> None:
    """A layer norm wants the channels last, and there and back is not an input with its channels last."""
    nodes = "t = Transpose<perm=[0,2,1]>(x) \n n = LayerNormalization(t, one, zero) \n i = Transpose<perm=[0,2,1]>(n)"
    tensors = {"one": np.ones(3), "zero": np.zeros(3)}
    assert build(conv("N,3,9", nodes, **tensors), tmp_path).manifest.input.shape == (3, 9)


@pytest.mark.parametrize(
    ("shape", "nodes", "tensors"),
    [
        ("N,9,8,5", "i = Transpose<perm=[0,3,1,2]>(x)", {}),
        ("N,9,8,1", "i = Reshape(x, to)", {"to": np.array([-1, 1, 9, 8])}),
    ],
)
def test_pictures_with_any_number_of_channels_last(
    tmp_path: Path, shape: str, nodes: str, tensors: dict[str, Any]
) -> None:
    channels = int(shape.rsplit(",", 1)[1])
    made = build(conv(shape, nodes, channels, 2, **tensors), tmp_path)
    assert made.manifest.input.shape == (channels, 9, 8)


FIRST_THREE = {"none": np.array([0]), "three": np.array([3]), "axis": np.array([3])}
CROP = {"begin": np.array([1, 2]), "end": np.array([8, 8]), "axes": np.array([1, 2])}
TO_FIRST = "i = Transpose<perm=[0,3,1,2]>(a)"


@pytest.mark.parametrize(
    ("shape", "channels", "nodes", "tensors"),
    [
        ("N,9,8,4", 3, f"a = Slice(x, none, three, axis) \n {TO_FIRST}", FIRST_THREE),
        ("N,9,8,4", 4, 'm = Sub(x, mean) \n i = Einsum<equation="nhwc->nchw">(m)', {"mean": RNG.normal(size=4)}),
        ("N,9,8,3", 3, f"a = MatMul(x, colors) \n {TO_FIRST}", {"colors": RNG.normal(size=(3, 3))}),
        ("N,9,8,3", 1, f"a = ReduceMean<axes=[3], keepdims=1>(x) \n {TO_FIRST}", {}),
        ("N,9,8,1", 3, f"a = Expand(x, to) \n {TO_FIRST}", {"to": np.array([1, 1, 1, 3])}),
        ("N,9,8,3", 3, f"a = Resize(x, , scales) \n {TO_FIRST}", {"scales": np.array([1, 2, 2, 1.0])}),
        ("N,9,8,3", 3, "i = Transpose<perm=[0,3,2,1]>(x)", {}),
        ("N,9,8,3", 3, "a = Transpose<perm=[0,1,3,2]>(x) \n i = Transpose<perm=[0,2,1,3]>(a)", {}),
        ("N,9,8,1", 1, "a = Slice(x, begin, end, axes) \n i = Reshape(a, to)", CROP | {"to": np.array([-1, 1, 7, 6])}),
        ("N,9,8,1", 1, "a = Slice(x, begin, end, axes) \n i = Reshape(a, to)", CROP | {"to": np.array([0, 1, 7, -1])}),
    ],
    ids=["of four", "einsum", "mixed", "gray", "thrice", "resized", "width first", "in two turns", "cut", "cut, open"],
)  # fmt: skip
def test_what_is_done_before_the_channels_come_first(
    tmp_path: Path, shape: str, channels: int, nodes: str, tensors: dict[str, Any]
) -> None:
    """The bundle is of the images that the file takes, and its export is the file."""
    proto = conv(shape, nodes, channels, 2, **tensors)
    given = build(proto, tmp_path).manifest.input
    height, width, last = (int(size) for size in shape.split(",")[1:])
    assert (given.channels, given.size) == (last, (height, width))
    Learner.open(tmp_path / "bundle", state=tmp_path / "state").export(tmp_path / "exported.onnx")
    x = RNG.normal(size=(3, height, width, last)).astype(np.float32)
    made = ReferenceEvaluator(str(tmp_path / "exported.onnx")).run(None, {"x": x})[0]
    np.testing.assert_allclose(made, ReferenceEvaluator(proto).run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "channels", "nodes"),
    [
        ("N,9,8,3", 9, "i = Abs(x)"),
        ("N,9,8,3", 9, "i = Transpose<perm=[0,1,3,2]>(x)"),
        ("N,9,8,3", 9, "a = Transpose<perm=[0,3,2,1]>(x) \n i = Transpose<perm=[0,3,2,1]>(a)"),
    ],
    ids=["scaled", "on its side", "there and back"],
)
def test_many_channels_first(tmp_path: Path, shape: str, channels: int, nodes: str) -> None:
    """A convolution that reads nine channels says so, whatever its image's width is."""
    given = build(conv(shape, nodes, channels, 2), tmp_path).manifest.input
    assert (given.channels, given.size) == (9, (8, 3))


@pytest.mark.parametrize(("channels", "said"), [(1, False), (3, False), (4, True), (6, True)])
def test_what_picture_files_do_not_hold_is_said(tmp_path: Path, channels: int, said: bool) -> None:
    onnx.save(conv(f"N,{channels},9,8", channels=channels, rank=2), tmp_path / "model.onnx")
    sentence = (
        f"the model takes {channels} channels, and picture files are read as gray or RGB, without alpha: hand over "
        "arrays, such as those of an npz file."
    )
    assert (sentence in try_model(tmp_path / "model.onnx").warnings) == said
    built = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle").warnings
    assert (sentence in built) == said
    advised = any("Pass a folder with some images of each base class." in one for one in built)
    refused = any(f"The files that it reads do not hold {channels} channels." in one for one in built)
    assert (advised, refused) == (not said, said)


def test_alpha_of_base_images_is_not_read(tmp_path: Path) -> None:
    proto = conv("N,4,9,8", channels=4, rank=2)
    folder = tmp_path / "base"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(RNG.integers(0, 255, (9, 8, 4), np.uint8)).save(folder / name / "0.png")
    with pytest.raises(
        TaskError, match=r"0\.png has 3 channels without alpha, which is not read of picture files"
    ):
        build(proto, tmp_path, base_data=folder, classes=("a", "b", "c"))


def test_auto_takes_the_last_two_lengths(tmp_path: Path) -> None:
    layers = [((4, 2, 3), "<strides=[2]>"), *[((4, 4, 3), "<strides=[2]>")] * 2]
    sites = build(chain("stages", "Tanh", *layers, image=(2, 33)).proto(), tmp_path).manifest.sites
    assert [(site.node, site.output_size) for site in sites] == [("c2", (7,)), ("c3", (3,))]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: conv("N,3,L"),
            "model.onnx: input 'x' has dynamic length [N,3,L]. Say what it is to be on the device with",
        ),
        (
            lambda: conv("N,9,3", "i = Transpose<perm=[0,2,1]>(x)"),
            "model.onnx: input 'x' has its channels last in [N,9,3]. Export it in (batch, channels, length) order.",
        ),
        (
            lambda: conv("N,9,1", "i = Reshape(x, to)", 1, to=np.array([-1, 1, 9])),
            "input 'x' has its channels last in [N,9,1]. Export it in (batch, channels, length) order.",
        ),
        (
            lambda: conv("N,27", "i = Reshape(x, to)", to=np.array([-1, 3, 9])),
            "input 'x' is neither (batch, channels, height, width) nor (batch, channels, length).",
        ),
        (
            lambda: conv("N,9,8,3", UNFOLLOWED, 3, 2, to=np.array([0, 72, 3]), back=np.array([0, 3, 9, 8])),
            "model.onnx: input 'x' [N,9,8,3] looks like an image with its channels last, but what is done to it in "
            "front of 'turn' (Transpose) cannot be followed. Export the model with (batch, channels, height, width) "
            "input.",
        ),
        (
            lambda: conv("N,H,W,3", UNFOLLOWED, 3, 2, to=np.array([0, 72, 3]), back=np.array([0, 3, 9, 8])),
            "model.onnx: input 'x' [N,H,W,3] looks like an image with its channels last, but what is done",
        ),
        (
            lambda: conv("9,8,3", "t = Transpose<perm=[2,0,1]>(x) \n i = Unsqueeze(t, to)", 3, 2, to=np.array([0])),
            "model.onnx: input 'x' [9,8,3] has no batch dimension: its sizes are those of one image. Export the model "
            "for a batch of images, such as [1,9,8,3].",
        ),
        (
            lambda: conv("3,9,8", "i = Reshape(x, to)", 3, 2, to=np.array([1, 3, 9, 8])),
            "model.onnx: input 'x' [3,9,8] has no batch dimension",
        ),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(make(), tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("N,3,9", {"resize": "bilinear"}, "--resize is 'bilinear'; model.onnx takes signals, so it must be crop or"),
        ("N,3,9,9", {"resize": "crop"}, "--resize is 'crop'; model.onnx takes images, so it must be bilinear or"),
        ("N,3,9", {"flip": True}, "--flip is for images, and model.onnx takes signals: leave it out."),
        ("N,3,9,9", {"sample_rate": 8000}, "--sample-rate is for signals, and model.onnx takes images: leave"),
        ("N,3,9", {"sample_rate": 0}, "--sample-rate is 0; it must be 1 Hz or more."),
        ("N,1,9,9", {"mean": (math.nan,)}, "--mean is (nan,); every number must be finite, and within float32."),
        ("N,1,9", {"mean": (1e39,)}, "--mean is (1e+39,); every number must be finite, and within float32."),
        ("N,1,9,9", {"std": (math.inf,)}, "--std is (inf,); every number must be finite, and within float32."),
        ("N,1,9,9", {"std": (math.nan,)}, "--std is (nan,); every number must be finite, and within float32."),
        ("N,1,9,9", {"std": (1e-46,)}, "--std is (1e-46,); every number must be above 0."),
        ("N,3,9", {"mean": (0.0,)}, "--mean has 1 number, but the model's input has 3 channels."),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_input(
    tmp_path: Path, shape: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CskError) as caught:
        build(conv(shape, rank=shape.count(",") - 1), tmp_path, **options)
    assert isinstance(caught.value, ConfigError)
    assert message in str(caught.value)


def test_warnings_speak_of_signals(tmp_path: Path) -> None:
    onnx.save(conv("N,3,9"), tmp_path / "model.onnx")
    unprotected, unnormalised = build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle").warnings
    assert "Pass a folder with some signals of each base class." in unprotected
    assert "int16 samples are only scaled to -1..1, and floats are taken as they are." in unnormalised
