"""What cannot be built says what, where and what to do next, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_text import model
from small_models import GOOD, RNG, WEIGHTS, classifier, quantised, text, unchecked, with_branch, with_loop

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError, CskError, ModelError, UnsupportedOpError


@dataclass(frozen=True)
class Row:
    """`fragments` must all be in the message of `error`."""

    case: str
    make: Callable[[], onnx.ModelProto]
    fragments: tuple[str, ...]
    error: type[CskError] = ModelError
    options: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.case.replace(" ", "-")


AGAIN = "--trainable from:NODE, or add a rule: docs/adding-an-op.md"
ALL = {"trainable": "all"}

ROWS = [
    Row(
        "two inputs",
        lambda: model(
            text("s = Add(x, x2) \n c = Conv(s, w) \n t = Conv(c, v)", "float[N,3,9,9] x, float[N,3,9,9] x2"),
            **WEIGHTS,
        ),
        ("model.onnx has 2 inputs ('x', 'x2'); a classifier has one input.",),
    ),
    Row(
        "more features than matrices of them fit anywhere",
        lambda: model(
            "(float[N,3,200,200] x) => (float[N,3] y) { c = Conv<pads=[1,1,1,1]>(x, w) \n r = Relu(c) \n "
            "f = Flatten(r) \n y = Gemm<transB=1>(f, flat) }",
            w=RNG.normal(0, 0.2, (1, 3, 3, 3)).astype(np.float32),
            flat=RNG.normal(0, 0.2, (3, 40_000)).astype(np.float32),
        ),
        (
            "the classifier sees 40,000 features of an image, and a bundle has at most 32,768",
            "13 GB",
            "a pooling",
        ),
        options={"features": "last"},
    ),
    Row(
        "a source that gives NaN",
        lambda: classifier("s = Sqrt(x) \n c = Conv(s, w) \n t = Conv(c, v)"),
        ("The source model gives NaN or infinity for ordinary noise",),
    ),
    Row(
        "no convolution",
        lambda: model(
            "(float[N,3,9,9] x) => (float[N,3] y) { f = Flatten(x) \n y = Gemm<transB=1>(f, flat) }",
            flat=RNG.normal(size=(3, 243)),
        ),
        ("model.onnx has no convolution; csk-sdk trains the kernel centers",),
    ),
    Row(
        "only 1x1 convolutions",
        lambda: classifier("c = Conv(x, three) \n t = Conv(c, one)", three=RNG.normal(size=(4, 3, 1, 1))),
        ("model.onnx has 2 convolutions, but none with an odd kernel larger than 1",),
    ),
    Row(
        "unsupported op on the gradient path",
        lambda: classifier(
            "[first] c = Conv(x, w) \n [soft] r = ThresholdedRelu(c) \n [second] t = Conv(r, v)"
        ),
        (
            "no gradient rule for 'ThresholdedRelu' (node 'soft' of model.onnx, between the first site and the loss",
            AGAIN,
        ),
        UnsupportedOpError,
        ALL,
    ),
    Row(
        "dynamic height and width",
        lambda: model(text(GOOD, "float[N,3,H,W] x"), **WEIGHTS),
        ("input 'x' has dynamic height or width", "with --input-size, such as --input-size 224x224"),
    ),
    Row(
        "unknown shape",
        lambda: unchecked(text(GOOD, "float x")),
        ("input 'x' is neither (batch, channels, height, width) nor (batch, channels, length).",),
    ),
    Row(
        "integer input",
        lambda: model(
            text("i = Cast<to=1>(x) \n c = Conv(i, w) \n t = Conv(c, v)", "int32[N,3,9,9] x"), **WEIGHTS
        ),
        ("model.onnx takes INT32 input 'x'; export it with float32 or uint8 input.",),
    ),
    Row(
        "branch",
        with_branch,
        (
            "model.onnx has control flow: op 'If' (node 'choice').",
            "Export the model without loops and branches.",
        ),
    ),
    Row("loop", with_loop, ("control flow: op 'Loop' (node 'again')",)),
    Row(
        "quantised",
        quantised,
        (
            "model.onnx is quantised, and its op 'QuantizeLinear' (node 'q') computes",
            "Give the float32 model",
        ),
    ),
    Row(
        "custom op",
        lambda: unchecked(
            text("c = Conv(x, w) \n [fused] r = com.microsoft.FusedThing(c) \n t = Conv(r, v)")
        ),
        ("op 'com.microsoft.FusedThing' (node 'fused'), which is not a standard ONNX op.",),
    ),
    Row(
        "ends in a convolution",
        lambda: unchecked(
            "(float[N,3,9,9] x) => (float[N,5,5,5] y) { c = Conv(x, w) \n [last] y = Conv(c, v) }"
        ),
        (
            "model.onnx is a model of maps (a segmenter, an autoencoder, a part of a detector): its output 'y' "
            "[N,5,5,5] has",
        ),
    ),
    Row(
        "ends in means of several convolutions",
        lambda: unchecked(
            "(float[N,3,9,9] x) => (float[N,5] y) { c = Conv(x, w) \n a = Conv(c, v) \n b = Conv(c, v) \n"
            "s = Mul(a, b) \n p = GlobalAveragePool(s) \n [flat] y = Flatten(p) }"
        ),
        ("model.onnx ends in op 'Flatten' (node 'flat')",),
    ),
    Row(
        "transformer only",
        lambda: model(
            "(float[N,3,8,8] x) => (float[N,3] y) { p = Reshape(x, patches) \n q = MatMul(p, wq) \n"
            "k = Transpose<perm=[0,2,1]>(q) \n s = MatMul(q, k) \n a = Softmax(s) \n z = MatMul(a, q) \n"
            "m = ReduceMean<axes=[1], keepdims=0>(z) \n y = Gemm<transB=1>(m, h, hb) }",
            patches=np.array([0, 16, 12]),
            wq=RNG.normal(size=(12, 5)),
            h=WEIGHTS["h"],
            hb=WEIGHTS["hb"],
        ),
        (
            "model.onnx is a transformer: 1 attention layer holds what it knows. csk-sdk trains the kernel centers of",
        ),
    ),
    Row(
        "image of a computed size on the gradient path",
        lambda: classifier(
            "[first] c = Conv(x, w) \n s = ReduceSum<keepdims=0>(c) \n i = Cast<to=7>(s) \n"
            "e = Reshape(i, row) \n [crop] d = Slice(c, from, e, axis) \n [second] t = Conv(d, v)",
            row=np.array([1]),
            **{"from": np.array([0]), "axis": np.array([2])},
        ),
        (
            "Convolution 'second' works on an image of unknown height or width",
            "Export the model with a fixed",
        ),
        options=ALL,
    ),
    Row(
        "site that reaches the loss only through ArgMax",
        lambda: classifier(
            "[first] c = Conv(x, w) \n [pick] i = ArgMax<axis=1>(c) \n k = Cast<to=1>(i) \n"
            "d = Conv(x, w2) \n [scale] m = Mul(d, k) \n [second] t = Conv(m, v)",
            w2=RNG.normal(size=(4, 3, 3, 3)),
        ),
        (
            "site 'first' of model.onnx reaches the loss only through op 'ArgMax' (node 'pick'), which has no",
            "gradient. Train only later layers with --trainable from:NODE.",
        ),
        UnsupportedOpError,
        ALL,
    ),
    Row(
        "classifier over a sequence",
        lambda: model(
            "(float[N,3,9,9] x) => (float[N,4,7,2] y) { c = Conv(x, w) \n y = MatMul(c, m) }",
            **WEIGHTS,
            m=RNG.normal(size=(7, 2)),
        ),
        (
            "model.onnx is a model of maps (a segmenter, an autoencoder, a part of a detector): its output 'y' "
            "[N,4,7,2] has",
        ),
    ),
    Row(
        "written for a batch of one only",
        lambda: model(
            text(
                "c = Conv(x, w) \n q = Reshape(c, flat) \n d = Gather<axis=0>(q, order) \n"
                "[second] t = Conv(d, v)",
                "float[1,3,9,9] x",
                "float[1,3] y",
            ),
            **WEIGHTS,
            flat=np.array([-1]),
            order=np.arange(4 * 7 * 7)[::-1].reshape(1, 4, 7, 7),
        ),
        (
            "model.onnx is written for one batch size: for 2 images it does not run.",
            "Export it again with a dynamic batch.",
        ),
        options={"trainable": "from:second"},
    ),
    Row(
        "opset 6",
        lambda: unchecked(text(GOOD), 6),
        ("model.onnx uses opset 6; opsets 7 to 28", "opset 17"),
    ),
    Row(
        "opset 29",
        lambda: unchecked(text(GOOD), 29),
        ("model.onnx uses opset 29; opsets 7 to 28", "opset 17"),
    ),
    Row(
        "op that opset 17 does not know",
        lambda: classifier(
            "c = Conv(x, w) \n [crop] r = CenterCropPad<axes=[2,3]>(c, size) \n t = Conv(r, v)",
            21,
            size=np.array([5, 5]),
        ),
        (
            "model.onnx has op 'CenterCropPad' (node 'crop') in a form that opset 17 does not know.",
            "opset 17",
        ),
    ),
    Row(
        "attribute that opset 17 does not know",
        lambda: classifier(
            '[smaller] c = Resize<mode="linear", antialias=1>(x, , half) \n r = Conv(c, w) \n t = Conv(r, one)',
            19,
            half=np.array([1.0, 1, 0.5, 0.5]),
        ),
        ("model.onnx has op 'Resize' (node 'smaller') in a form that opset 17 does not know.",),
    ),
    Row(
        "axes from the graph",
        lambda: classifier(
            "c = Conv(x, w) \n s = Shape(x) \n n = Gather(s, place) \n a = Sub(n, eight) \n"
            "[mean] m = ReduceMean(c, a) \n d = Sub(c, m) \n t = Conv(d, v)",
            18,
            place=np.array([2]),
            eight=np.array([7]),
        ),
        ("'mean' (ReduceMean) takes its axes from the graph",),
    ),
    Row(
        "unknown node",
        classifier,
        ("model.onnx has no node 'third'. Sites that training can start from: 'first', 'second'.",),
        options={"trainable": "from:third"},
    ),
    Row(
        "nothing behind the node",
        classifier,
        (
            "model.onnx has no site at or behind node 'head', nothing that --sites names. Start from an earlier node.",
        ),
        options={"trainable": "from:head"},
    ),
    Row(
        "unknown --trainable",
        classifier,
        ("--trainable is 'last'; it must be auto, all or from:NODE",),
        ConfigError,
        {"trainable": "last"},
    ),
    Row(
        "too few classes",
        classifier,
        ("--classes has 2 names, but model.onnx has 3 outputs.",),
        ConfigError,
        {"classes": ("a", "b")},
    ),
    Row(
        "one class",
        classifier,
        ("--classes has 1 name, but model.onnx has 3 outputs.",),
        ConfigError,
        {"classes": ("a",)},
    ),
    Row(
        "duplicate class names",
        classifier,
        ("--classes has 'a' twice, and every class needs a name of its own: rename one.",),
        ConfigError,
        {"classes": ("a", "b", "a")},
    ),
    Row(
        "class names that are nearly the same",
        classifier,
        (
            "--classes has 'Café' and 'CAFE\u0301 ', which differ only in case, spaces at their ends or how accents",
        ),
        ConfigError,
        {"classes": ("a", "Café", "CAFE\u0301 ")},
    ),
    Row(
        "a class without a name",
        classifier,
        ("--classes calls class 1 '', and a name is not empty",),
        ConfigError,
        {"classes": ("a", "", "c")},
    ),
    Row(
        "a class name of two lines",
        classifier,
        ("--classes calls class 2 'c\\nd', and a name is not empty",),
        ConfigError,
        {"classes": ("a", "b", "c\nd")},
    ),
    Row(
        "channel ratio of zero",
        classifier,
        ("--channel-ratio is 0.0; it must be above 0 and at most 1.",),
        ConfigError,
        {"channel_ratio": 0.0},
    ),
    Row(
        "batch size of zero",
        classifier,
        ("--batch-size is 0; it must be 1 or more.",),
        ConfigError,
        {"batch_size": 0},
    ),
    Row(
        "mean of another length",
        classifier,
        ("--mean has 1 number, but the model's input has 3 channels.",),
        ConfigError,
        {"mean": (0.5,)},
    ),
    Row("std of zero", classifier, ("--std is", "above 0"), ConfigError, {"std": (0.0, 1.0, 1.0)}),
    Row(
        "unknown resize",
        classifier,
        ("--resize is 'cubic'; model.onnx takes images, so it must be bilinear or none.",),
        ConfigError,
        {"resize": "cubic"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_refused(tmp_path: Path, row: Row) -> None:
    onnx.save(row.make(), tmp_path / "model.onnx")
    with pytest.raises(row.error) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(**row.options))  # type: ignore[arg-type]
    assert type(caught.value) is row.error
    for fragment in row.fragments:
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(row.error) as tried:
        try_model(tmp_path / "model.onnx", BuildOptions(**row.options))  # type: ignore[arg-type]
    assert str(tried.value) == str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "absent.onnx", tmp_path / "bundle")
    assert f"There is no model file {tmp_path / 'absent.onnx'}." in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\x89PNG\r\n\x1a\n"])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        build_artifacts(path, tmp_path / "bundle")
    assert f"{path} is not a valid ONNX model (" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_half_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    content = classifier().SerializeToString()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        build_artifacts(path, tmp_path / "bundle")


def test_external_data_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    (tmp_path / "apart.bin").unlink()
    with pytest.raises(ModelError, match=r"apart\.bin"):
        build_artifacts(path, tmp_path / "bundle")


def test_a_folder_instead_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model file"):
        build_artifacts(tmp_path, tmp_path / "bundle")


def test_an_unsupported_op_before_the_first_site_is_fine(tmp_path: Path) -> None:
    nodes = "[first] c = Conv(x, w) \n [soft] r = ThresholdedRelu(c) \n [second] t = Conv(r, v)"
    onnx.save(classifier(nodes), tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="from:second"))
    assert [site.node for site in Bundle.open(tmp_path / "bundle").manifest.sites] == ["second"]


def test_an_unsupported_op_beside_the_gradient_path_is_fine(tmp_path: Path) -> None:
    nodes = (
        "[first] c = Conv(x, w) \n [second] u = Conv(c, v) \n e = Exp(x) \n m = ReduceMean<axes=[1,2,3]>(e)\n"
        "t = Mul(u, m)"
    )
    onnx.save(classifier(nodes), tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(trainable="all"))
