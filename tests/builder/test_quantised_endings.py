"""Quantised classifiers with other endings than a linear layer: built, compared, and put back by both exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from quantised_models import STYLES, quantised, run
from test_quantised import OLD, SOURCE, build, pixels

from conftest import Digits, open_learner


def output(proto: onnx.ModelProto, name: str, shape: list[str | int], kind: int = TensorProto.FLOAT) -> None:
    proto.graph.output.append(helper.make_tensor_value_info(name, kind, shape))


def add(proto: onnx.ModelProto, op: str, *inputs: str, to: str, **attributes: object) -> None:
    proto.graph.node.append(helper.make_node(op, inputs, [to], **attributes))


def tensor(proto: onnx.ModelProto, name: str, array: NDArray) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def softmax(proto: onnx.ModelProto, logits: str) -> None:
    add(proto, "Softmax", logits, to="p", axis=-1)
    output(proto, "p", ["N", 4])


def label(proto: onnx.ModelProto, logits: str) -> None:
    add(proto, "ArgMax", logits, to="c", axis=1, keepdims=0)
    output(proto, "c", ["N"], TensorProto.INT64)


def label_of_softmax(proto: onnx.ModelProto, logits: str) -> None:
    add(proto, "Softmax", logits, to="p", axis=-1)
    label(proto, "p")


def best_two(proto: onnx.ModelProto, logits: str) -> None:
    tensor(proto, "two", np.array([2]))
    proto.graph.node.append(helper.make_node("TopK", [logits, "two"], ["v", "i"], axis=1))
    output(proto, "v", ["N", 2])
    output(proto, "i", ["N", 2], TensorProto.INT64)


def temperature(proto: onnx.ModelProto, logits: str) -> None:
    tensor(proto, "heat", np.array(1.7, np.float32))
    add(proto, "Div", logits, "heat", to="y")
    output(proto, "y", ["N", 4])


def features_too(proto: onnx.ModelProto, logits: str) -> None:
    output(proto, logits, ["N", 4])
    output(proto, proto.graph.node[-1].input[0], ["N", 64])


def as_convolution(proto: onnx.ModelProto, kept: int) -> tuple[str, str]:
    """The last layer as a convolution, for all but `kept` of the last three nodes; what it reads, and its bias."""
    arrays = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    gemm, read = proto.graph.node[-1], proto.graph.node[kept - 3].input[0]
    tensor(proto, "kernel", arrays[gemm.input[1]][:, :, None, None])
    bias = gemm.input[2]
    del proto.graph.node[kept - 3 :]
    return read, bias


def convolution(proto: onnx.ModelProto, logits: str) -> None:
    read, bias = as_convolution(proto, 1)
    add(proto, "Conv", read, "kernel", bias, to="z")
    add(proto, "Flatten", "z", to="y")
    output(proto, "y", ["N", 4])


def convolution_then_mean(proto: onnx.ModelProto, logits: str) -> None:
    read, bias = as_convolution(proto, 0)
    add(proto, "Conv", read, "kernel", bias, to="z")
    add(proto, "GlobalAveragePool", "z", to="m")
    add(proto, "Flatten", "m", to="y")
    output(proto, "y", ["N", 4])


def convolution_relu_mean(proto: onnx.ModelProto, logits: str) -> None:
    read, bias = as_convolution(proto, 0)
    add(proto, "Conv", read, "kernel", bias, to="z")
    add(proto, "Relu", "z", to="r")
    add(proto, "GlobalAveragePool", "r", to="m")
    add(proto, "Flatten", "m", to="y")
    output(proto, "y", ["N", 4])


def product_and_sum(proto: onnx.ModelProto, logits: str) -> None:
    gemm = proto.graph.node.pop()
    arrays = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    tensor(proto, "turned", arrays[gemm.input[1]].T)
    add(proto, "MatMul", gemm.input[0], "turned", to="z")
    add(proto, "Add", "z", gemm.input[2], to="y")
    output(proto, "y", ["N", 4])


def channels_last(proto: onnx.ModelProto, logits: str) -> None:
    del proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 8, 8, 1]))
    proto.graph.node.insert(0, helper.make_node("Transpose", ["rows"], ["image"], perm=[0, 3, 1, 2]))
    output(proto, logits, ["N", 4])


ENDINGS: dict[str, Callable[[onnx.ModelProto, str], None]] = {
    one.__name__: one
    for one in (
        *(softmax, label, label_of_softmax, best_two, temperature, features_too, convolution),
        *(convolution_then_mean, convolution_relu_mean, product_and_sum, channels_last),
    )
}


@pytest.mark.slow
@pytest.mark.parametrize("style", ["QDQ-QUInt8-channel", "QDQ-QInt8-tensor", "QOperator-QInt8-channel"])
@pytest.mark.parametrize(
    ("name", "fold"), [*((name, True) for name in ENDINGS), ("product_and_sum", False), ("softmax", False)]
)
def test_it_ends_as_the_deployed_file_does(
    tmp_path: Path, digits: Digits, name: str, style: str, fold: bool
) -> None:
    proto = onnx.load(SOURCE)
    logits = proto.graph.output[0].name
    del proto.graph.output[:]
    ENDINGS[name](proto, logits)
    onnx.checker.check_model(proto)
    onnx.save(proto, tmp_path / "source.onnx")

    def shown(images: NDArray) -> NDArray:
        x = pixels(images)
        return x.transpose(0, 2, 3, 1).copy() if name == "channels_last" else x

    calibration, _ = digits.arrays(OLD, 0, 20)
    deployed = quantised(
        tmp_path / "source.onnx", tmp_path / "model.onnx", shown(calibration), fold, **STYLES[style]
    )
    build(deployed, tmp_path / "bundle")
    learner = open_learner(tmp_path / "bundle", tmp_path / "state")
    learner.export(tmp_path / "float.onnx")
    learner.export(tmp_path / "int8.onnx", precision="int8")
    x = shown(digits.arrays(OLD, 40, 175)[0])
    outputs = [one.name for one in onnx.load(deployed).graph.output]
    wanted = "i" if name == "best_two" else outputs[0]
    expected = run(deployed, x, wanted)
    for exported in ("float.onnx", "int8.onnx"):
        got = run(tmp_path / exported, x, wanted)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        decided = got if got.dtype == np.int64 else got.argmax(axis=1)
        theirs = expected if got.dtype == np.int64 else expected.argmax(axis=1)
        # Of two, the first: the order of what is far behind is nobody's.
        same = decided[:, 0] == theirs[:, 0] if name == "best_two" else decided == theirs
        assert same.mean() >= 0.98, exported
