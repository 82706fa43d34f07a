"""The files that people have, as small ones: each builds and exports what it computes, or is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from csk_artifacts_builder import BuildOptions, build_artifacts, try_model
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import CskError

RNG = np.random.default_rng(19)
CLASSES, WIDTH, SIZE = 10, 12, 16
TENSORS: dict[str, NDArray] = {
    "k1": RNG.normal(0, 0.3, (8, 3, 3, 3)),
    "k2": RNG.normal(0, 0.2, (WIDTH, 8, 3, 3)),
    "k3": RNG.normal(0, 0.2, (WIDTH, WIDTH, 3, 3)),
    "h": RNG.normal(0, 0.5, (CLASSES, WIDTH)),
    "ht": RNG.normal(0, 0.5, (WIDTH, CLASSES)),
    "hc": RNG.normal(0, 0.5, (CLASSES, WIDTH, 1, 1)),
    "one": RNG.normal(0, 0.5, (1, WIDTH)),
    "hb": RNG.normal(0, 0.2, CLASSES),
    "gain": RNG.uniform(0.5, 2, (WIDTH, 1, 1, 1)),
    "white": np.array(255.0),
    "half": np.array(0.5),
    "heat": np.array(1.7),
    "token": np.array(0.3),
    "six": np.array([6]),
    "ends": np.array([1, 1]),
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "sizes": np.array([1, 3, SIZE, SIZE]),
    "axis": np.array([1]),
}
ONE, TWO, THREE = (f"c{n} = Conv<pads=[1,1,1,1]>({{}}, k{n}) \n r{n} = Relu(c{n})" for n in (1, 2, 3))
MEAN = "p = GlobalAveragePool({}) \n f = Flatten(p)"
LOGITS = "[fc] y = Gemm<transB=1>(f, h, hb)"


def chain(front: str = "x", behind: str = "r3") -> str:
    return "\n".join([ONE.format(front), TWO.format("r1"), THREE.format("r2"), MEAN.format(behind)])


@dataclass(frozen=True)
class Case:
    """A graph in ONNX text, and what becomes of it: `said` is in a warning, or in the refusal where `refused`."""

    nodes: str
    inputs: str = f"float[N,3,{SIZE},{SIZE}] x"
    outputs: str = f"float[N,{CLASSES}] y"
    opset: int = 17
    options: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    change: Callable[[onnx.ModelProto], None] | None = None
    size: int = SIZE
    compared: str = "y"
    tolerance: float = 1e-4

    def proto(self) -> onnx.ModelProto:
        text = self.nodes
        for mark in "(),<>=":
            text = text.replace(mark, " ")
        used = {name: array for name, array in TENSORS.items() if name in text.split()}
        proto = onnx.parser.parse_model(
            f'<ir_version: {10 if self.opset > 17 else 8}, opset_import: ["" : {self.opset}]>\n'
            f"g ({self.inputs}) => ({self.outputs}) {{ {self.nodes} }}"
        )
        for name, array in used.items():
            kind = np.float32 if array.dtype.kind == "f" else np.int64
            proto.graph.initializer.append(numpy_helper.from_array(array.astype(kind), name))
        if self.change is not None:
            self.change(proto)
        return proto


def halved(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )


def training(proto: onnx.ModelProto) -> None:
    """Dropout that never drops: its ratio is 0, so that it can be compared."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0), "ratio"))


def pool(attributes: str, op: str = "AveragePool", pad: bool = False) -> str:
    read = "r2"
    front = "c2 = Conv<pads=[1,1,1,1]>(r1, k2) \n"
    if pad:
        front, read = f"{front} q = Pad(c2, around) \n", "q"
    else:
        read = "c2"
    return "\n".join([ONE.format("x"), f"{front} m = {op}<{attributes}>({read})", MEAN.format("m"), LOGITS])


CEIL = "kernel_shape=[3,3], strides=[2,2], ceil_mode=1"
CASES = {
    "avgceil": Case(pool(f"{CEIL}, pads=[1,1,1,1], count_include_pad=1")),
    "avgceil22": Case(pool(f"{CEIL}, pads=[1,1,1,1], count_include_pad=1"), opset=22),
    "binary-sigmoid-1": Case(
        f"{chain()} \n z = Gemm<transB=1>(f, one) \n y = Sigmoid(z)",
        outputs="float[N,1] y",
        said="the second of two classes",
    ),
    "ceilpad_AveragePool": Case(pool("kernel_shape=[2,2], strides=[3,3], pads=[1,1,1,1], ceil_mode=1"), opset=22),
    "ceilpad_MaxPool": Case(pool(f"{CEIL}, pads=[1,1,1,1]", "MaxPool")),
    "dropout_training": Case(
        f"{chain()} \n d = Dropout(f, ratio, on) \n {LOGITS.replace('(f', '(d')}",
        said="is in training mode",
        change=training,
    ),
    "dynamic-hw": Case(
        f"{chain()} \n {LOGITS}", inputs="float[N,3,h,w] x", options={"input_size": (SIZE, SIZE)}
    ),
    "ends-in-argmax": Case(
        f"{chain()} \n {LOGITS.replace('y =', 'z =')} \n y = ArgMax<axis=1, keepdims=0>(z)",
        outputs="int64[N] y",
        said="op 'ArgMax' at the end of model.onnx is cut off",
    ),
    "float-scaled-inside": Case(f"d = Div(x, white) \n s = Sub(d, half) \n {chain('s')} \n {LOGITS}", said="0 to 255"),
    "fp16-inside-float-io-opset13": Case(
        f"i = Cast<to=10>(x) \n {chain('i')} \n {LOGITS.replace('y =', 'z =')} \n y = Cast<to=1>(z)",
        opset=13,
        change=halved,
        tolerance=1e-2,
    ),
    "head-cosine": Case(f"{chain()} \n n = ReduceL2<axes=[1]>(f) \n d = Div(f, n) \n y = MatMul(d, ht)"),
    "head-matmul-mul-scale": Case(
        f"{chain()} \n m = MatMul(f, ht) \n a = Add(m, hb) \n [temperature] y = Mul(a, heat)",
        said="op 'Mul' (node 'temperature') behind the classifier is folded into it",
    ),
    "head-weight-transposed-small": Case(f"{chain()} \n g = Transpose(h) \n y = Gemm(f, g, hb)"),
    "logits-n-c-1-1": Case(
        f"{chain()} \n y = Conv(p, hc, hb)".replace("f = Flatten(p)", ""), outputs=f"float[N,{CLASSES},1,1] y"
    ),
    "noop_ReduceSumSquare": Case(
        f"{chain(behind='s')} \n {LOGITS}".replace("p =", "s = ReduceSumSquare<noop_with_empty_axes=1>(r3) \n p ="),
        opset=18,
    ),
    "opset24": Case(f"{chain()} \n {LOGITS}", opset=24),
    "opset26": Case(f"{chain()} \n {LOGITS}", opset=26),
    "ort-training-split-unused": Case(
        f"{ONE.format('x')} \n a, b = Split<axis=1>(r1) \n u = Concat<axis=1>(a, a) \n {TWO.format('u')} \n"
        f"{MEAN.format('r2')} \n {LOGITS}"
    ),
    "ort-training-where": Case(
        f"{ONE.format('x')} \n g = GlobalAveragePool(r1) \n b = Greater(g, half) \n u = Where(b, r1, token) \n"
        f"{TWO.format('u')} \n {MEAN.format('r2')} \n {LOGITS}"
    ),
    "padavg": Case(pool("kernel_shape=[3,3], strides=[2,2]", pad=True)),
    "padmax": Case(pool("kernel_shape=[3,3], strides=[2,2]", "MaxPool", pad=True)),
    "pads-from-constantofshape": Case(
        "z = ConstantOfShape<value = int64[1] {0}>(six) \n a = Concat<axis=0>(z, ends) \n q = Pad(x, a) \n"
        f"{chain('q')} \n {LOGITS}"
    ),
    "resize-inside": Case(
        f'q = Resize<mode="linear">(x, , , sizes) \n {chain("q")} \n {LOGITS}',
        inputs="float[1,3,24,24] x",
        outputs=f"float[1,{CLASSES}] y",
        size=24,
    ),
    "softmax-n-c-1-1-opset12": Case(
        f"{chain()} \n k = Conv(p, hc, hb) \n y = Softmax<axis=1>(k)".replace("f = Flatten(p)", ""),
        inputs=f"float[1,3,{SIZE},{SIZE}] x",
        outputs=f"float[1,{CLASSES},1,1] y",
        opset=12,
    ),
    "temperature": Case(f"{chain()} \n {LOGITS.replace('y =', 'z =')} \n y = Div(z, heat)", said="folded into it"),
    "two-outputs-logits-features": Case(
        f"{chain()} \n {LOGITS}",
        outputs=f"float[N,{CLASSES}] y, float[N,{WIDTH}] f",
        said="the scores of the classes are output 'y'",
    ),
    "uint8-nchw": Case(
        f"i = Cast<to=1>(x) \n d = Div(i, white) \n s = Sub(d, half) \n {chain('s')} \n {LOGITS}",
        inputs=f"uint8[N,3,{SIZE},{SIZE}] x",
        said="pixels of 0 to 255",
    ),
    "weight-norm": Case(
        f"{ONE.format('x')} \n {TWO.format('r1')} \n n = ReduceL2<axes=[1,2,3]>(k3) \n d = Div(k3, n) \n"
        f"g = Mul(d, gain) \n c3 = Conv(r2, g) \n {MEAN.format('c3')} \n {LOGITS}"
    ),
}  # fmt: skip
# What is refused, and what is in the sentence.
REFUSED = {
    "quantised by the image": (
        Case(
            "m = ReduceMax<keepdims=0>(x) \n q = QuantizeLinear(x, m) \n d = DequantizeLinear(q, m) \n"
            f"{chain('d')} \n {LOGITS}",
        ),
        "is quantised, and its op 'QuantizeLinear' (node 'q') computes its scale from the image.",
    ),
    "dynamic-hw without a size": (
        Case(f"{chain()} \n {LOGITS}", inputs="float[N,3,h,w] x"),
        "--input-size, such as --input-size 224x224",
    ),
    "two heads": (
        Case(
            f"{chain()} \n {LOGITS} \n w = MatMul(f, ht)",
            outputs=f"float[N,{CLASSES}] y, float[N,{CLASSES}] w",
        ),
        "Say which with --output NAME.",
    ),
}


def run(path: Path, x: NDArray, output: str | None = None) -> NDArray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(output and [output], {"x": x})[0]


def says_what_was_built(source: Path, bundle: Path, options: BuildOptions, warnings: tuple[str, ...]) -> None:
    """`try_model` has the bundle's sites and sentences, and every convolution of the file once."""
    trial, built = try_model(source, options), Bundle.open(bundle).manifest
    names = (
        "input",
        "preprocessing",
        "head",
        "sites",
        "candidates",
        "choice",
        "left_out",
        "memory",
        "costs",
        "prefix",
    )
    for name in names:
        assert getattr(trial.manifest, name) == getattr(built, name), name
    said = [one for one in (*trial.prepared, *trial.warnings) if one in warnings]
    assert said == [one for one in warnings if "UNPROTECTED" not in one]
    trained = [one.node for one in trial.convolutions if one.fate == "trained"]
    assert trained == [site.node for site in built.sites]
    left = {one.node: one.reason for one in trial.convolutions if one.fate == "left out"}
    assert left == {one.node: one.reason for one in built.left_out}
    graph = onnx.load(str(source)).graph.node
    assert len(trial.convolutions) == sum(node.op_type == "Conv" for node in graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_builds_and_its_export_is_the_source(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    source = tmp_path / "model.onnx"
    onnx.save(case.proto(), source)
    report = build_artifacts(source, tmp_path / "bundle", BuildOptions(**case.options))
    assert case.said in " ".join((*report.notes, *report.warnings))
    assert len(report.sites) >= 2
    says_what_was_built(
        source, tmp_path / "bundle", BuildOptions(**case.options), (*report.notes, *report.warnings)
    )
    Learner.open(tmp_path / "bundle", state=tmp_path / "state").export(tmp_path / "exported.onnx")
    rng, shape = np.random.default_rng(0), (3, 3, case.size, case.size)
    pixels = "0 to 255" in case.said
    x = rng.integers(0, 256, shape) if pixels else rng.normal(size=shape)
    x = x.astype(np.uint8 if "uint8" in case.inputs else np.float32)
    batches = [x[i : i + 1] for i in range(3)] if "[1," in case.inputs else [x]
    expected = np.concatenate([run(source, batch, case.compared) for batch in batches])
    got = run(tmp_path / "exported.onnx", x, case.compared)
    if name == "binary-sigmoid-1":
        got = got[:, 1:]
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, atol=case.tolerance * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(tmp_path: Path, name: str) -> None:
    case, said = REFUSED[name]
    onnx.save(case.proto(), tmp_path / "model.onnx")
    with pytest.raises(CskError) as caught:
        build_artifacts(tmp_path / "model.onnx", tmp_path / "bundle", BuildOptions(**case.options))
    assert said in str(caught.value)
    assert not (tmp_path / "bundle").exists()
