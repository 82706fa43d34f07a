"""Classifiers of two convolutions, whole and broken."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx_text import model

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
        "s = ReduceMax<keepdims=0>(x) \n q = QuantizeLinear(x, s) \n d = DequantizeLinear(q, s) \n c = Conv(d, w) \n"
        "t = Conv(c, v)"
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


def saved(tmp_path: Path) -> Path:
    onnx.save(networks.VGG.proto(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"
