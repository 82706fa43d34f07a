"""What cannot be built says what, where and what to do next, and leaves nothing behind."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from networks import norm
from numpy.typing import NDArray
from onnx_text import model
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle import Bundle
from csk_sdk.errors import ConfigError, CskError, ModelError, StorageError, TaskError, UnsupportedOpError

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(0, 0.3, (4, 3, 3, 3)),
    "v": RNG.normal(0, 0.3, (5, 4, 3, 3)),
    "one": RNG.normal(0, 0.3, (5, 4, 1, 1)),
    "h": RNG.normal(0, 0.3, (3, 5)),
    "hb": RNG.normal(0, 0.3, 3),
}
TAIL = "p = GlobalAveragePool(t) \n f = Flatten(p) \n [head] y = Gemm<transB=1>(f, h, hb)"
GOOD = "[first] c = Conv(x, w) \n r = Relu(c) \n [second] t = Conv(r, v)"


def text(nodes: str, inputs: str = "float[N,3,9,9] x", output: str = "float[N,3] y", tail: str = TAIL) -> str:
    return f"({inputs}) => ({output}) {{ {nodes} \n {tail} }}"


def classifier(nodes: str = GOOD, opset: int = 17, **tensors: NDArray) -> onnx.ModelProto:
    """A model whose `nodes` lead from `x` to `t` `(N, 5, height, width)`."""
    return model(text(nodes), opset, **WEIGHTS, **tensors)


def unchecked(source: str, opset: int = 17, **tensors: NDArray) -> onnx.ModelProto:
    """As `model`, for what onnx's own checker would refuse or not know."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> g {source}'
    )
    for name, array in (WEIGHTS | tensors).items():
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    return proto


def quantised() -> onnx.ModelProto:
    return classifier(
        "q = QuantizeLinear(x, scale) \n d = DequantizeLinear(q, scale) \n c = Conv(d, w) \n t = Conv(c, v)",
        scale=np.array(0.1),
    )


def with_branch() -> onnx.ModelProto:
    return unchecked(
        text(
            "k = ReduceSum<keepdims=0>(x) \n b = Greater(k, zero) \n c = Conv(x, w) \n"
            "[choice] r = If (b) <then_branch = g1 () => (float[N,4,7,7] a) { a = Relu(c) },"
            "else_branch = g2 () => (float[N,4,7,7] a) { a = Neg(c) }> \n t = Conv(r, v)"
        ),
        zero=np.array(0.0),
    )


def with_loop() -> onnx.ModelProto:
    return unchecked(
        text(
            "c = Conv(x, w) \n [again] r = Loop (times, , c) <body = g1 (int64 i, bool on, float[N,4,7,7] a)"
            " => (bool more, float[N,4,7,7] b) { more = Identity(on) \n b = Relu(a) }> \n t = Conv(r, v)"
        ),
        times=np.array(2),
    )


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
        "two outputs",
        lambda: model(text(GOOD, output="float[N,3] y, float[N,5] f"), **WEIGHTS),
        ("model.onnx has 2 outputs; a classifier has one, its logits.",),
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
        "einsum on the gradient path",
        lambda: classifier(
            'c = Conv(x, w) \n [ein] e = Einsum<equation="nchw,cd->ndhw">(c, square) \n t = Conv(e, v)',
            square=RNG.normal(size=(4, 4)),
        ),
        ("no gradient rule for 'Einsum' (node 'ein' of model.onnx", AGAIN),
        UnsupportedOpError,
        ALL,
    ),
    Row(
        "batch norm in training mode",
        lambda: model(
            text(
                "c = Conv(x, w) \n [norm] n, m2, v2 = BatchNormalization<training_mode=1>"
                "(c, a_gamma, a_beta, a_mean, a_var) \n t = Conv(n, v)"
            ),
            **WEIGHTS,
            **norm("a", 4),
        ),
        ("model.onnx has batch norm 'norm' in training mode. Export the model in eval mode.",),
    ),
    Row(
        "dynamic height and width",
        lambda: model(text(GOOD, "float[N,3,H,W] x"), **WEIGHTS),
        ("input 'x' has dynamic height or width", "Export it with a fixed picture size"),
    ),
    Row(
        "unknown shape",
        lambda: unchecked(text(GOOD, "float x")),
        ("input 'x' is neither (batch, channels, height, width) nor (batch, channels, length).",),
    ),
    Row(
        "integer input",
        lambda: model(
            text("i = Cast<to=1>(x) \n c = Conv(i, w) \n t = Conv(c, v)", "uint8[N,3,9,9] x"), **WEIGHTS
        ),
        ("model.onnx takes UINT8 input 'x'; export it with float32 input.",),
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
    Row("quantised", quantised, ("model.onnx is quantised: op 'QuantizeLinear'", "Give the float32 model")),
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
        ("model.onnx ends in op 'Conv' (node 'last'), not in a fully connected classifier",),
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
        ("model.onnx has no convolution; csk-sdk trains the kernel centers of convolutional networks.",),
    ),
    Row(
        "picture of a computed size on the gradient path",
        lambda: classifier(
            "[first] c = Conv(x, w) \n s = ReduceSum<keepdims=0>(c) \n i = Cast<to=7>(s) \n"
            "e = Reshape(i, row) \n [crop] d = Slice(c, from, e, axis) \n [second] t = Conv(d, v)",
            row=np.array([1]),
            **{"from": np.array([0]), "axis": np.array([2])},
        ),
        (
            "Convolution 'second' works on a picture of unknown height or width",
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
        ("the classifier's input 'c' is not a (batch, features) matrix.",),
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
            "The model is written for one batch size: for 2 pictures it does not run.",
            "Export it again with a dynamic batch.",
        ),
        options={"trainable": "from:second"},
    ),
    Row(
        "opset 10",
        lambda: unchecked(text(GOOD), 10),
        ("model.onnx uses opset 10; opsets 11 to 23", "opset 17"),
    ),
    Row(
        "opset 24",
        lambda: unchecked(text(GOOD), 24),
        ("model.onnx uses opset 24; opsets 11 to 23", "opset 17"),
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
            "c = Conv(x, w) \n [pool] r = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(c) \n"
            "t = Conv(r, v)",
            19,
        ),
        ("model.onnx has op 'AveragePool' (node 'pool') in a form that opset 17 does not know.",),
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
        ("model.onnx has no kernel center at or behind node 'head'. Start from an earlier node.",),
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
        "duplicate class names",
        classifier,
        ("--classes has the same name twice",),
        ConfigError,
        {"classes": ("a", "b", "a")},
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
        ("--mean has 1 numbers, but the model's input has 3 channels.",),
        ConfigError,
        {"mean": (0.5,)},
    ),
    Row("std of zero", classifier, ("--std is", "above 0"), ConfigError, {"std": (0.0, 1.0, 1.0)}),
    Row(
        "unknown resize",
        classifier,
        ("--resize is 'cubic'; model.onnx takes pictures, so it must be bilinear or none.",),
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


# --- base data


def saved(tmp_path: Path) -> Path:
    onnx.save(networks.VGG.proto(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def pictures(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("folders", "fragments"),
    [
        (
            {"a": 1, "b": 1, "c": 1, "zebra": 1},
            ("has a folder 'zebra'", "not one of the model's 3 classes", "--classes"),
        ),
        ({"a": 1, "b": 1}, ("has no pictures of class 'c'. Put some into",)),
        ({"a": 1, "b": 0, "c": 1}, ("has no pictures of class 'b'. Put some into",)),
    ],
    ids=["foreign", "missing", "empty"],
)
def test_base_data_that_does_not_fit(
    tmp_path: Path, folders: dict[str, int], fragments: tuple[str, ...]
) -> None:
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", **folders))
    with pytest.raises(TaskError) as caught:
        build_artifacts(saved(tmp_path), tmp_path / "bundle", options)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_no_base_data_folder(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="There is no folder"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", BuildOptions(base_data=tmp_path / "absent"))


def test_a_damaged_picture_in_the_base_data(tmp_path: Path) -> None:
    base = pictures(tmp_path / "base", a=1, b=1, c=1)
    (base / "b" / "0.png").write_bytes(b"no picture")
    options = BuildOptions(classes=("a", "b", "c"), base_data=base)
    with pytest.raises(TaskError, match=r"0\.png"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "model.onnx"]


def test_base_data_protects_and_warnings_say_what_is_missing(tmp_path: Path) -> None:
    options = BuildOptions(classes=("a", "b", "c"), base_data=pictures(tmp_path / "base", a=2, b=1, c=1))
    seen: list[tuple[int, int]] = []
    report = build_artifacts(
        saved(tmp_path), tmp_path / "bundle", options, lambda done, total: seen.append((done, total))
    )
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.base_protected
    assert seen[-1] == (4, 4)
    assert report.base_accuracy is not None
    assert all(np.trace(bundle.checkpoint()[f"moment/{site.name}"][0]) > 0 for site in bundle.manifest.sites)
    unprotected = build_artifacts(saved(tmp_path), tmp_path / "other")
    assert "UNPROTECTED" in unprotected.warnings[0]
    assert unprotected.base_accuracy is None


# --- the place for the bundle


def test_out_exists(tmp_path: Path) -> None:
    path, out = saved(tmp_path), tmp_path / "bundle"
    build_artifacts(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ConfigError) as caught:
        build_artifacts(path, out)
    assert str(caught.value) == (
        f"{out} exists already. Choose another --out, or pass --overwrite to replace it."
    )
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    build_artifacts(path, out, BuildOptions(overwrite=True, batch_size=3))
    assert Bundle.open(out).manifest.batch_size == 3


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    build_artifacts(saved(tmp_path), tmp_path / "bundle")
    Bundle.open(tmp_path / "bundle")


def test_overwrite_replaces_nothing_but_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"dear to someone")
    with pytest.raises(ConfigError) as caught:
        build_artifacts(saved(tmp_path), tmp_path / "photos", BuildOptions(overwrite=True))
    assert f"{tmp_path / 'photos'} is not a bundle, so --overwrite will not replace it." in str(caught.value)
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"dear to someone"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_place_of_the_bundle(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "bundle").write_text("a file")
    with pytest.raises(ConfigError, match=r"bundle (exists already|is not a bundle)"):
        build_artifacts(saved(tmp_path), tmp_path / "bundle", BuildOptions(overwrite=overwrite))
    assert (tmp_path / "bundle").read_text() == "a file"


@pytest.mark.parametrize("written", range(6))
@pytest.mark.parametrize("overwrite", [True, False])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, overwrite: bool) -> None:
    path, out = saved(tmp_path), tmp_path / "bundle"
    if overwrite:
        build_artifacts(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()} if overwrite else None
    write_bytes, calls = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        calls.append(self.name)
        if len(calls) > written:
            self.open("wb").close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as caught:
        build_artifacts(path, out, BuildOptions(overwrite=overwrite))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"The bundle could not be written to {out} (No space left on device). Nothing was left behind."
    )
    if before is None:
        assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    else:
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "model.onnx"]
        assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_full_disk_while_writing_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    path = saved(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        build_artifacts(path, tmp_path / "bundle")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        build_artifacts(saved(tmp_path), tmp_path / "file" / "bundle")


def test_a_bundle_may_be_written_where_you_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.chdir(tmp_path)
    build_artifacts(path, "bundle")
    build_artifacts(path, Path("new") / "folders" / "bundle")
    Bundle.open(tmp_path / "bundle")
    Bundle.open(tmp_path / "new" / "folders" / "bundle")


def test_the_current_folder_may_become_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    build_artifacts(path, ".")
    Bundle.open(tmp_path / "bundle")
