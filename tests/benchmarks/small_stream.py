"""A small residual network and a small stream, for the tests of the continual-learning benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from benchmarks.continual.data import Split, Stream, TaskData
from onnx import numpy_helper, parser

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] image) => (float[N,2] logits) {
  a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, c1_weight, c1_bias)
  b = Relu (a)
  c = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (b, c2_weight, c2_bias)
  d = Relu (c)
  e = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (d, c3_weight, c3_bias)
  s = Conv <kernel_shape=[1,1], strides=[2,2]> (b, sc_weight, sc_bias)
  f = Add (e, s)
  g = Relu (f)
  h = ReduceMean <axes=[2,3], keepdims=0> (g)
  logits = Gemm <transB=1> (h, fc_weight, fc_bias)
}"""
SHAPES = {"c1": (8, 3, 3, 3), "c2": (16, 8, 3, 3), "c3": (16, 16, 3, 3), "sc": (16, 8, 1, 1), "fc": (2, 16)}
NORMALIZE = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def small_model(folder: Path) -> Path:
    """A residual network of random weights for 8x8 images, with torch's names."""
    rng = np.random.default_rng(0)
    proto = parser.parse_model(GRAPH)
    # As torch names them; ONNX's text has no dots in names.
    for node in proto.graph.node:
        node.input[:] = [name.replace("_", ".") for name in node.input]
    for name, shape in SHAPES.items():
        weight = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        bias = rng.normal(scale=0.1, size=shape[0]).astype(np.float32)
        for part, array in (("weight", weight), ("bias", bias)):
            proto.graph.initializer.append(numpy_helper.from_array(array, f"{name}.{part}"))
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def small_stream() -> Stream:
    """Two base classes and two tasks of two: each class is its own pattern under noise."""
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 200, (6, 8, 8, 3))

    def split(labels: list[int], each: int) -> Split:
        images = np.concatenate([patterns[c] + rng.integers(0, 56, (each, 8, 8, 3)) for c in labels])
        return Split(images.astype(np.uint8), np.repeat(np.arange(len(labels)), each))

    def task(name: str, labels: list[int]) -> TaskData:
        return TaskData(name, tuple(f"c{c}" for c in labels), split(labels, 32), split(labels, 8))

    return Stream(task("base", [0, 1]), (task("01", [2, 3]), task("02", [4, 5])), domains=False)
