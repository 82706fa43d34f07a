"""What used to be refused as an error of the builder, or by a sentence that was not true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_text import in_float64, model
from preparing import HEAD, TAIL, body, images, outputs, prepared
from small_models import WEIGHTS, classifier, text, unchecked
from small_network import norm

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_artifacts_builder.prepare import pools, source_file
from csk_artifacts_builder.prepare.model import prepare
from csk_sdk import Learner
from csk_sdk.errors import ModelError


def exported(folder: Path) -> onnx.ModelProto:
    """What a device exports that has learned nothing."""
    Learner.open(folder / "bundle", state=folder / "state").export(folder / "exported.onnx")
    return onnx.load(str(folder / "exported.onnx"))


def build(proto: onnx.ModelProto, folder: Path, **options: object) -> tuple[str, ...]:
    onnx.save(proto, folder / "model.onnx")
    report = build_artifacts(folder / "model.onnx", folder / "bundle", BuildOptions(**options))  # type: ignore[arg-type]
    return (*report.notes, *report.warnings)


@pytest.mark.parametrize("opset", [12, 13, 17, 22])
def test_dropout_in_training_mode(tmp_path: Path, opset: int) -> None:
    nodes = "c = Conv(x, w) \n [drop] d = Dropout(c, ratio, on) \n t = Conv(d, v)"
    proto = unchecked(text(nodes), opset, ratio=np.array(0.5))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "on"))
    warnings = build(proto, tmp_path)
    assert any(
        "dropout 'drop' is in training mode" in said and "as for inference" in said for said in warnings
    )
    without = classifier("c = Conv(x, w) \n t = Conv(c, v)", opset)
    expected = outputs(without, images(3))
    np.testing.assert_allclose(outputs(exported(tmp_path), images(3)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 17, 22])
def test_batch_norm_in_training_mode(tmp_path: Path, opset: int) -> None:
    """Below opset 14 its further outputs say so."""
    form = (
        "n, m2, v2 = BatchNormalization<training_mode=1>"
        if opset >= 14
        else "n, m2, v2, m3, v3 = BatchNormalization"
    )
    nodes = f"c = Conv(x, w) \n [norm] {form}(c, a_gamma, a_beta, a_mean, a_var) \n t = Conv(n, v) \n {TAIL}"
    source = body(nodes)
    proto = unchecked(source, opset, **norm("a", 4))
    warnings = build(proto, tmp_path)
    assert any(
        "batch norm 'norm' is in training mode" in said and "running mean" in said for said in warnings
    )
    inference = model(body(nodes.replace(form, "n = BatchNormalization")), opset, **HEAD, **norm("a", 4))
    for tensor in inference.graph.initializer:
        if tensor.name in WEIGHTS:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(WEIGHTS[tensor.name].astype(np.float32), tensor.name)
            )
    expected = outputs(inference, images(3))
    np.testing.assert_allclose(outputs(exported(tmp_path), images(3)), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_draws_random_numbers(tmp_path: Path) -> None:
    nodes = "c = Conv(x, w) \n [noise] n = RandomNormalLike(c) \n a = Add(c, n) \n t = Conv(a, v)"
    with pytest.raises(
        ModelError, match=r"op 'RandomNormalLike' \(node 'noise'\), which draws random numbers"
    ):
        build(classifier(nodes), tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_a_model_that_answers_by_the_other_pictures(tmp_path: Path) -> None:
    nodes = (
        "c = Conv(x, w) \n m = ReduceMean<axes=[0], keepdims=1>(c) \n a = Sub(c, m) \n [last] t = Conv(a, v)"
    )
    with pytest.raises(ModelError, match="answers to an image by the others in its batch"):
        build(classifier(nodes), tmp_path, trainable="from:last")


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 13, 17, 18])
def test_what_the_standard_says_where_a_file_says_nothing(tmp_path: Path, opset: int) -> None:
    """The axes of MeanVarianceNormalization are those of the batch, too, as they are where they are written out."""
    said = []
    for number, axes in enumerate(("", "<axes=[0,2,3]>")):
        nodes = f"c = Conv(x, w) \n m = MeanVarianceNormalization{axes}(c) \n [last] t = Conv(m, v)"
        folder = tmp_path / str(number)
        folder.mkdir()
        onnx.save(unchecked(text(nodes), opset), folder / "model.onnx")
        command = [sys.executable, "-m", "csk_sdk", "try", folder / "model.onnx", "--trainable", "from:last"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        said.append(re.sub(r"differ by [\d.]+", "differ", done.stderr))
    assert said[0] == said[1]
    assert said[0].startswith("Error: model.onnx answers to an image by the others in its batch")
    assert said[0].count("\n") == 1


def test_an_op_that_onnx_infers_nothing_of_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the classifier's input is no matrix was not true: nothing was known of it."""
    monkeypatch.setattr(source_file, "_WITHOUT_DEFAULT", {})
    nodes = "c = Conv(x, w) \n [norm] m = MeanVarianceNormalization(c) \n t = Conv(m, v)"
    onnx.save(unchecked(text(nodes)), tmp_path / "model.onnx")
    with pytest.raises(
        ModelError, match=r"shape of the classifier's input 'f' is not known, because none .*\(node '"
    ):
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions())


def test_what_libraries_log_is_not_on_stderr() -> None:
    code = (
        "import logging, csk_artifacts_builder, onnx_ir.passes.common.shape_inference as inference\n"
        "inference.logger.warning('seen')\nlogging.getLogger('onnxscript.optimizer').error('seen')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


SAME = [
    ("MaxPool", "kernel_shape=[3,3], dilations=[2,2]"),
    ("MaxPool", "kernel_shape=[2,2], dilations=[3,2], strides=[2,1]"),
    ("MaxPool", "kernel_shape=[1,1], strides=[3,3]"),
    ("AveragePool", "kernel_shape=[1,1], strides=[2,3]"),
    ("Conv", "dilations=[2,2]"),
    ("Conv", "dilations=[2,1], strides=[2,2]"),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("op", "attributes"), SAME)
def test_padding_that_onnx_runtime_computes_otherwise(
    tmp_path: Path, op: str, attributes: str, mode: str
) -> None:
    """Built as the standard says, with the padding that its formula gives, and said so."""
    nodes = f'c = Conv(x, w) \n [same] s = {op}<auto_pad="{mode}", {attributes}>(c{", k" if op == "Conv" else ""})'
    tensors = {"k": np.random.default_rng(3).normal(0, 0.4, (4, 4, 2, 2))} if op == "Conv" else {}
    proto = classifier(f"{nodes} \n t = Conv<pads=[1,1,1,1]>(s, v)", **tensors)
    warnings = build(proto, tmp_path, features="last")
    assert any("'same'" in said and mode in said and "ONNX standard" in said for said in warnings)
    written = by_the_standard(proto)
    expected = ReferenceEvaluator(in_float64(written)).run(None, {"x": images(2).astype(np.float64)})[0]
    np.testing.assert_allclose(outputs(exported(tmp_path), images(2)), expected, rtol=1e-4, atol=1e-5)


def by_the_standard(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The image of 7 x 7 in front of `same` padded by a Pad, as the formula in the operator's text has it."""
    written = onnx.ModelProto()
    written.CopyFrom(proto)
    place = next(index for index, node in enumerate(written.graph.node) if node.name == "same")
    node = written.graph.node[place]
    given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    kernel = given.get("kernel_shape", [2, 2])
    begins, ends = [], []
    for axis in range(2):
        stride, dilation = given.get("strides", [1, 1])[axis], given.get("dilations", [1, 1])[axis]
        total = max(0, (-(-7 // stride) - 1) * stride + (kernel[axis] - 1) * dilation + 1 - 7)
        begins.append(total // 2 if given["auto_pad"] == b"SAME_UPPER" else total - total // 2)
        ends.append(total - begins[-1])
    for one in [one for one in node.attribute if one.name == "auto_pad"]:
        node.attribute.remove(one)
    if node.op_type == "AveragePool":
        assert not any([*begins, *ends])  # of what SAME has here
        return written
    lowest = 0.0 if node.op_type == "Conv" else -1e30
    written.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([0, 0, *begins, 0, 0, *ends]), "around")
    )
    written.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(lowest), "lowest"))
    written.graph.node.insert(place, onnx.helper.make_node("Pad", ["c", "around", "lowest"], ["padded"]))
    written.graph.node[place + 1].input[0] = "padded"
    return written


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("c = Conv(x, w) \n [pool] m = MaxPool<kernel_shape=[4,4], dilations=[3,3]>(c) \n t = Conv(m, one)",
         "'pool' (MaxPool) has no window: its kernel reaches further than the image of 7x7"),
        ("c = Conv(x, w) \n a = MaxPool<kernel_shape=[2,2], strides=[3,3]>(c) \n [far] t = Conv<dilations=[2,2]>(a, v)",
         "Convolution 'far' has no output: its kernel reaches further than its image of 2x2"),
    ],
)  # fmt: skip
def test_a_kernel_larger_than_its_picture(tmp_path: Path, nodes: str, said: str) -> None:
    onnx.save(unchecked(text(nodes)), tmp_path / "model.onnx")
    with pytest.raises(ModelError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions())
    assert said in str(caught.value)


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_half_inside_and_float_outside(tmp_path: Path, opset: int) -> None:
    """With types of values that an exporter wrote, too: below opset 17 they became those of the inputs."""
    nodes = (
        "h0 = Cast<to=10>(x) \n c = Conv(h0, w) \n r = Relu(c) \n t = Conv(r, v) \n p = GlobalAveragePool(t) \n"
        "f = Flatten(p) \n z = Gemm<transB=1>(f, h, hb) \n y = Cast<to=1>(z)"
    )
    proto = unchecked(body(nodes), opset)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    proto = onnx.shape_inference.infer_shapes(proto)
    onnx.checker.check_model(proto)
    build(proto, tmp_path)
    got = outputs(exported(tmp_path), images(4))
    expected = outputs(proto, images(4))
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-2 * np.abs(expected).max())


def test_no_window_is_misread_without_dilation(tmp_path: Path) -> None:
    plain = 'c = Conv(x, w) \n m = MaxPool<auto_pad="SAME_UPPER", kernel_shape=[2,2]>(c) \n t = Conv(m, v)'
    assert not prepared(classifier(plain), tmp_path).rewritten
    assert not pools.misread_windows(ir.from_proto(classifier(plain)))
    found = prepare(tmp_path / "model.onnx")
    assert (found.notes, found.warnings) == ((), ())
