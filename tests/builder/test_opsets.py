"""Models of every opset become opset 17, and still say the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_text import model
from PIL import Image
from preparing import HEAD, TAIL, body, buildable, drawn, images, in_opset, last_conv, ops, outputs, prepared

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_artifacts_builder.graphs.head import split_head
from csk_artifacts_builder.prepare import old_opsets
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk.errors import ModelError


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(7, 29))
@pytest.mark.parametrize("batch", ["N", "1"], ids=["dynamic", "static"])
def test_every_opset(tmp_path: Path, opset: int, batch: str) -> None:
    source = prepared(in_opset(opset, batch), tmp_path)
    assert "Dropout" not in ops(source)
    build_artifacts(
        source.path,
        tmp_path / "bundle",
        BuildOptions(features="last", trainable=f"from:{last_conv(source)}"),
    )


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 23, 28])
@pytest.mark.parametrize("end", ["y = Softmax<axis=1>(z)", "y = Softmax(z)", "y = LogSoftmax<axis=-1>(z)"])
def test_probabilities_at_the_end(tmp_path: Path, opset: int, end: str) -> None:
    source = prepared(in_opset(opset, "N", end), tmp_path)
    assert split_head(source.model, "").activation == end.split(" ")[2].split("<")[0].split("(")[0]


def test_ops_younger_than_opset_17_are_rewritten(tmp_path: Path) -> None:
    for number, gelu in enumerate(("Gelu", 'Gelu<approximate="tanh">')):
        nodes = f"c = Conv(x, w) \n g = {gelu}(c) \n t = Conv(g, v) \n {TAIL}"
        folder = tmp_path / str(number)
        folder.mkdir()
        source = prepared(model(body(nodes), 20, **HEAD), folder)
        assert "Gelu" not in ops(source)


def test_mish_is_rewritten(tmp_path: Path) -> None:
    source = prepared(
        model(body(f"c = Conv(x, w) \n g = Mish(c) \n t = Conv(g, v) \n {TAIL}"), 18, **HEAD), tmp_path
    )
    assert "Mish" not in ops(source)
    buildable(source, tmp_path)


def test_group_normalization_is_rewritten(tmp_path: Path) -> None:
    nodes = f"c = Conv(x, w) \n g = GroupNormalization<num_groups=2>(c, s, b) \n t = Conv(g, v) \n {TAIL}"
    source = prepared(model(body(nodes), 21, **HEAD, **drawn(("s", (4,)), ("b", (4,)))), tmp_path)
    assert "InstanceNormalization" in ops(source)
    buildable(source, tmp_path)


def test_reductions_without_axes(tmp_path: Path) -> None:
    """No axes reduces everything, unless `noop_with_empty_axes` says nothing."""
    nodes = (
        "c = Conv(x, w) \n m = ReduceMax(c, all) \n o = ReduceMean<noop_with_empty_axes=1>(c) \n"
        f"a = Add(o, m) \n n = ReduceL2<keepdims=0>(all_w) \n b = Mul(a, n) \n t = Conv(b, v) \n {TAIL}"
    )
    tensors = HEAD | {"all": np.array([0, 1, 2, 3])} | drawn(("all_w", (2, 2)))
    proto = model(body(nodes), 18, **tensors)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    after = ir.to_proto(prepare(path).model)
    np.testing.assert_allclose(outputs(after, images(3)), outputs(proto, images(3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "opset", "element"),
    [
        ("ReduceSum", 13, "Identity(c)"),
        ("ReduceSum", 18, "Identity(c)"),
        ("ReduceMax", 18, "Identity(c)"),
        ("ReduceLogSumExp", 18, "Identity(c)"),
        ("ReduceL1", 18, "Abs(c)"),
        ("ReduceL2", 20, "Abs(c)"),
        ("ReduceSumSquare", 18, "Mul(c, c)"),
    ],
)
@pytest.mark.parametrize("axes", ["", ", none"])
def test_a_reduction_of_nothing_is_one_of_single_elements(
    tmp_path: Path, op: str, opset: int, element: str, axes: str
) -> None:
    """ONNX Runtime 1.17.0 does not run such a ReduceSum, and 1.22.1 leaves the square out."""
    behind = f"b = Conv(a, v) \n {TAIL.replace('(t)', '(b)')}"
    tensors = HEAD | {"none": np.zeros(0, np.int64)}
    reduced = f"c = Conv(x, w) \n a = {op}<noop_with_empty_axes=1>(c{axes}) \n {behind}"
    same = f"c = Conv(x, w) \n a = {element} \n {behind}"
    path = tmp_path / "model.onnx"
    onnx.save(model(body(reduced), opset, **tensors), path)
    after = ir.to_proto(prepare(path).model)
    assert not [node for node in after.graph.node if node.op_type == op]
    expected = outputs(model(body(same), 17, **tensors), images(3))
    np.testing.assert_allclose(outputs(after, images(3)), expected, rtol=1e-5, atol=1e-6)


def test_pooling_with_dilations_of_one_is_lowered(tmp_path: Path) -> None:
    nodes = "c = Conv(x, w) \n a = AveragePool<kernel_shape=[2,2], dilations=[1,1]>(c) \n t = Conv(a, v)"
    buildable(prepared(model(body(f"{nodes} \n {TAIL}"), 19, **HEAD), tmp_path), tmp_path)


def test_split_into_uneven_parts(tmp_path: Path) -> None:
    """`num_outputs` of opset 18 may leave a smaller last part."""
    nodes = (
        "c = Conv(x, w) \n u = Conv(c, v) \n a, b, d = Split<axis=1, num_outputs=3>(u) \n"
        f"e = Concat<axis=1>(d, b, a) \n t = Conv(e, vv) \n {TAIL}"
    )
    tensors = HEAD | drawn(("vv", (5, 5, 3, 3)))
    prepared(model(body(nodes), 18, **tensors), tmp_path)


def test_what_onnx_writes_by_default(tmp_path: Path) -> None:
    """onnx 1.23.2: opset 28 in IR version 14."""
    proto = in_opset(28)
    proto.ir_version = 14
    source = prepared(proto, tmp_path)
    build_artifacts(source.path, tmp_path / "bundle")


# What onnx's converter changes without an error, or takes apart: nodes from `c` (N, 4, 7, 7) to `b` (N, 4, *, *).
SILENT = {
    "softmax over all axes": (11, "b = Softmax<axis=1>(c)"),
    "softmax over two axes": (9, "b = Softmax<axis=2>(c)"),
    "log softmax over all axes": (12, "b = LogSoftmax(c)"),
    "hardmax over all axes": (11, "b = Hardmax<axis=1>(c)"),
    "hardmax over the last": (12, "b = Hardmax<axis=3>(c)"),
    "softmax of means": (11, "m = GlobalAveragePool(c) \n s = Softmax<axis=1>(m) \n b = Mul(c, s)"),
    "upsample 7": (7, "b = Upsample<scales=[1.0,1.0,1.7,2.0]>(c)"),
    "upsample 9": (9, "b = Upsample(c, scales)"),
    "upsample 9 linear": (9, 'b = Upsample<mode="linear">(c, scales)'),
    "resize 10": (10, "b = Resize(c, scales)"),
    "resize 10 linear": (10, 'b = Resize<mode="linear">(c, scales)'),
    "resize 10 smaller": (10, "b = Resize(c, smaller)"),
    "resize 10 smaller and larger": (10, "b = Resize(c, both)"),
    "resize 10 smaller linear": (10, 'b = Resize<mode="linear">(c, smaller)'),
    "resize 11": (11, 'b = Resize<mode="linear">(c, scales, scales)'),
}


@pytest.mark.parametrize("case", SILENT)
def test_what_the_converter_would_change_in_silence(tmp_path: Path, case: str) -> None:
    opset, nodes = SILENT[case]
    tensors = {"scales": np.array([1.0, 1, 1.7, 2.0]), "smaller": np.array([1.0, 1, 0.6, 0.8])}
    tensors["both"] = np.array([1.0, 1, 0.6, 1.3])
    text = f"c = Conv(x, w) \n {nodes} \n t = Conv<pads=[1,1,1,1]>(b, v) \n {TAIL}"
    used = {name: array for name, array in tensors.items() if name in nodes}
    proto = model(body(text), opset, ir_version=6, **HEAD, **used)
    prepared(proto, tmp_path)


def without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(old_opsets, name, lambda model: None)


def scaled_converter(patch: pytest.MonkeyPatch) -> None:
    """A converter that makes a LeakyRelu a hundredth steeper."""
    convert = onnx.version_converter.convert_version

    def broken(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        converted = convert(proto, version)
        for node in converted.graph.node:
            if node.op_type == "LeakyRelu":
                node.attribute[0].f *= 1.01
        return converted

    patch.setattr(onnx.version_converter, "convert_version", broken)


MUTATIONS = {
    "hardmax as onnx reads it now": (without("_raise_softmax"), "m = Hardmax<axis=1>(c) \n b = Add(c, m)", 9),
    "resize as onnx reads it now": (without("_raise_resize"), 'b = Resize<mode="linear">(c, scales)', 10),
    "a slope of 0.202": (scaled_converter, "b = LeakyRelu<alpha=0.2>(c)", 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "Softmax"])
@pytest.mark.parametrize("case", MUTATIONS)
def test_a_converter_that_changes_numbers_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, end: str
) -> None:
    """Before anything is written, and in probabilities of many classes, too, which are all small."""
    mutate, nodes, opset = MUTATIONS[case]
    tensors = HEAD | drawn(("many", (200, 5)), ("hb", (200,)))
    del tensors["h"]
    if "scales" in nodes:
        tensors["scales"] = np.array([1.0, 1, 1.7, 2.0])
    text = (
        f"c = Conv(x, w) \n {nodes} \n [second] t = Conv<pads=[1,1,1,1]>(b, v) \n p = GlobalAveragePool(t) \n"
        f"f = Flatten(p) \n z = Gemm<transB=1>(f, many, hb) \n y = {f'{end}<axis=1>' if end else 'Identity'}(z)"
    )
    path, options = tmp_path / "model.onnx", BuildOptions(features="last", trainable="from:second")
    onnx.save(model(body(text).replace("[N,3]", "[N,200]"), opset, ir_version=6, **tensors), path)
    build_artifacts(path, tmp_path / "good", options)
    mutate(monkeypatch)
    with pytest.raises(ModelError, match="differ by"):
        build_artifacts(path, tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


def lower_clip(patch: pytest.MonkeyPatch) -> None:
    """A converter that clips at 20 what the file clips at 80."""
    convert = onnx.version_converter.convert_version

    def broken(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for node in copy.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Clip" and attribute.name == "max":
                    attribute.f = 20.0
        return convert(copy, version)

    patch.setattr(onnx.version_converter, "convert_version", broken)


@pytest.mark.slow
def test_a_converter_is_caught_on_real_images_where_noise_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison sees base data as the device will: here pixels of 0 to 100, and noise is within 5."""
    text = f"k = Clip<min=-80.0, max=80.0>(x) \n c = Conv(k, w) \n t = Conv(c, v) \n {TAIL}"
    path = tmp_path / "model.onnx"
    onnx.save(model(body(text), 10, ir_version=6, **HEAD), path)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "base" / name).mkdir(parents=True)
        for number in range(2):
            picture = rng.integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "base" / name / f"{number}.png")
    options = BuildOptions(classes=("a", "b", "c"), mean=(0.0,) * 3, std=(0.01,) * 3)
    with_images = replace(options, base_data=tmp_path / "base")
    build_artifacts(path, tmp_path / "good", with_images)
    lower_clip(monkeypatch)
    build_artifacts(path, tmp_path / "unseen", options)
    for act in (
        lambda: build_artifacts(path, tmp_path / "bundle", with_images),
        lambda: try_model(path, with_images),
    ):
        with pytest.raises(ModelError, match="differ by"):
            act()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["base", "good", "model.onnx", "unseen"]
