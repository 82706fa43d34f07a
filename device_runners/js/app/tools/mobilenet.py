"""A bundle of MobileNetV2's size at 96 x 96 pixels, for times alone: its weights are random, and so are the images.

python tools/mobilenet.py OUT
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts

SIZE, BASE, NEW = 96, ("red", "yellow", "lime", "aqua"), ("blue", "pink", "lila", "mint")
PICTURES, PHOTO = 20, (640, 480)
# Expansion, channels, blocks, stride (Sandler et al., 2018, table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Network:
    """Nodes and weights, layer after layer; batch normalisation is folded already."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "image"
        self.constant("zero", np.array(0.0))
        self.constant("six", np.array(6.0))

    def constant(self, name: str, value: NDArray[np.float64]) -> str:
        """A weight, float32."""
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> None:
        """One more node, whose output is the last one."""
        self.last = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.last], name=self.last, **attributes))

    def conv(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        """A convolution, with ReLU6 behind it or not. Weights keep the variance (He et al., 2015)."""
        fan_in = c_in // groups * kernel**2
        scale = np.sqrt((2.0 if relu else 1.0) / fan_in)
        number = len(self.nodes)
        weight = self.constant(
            f"w{number}", self.rng.normal(0, scale, (c_out, c_in // groups, kernel, kernel))
        )
        bias = self.constant(f"b{number}", np.zeros(c_out))
        pads = [kernel // 2] * 4
        self.node("Conv", self.last, weight, bias, strides=[stride] * 2, pads=pads, group=groups)
        if relu:
            self.node("Clip", self.last, "zero", "six")

    def inverted(self, c_in: int, expansion: int, c_out: int, stride: int) -> None:
        """An inverted residual block."""
        before, hidden = self.last, c_in * expansion
        if expansion > 1:
            self.conv(c_in, hidden)
        self.conv(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.conv(hidden, c_out, relu=False)
        if stride == 1 and c_in == c_out:
            self.node("Add", self.last, before)


def mobilenet_v2(rng: np.random.Generator) -> onnx.ModelProto:
    """MobileNetV2 with random weights: 2.2 million in its features."""
    network = Network(rng)
    network.conv(3, 32, kernel=3, stride=2)
    channels = 32
    for expansion, c_out, blocks, stride in STAGES:
        for block in range(blocks):
            network.inverted(channels, expansion, c_out, 1 if block else stride)
            channels = c_out
    network.conv(channels, 1280)
    network.node("GlobalAveragePool", network.last)
    network.node("Flatten", network.last)
    head = network.constant("head_w", rng.normal(0, 0.03, (len(BASE), 1280)))
    network.node("Gemm", network.last, head, network.constant("head_b", np.zeros(len(BASE))), transB=1)
    network.nodes[-1].output[0] = "scores"
    graph = helper.make_graph(
        network.nodes,
        "mobilenet-v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", len(BASE)])],
        network.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_pictures(folder: Path, index: int, rng: np.random.Generator) -> None:
    """Images of one class: blobs of its colour, as large as a phone's camera gives them to the app."""
    folder.mkdir(parents=True)
    hue = np.array(np.unravel_index((index + 1) % 8, (2, 2, 2))) * 160.0 + 20
    for number in range(PICTURES):
        coarse = np.clip(hue + rng.normal(0, 45, (6, 8, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02d}.jpg", quality=92)


def main(out: Path) -> None:
    """Write `bundle/` and `pictures/<class>/*.jpg` into `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        base, model = Path(temporary) / "base", Path(temporary) / "mobilenet-v2.onnx"
        onnx.save(mobilenet_v2(rng), model)
        for index, name in enumerate(BASE):
            write_pictures(base / name, index, rng)
        for index, name in enumerate(NEW, start=len(BASE)):
            write_pictures(out / "pictures" / name, index, rng)
        options = BuildOptions(classes=BASE, mean=(0.5,) * 3, std=(0.25,) * 3, base_data=base)
        build_artifacts(model, out / "bundle", options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
