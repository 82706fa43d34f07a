"""Each op of quantised graphs, against ONNX Runtime on the deployed file: off by rounding alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_text import model
from quantised_models import EVERY_STYLE, STYLES, quantised, run

from csk_artifacts_builder.prepare.quantized import Quantised, to_float
from csk_sdk.errors import ModelError

RNG = np.random.default_rng(3)
TENSORS = {
    "k": RNG.normal(0, 0.3, (6, 4, 3, 3)),
    "g": RNG.normal(0, 0.3, (4, 1, 3, 3)),
    "b": RNG.normal(0, 0.5, 6),
    "h": RNG.normal(0, 0.3, (5, 4)),
    "ht": RNG.normal(0, 0.3, (4, 5)),
    "hb": RNG.normal(0, 0.5, 5),
    "u": RNG.normal(0, 0.5, (1, 4, 1, 1)),
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "two": np.array([-1.0]),
    "half": np.array(0.25),
    "scales": np.array([1.0, 1, 2, 2]),
}
FLAT = "p = GlobalAveragePool(x) \n f = Flatten(p) \n"
PLAIN = "c = Conv<pads=[1,1,1,1]>(x, k, b) \n"
# From `x` (N, 4, 6, 6) to `t`.
GRAPHS = {
    "conv": f"{PLAIN} t = Relu(c)",
    "conv-without-bias": "t = Conv<strides=[2,2]>(x, k)",
    "depthwise": "t = Conv<group=4>(x, g)",
    "clip": "zero = Constant<value_float=0.0>() \n six = Constant<value_float=2.0>() \n"
    f"{PLAIN} t = Clip(c, zero, six)",
    "gemm": f"{FLAT} t = Gemm<transB=1>(f, h, hb)",
    "gemm-not-transposed": f"{FLAT} t = Gemm(f, ht, hb)",
    "gemm-alpha": f"{FLAT} t = Gemm<alpha=0.5>(f, ht)",
    "matmul": f"{FLAT} t = MatMul(f, ht)",
    "matmul-add": f"{FLAT} m = MatMul(f, ht) \n t = Add(m, hb)",
    "add": f"{PLAIN} r = Relu(c) \n t = Add(c, r)",
    "mul": f"{PLAIN} r = Relu(c) \n t = Mul(c, r)",
    "add-constant": "r = Relu(x) \n t = Add(r, u)",
    "sigmoid": f"{PLAIN} s = Sigmoid(c) \n t = Mul(c, s)",
    "leaky": f"{PLAIN} t = LeakyRelu<alpha=0.2>(c)",
    "softmax": f"{FLAT} z = Gemm<transB=1>(f, h, hb) \n t = Softmax<axis=1>(z)",
    "concat": f"{PLAIN} r = Relu(c) \n t = Concat<axis=1>(x, c, r)",
    "max-pool": f"{PLAIN} t = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(c)",
    "average-pool": f"{PLAIN} t = AveragePool<kernel_shape=[2,2], strides=[2,2], count_include_pad=1>(c)",
    "global-average-pool": f"{PLAIN} t = GlobalAveragePool(c)",
    "mean": f"{PLAIN} t = ReduceMean<axes=[2,3], keepdims=1>(c)",
    "pad": f"{PLAIN} q = Pad(c, around) \n t = MaxPool<kernel_shape=[2,2]>(q)",
    "pad-with": f"{PLAIN} q = Pad(c, around, half) \n t = MaxPool<kernel_shape=[2,2]>(q)",
    "transpose": f"{PLAIN} v = Transpose<perm=[0,2,3,1]>(c) \n t = Transpose<perm=[0,3,1,2]>(v)",
    "split": f"{PLAIN} a, d = Split<axis=1>(c) \n t = Add(a, d)",
    "resize": f'{PLAIN} t = Resize<mode="nearest">(c, , scales)',
    "instance-norm": f"{PLAIN} e = Reshape(c, groups) \n s = Shape(c) \n n = InstanceNormalization(e, ones, none) \n"
    "t = Reshape(n, s)",
    "layer-norm": f"{PLAIN} e = Transpose<perm=[0,2,3,1]>(c) \n n = LayerNormalization<axis=-1>(e, by, b) \n"
    "t = Transpose<perm=[0,3,1,2]>(n)",
    "unsqueeze": "last = Constant<value_ints=[3]>() \n f = GlobalMaxPool(x) \n s = Squeeze(f, last) \n"
    "v = Unsqueeze(s, last) \n t = Conv(v, u3)",
}  # fmt: skip
TENSORS |= {"groups": np.array([0, 2, -1]), "ones": np.ones(2), "none": np.zeros(2), "by": np.full(6, 1.5)}
TENSORS["u3"] = RNG.normal(0, 0.3, (4, 4, 1, 1))


def images(count: int = 32) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0.3, 1, (count, 4, 6, 6)).astype(np.float32)


def source(nodes: str) -> onnx.ModelProto:
    read = set(re.findall(r"\w+", nodes))
    used = {name: array for name, array in TENSORS.items() if name in read}
    rank = "N,a" if "Flatten" in nodes else "N,a,c,d"
    return model(f"(float[N,4,6,6] x) => (float[{rank}] y) {{ {nodes} \n y = Concat<axis=1>(t, t) }}", **used)


def as_float(deployed: onnx.ModelProto) -> tuple[Quantised, bytes]:
    rewritten = ir.from_proto(deployed)
    found = to_float(rewritten, "model.onnx")
    assert found is not None
    assert all(node.domain == "" and "Linear" not in node.op_type for node in rewritten.graph)
    proto = ir.to_proto(rewritten)
    onnx.checker.check_model(proto)
    return found, proto.SerializeToString()


@pytest.mark.parametrize("style", EVERY_STYLE)
@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_what_the_deployed_file_computes(tmp_path: Path, name: str, style: str) -> None:
    onnx.save(source(GRAPHS[name]), tmp_path / "source.onnx")
    x = images()
    deployed = quantised(tmp_path / "source.onnx", tmp_path / "model.onnx", x, fold=False, **STYLES[style])
    _, rewritten = as_float(onnx.load(deployed))
    expected, got = run(deployed, x), run(rewritten, x)
    assert got.shape == expected.shape
    # A few of 255 steps; the ends of ranges, which cut off what is outside, are seen in the Relus.
    assert np.abs(got - expected).max() <= 0.03 * np.ptp(expected)
    assert np.abs(got - expected).mean() <= 0.006 * np.ptp(expected)


def parsed(
    nodes: str, opset: int, inputs: str, outputs: str, **tensors: onnx.TensorProto | NDArray
) -> onnx.ModelProto:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header}\ng ({inputs}) => ({outputs}) {{ {nodes} }}")
    for name, one in tensors.items():
        tensor = one if isinstance(one, onnx.TensorProto) else numpy_helper.from_array(np.asarray(one), name)
        tensor.name = name
        proto.graph.initializer.append(tensor)
    return proto


def exactly(proto: onnx.ModelProto, x: NDArray) -> Quantised:
    found, rewritten = as_float(proto)
    # Optimised, ONNX Runtime rounds the activations in front of a matrix of few bits to eight.
    expected = run(proto.SerializeToString(), x, optimised=False)
    np.testing.assert_allclose(run(rewritten, x), expected, rtol=1e-4, atol=1e-5)
    return found


F = np.float32
ROWS = np.random.default_rng(5).normal(size=(7, 32)).astype(F)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_of_one_scale_and_of_many(kind: type, axis: int | None) -> None:
    rng = np.random.default_rng(1)
    size = () if axis is None else ((32,), (5,))[axis]
    w = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, (32, 5)).astype(kind)
    zero = np.array(rng.integers(1, 9, size) if kind == np.uint8 else np.zeros(size), kind)
    scale = np.array(rng.uniform(0.001, 0.01, size), F)
    nodes = f"d = DequantizeLinear<axis={axis or 0}>(w, s, z) \n y = MatMul(x, d)"
    proto = parsed(nodes, 21, "float[N,32] x", "float[N,5] y", w=w, s=scale, z=zero)
    found = exactly(proto, ROWS)
    assert (found.style, found.per_channel) == ("weights only", axis is not None)


def test_weights_of_four_bits_in_blocks() -> None:
    rng = np.random.default_rng(1)
    w = helper.make_tensor("w", TensorProto.INT4, (32, 5), rng.integers(-8, 8, 160).tolist())
    nodes = "d = DequantizeLinear<axis=0, block_size=16>(w, s) \n y = MatMul(x, d)"
    scale = rng.uniform(0.01, 0.1, (2, 5)).astype(F)
    exactly(parsed(nodes, 21, "float[N,32] x", "float[N,5] y", w=w, s=scale), ROWS)


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_of_onnxruntimes_own_four_bits(symmetric: bool) -> None:
    nbits = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")  # 1.22 and younger
    w = np.random.default_rng(1).normal(size=(32, 5)).astype(F)
    proto = parsed("m = MatMul(x, w) \n y = Relu(m)", 21, "float[N,32] x", "float[N,5] y", w=w)
    quantiser = nbits.MatMulNBitsQuantizer(proto, block_size=16, is_symmetric=symmetric)
    quantiser.process()
    deployed = quantiser.model.model
    assert "MatMulNBits" in [node.op_type for node in deployed.graph.node]
    found = exactly(deployed, ROWS)
    assert found.said == "quantised model (weights only): weights dequantised."


def test_weights_that_were_rounded_in_the_graph() -> None:
    w = np.random.default_rng(1).normal(size=(32, 5)).astype(F)
    nodes = "q = QuantizeLinear(w, s, z) \n d = DequantizeLinear(q, s, z) \n y = MatMul(x, d)"
    found = exactly(
        parsed(nodes, 17, "float[N,32] x", "float[N,5] y", w=w, s=np.array(0.02, F), z=np.array(0, np.int8)),
        ROWS,
    )
    assert found.style == "weights only"


def test_weights_that_are_turned_as_integers() -> None:
    w = np.random.default_rng(1).integers(-128, 127, (5, 32)).astype(np.int8)
    nodes = "t = Transpose<perm=[1,0]>(w) \n d = DequantizeLinear(t, s, z) \n y = MatMul(x, d)"
    exactly(
        parsed(nodes, 17, "float[N,32] x", "float[N,5] y", w=w, s=np.array(0.02, F), z=np.array(0, np.int8)),
        ROWS,
    )


@pytest.mark.parametrize("size", [(), (5,)])
def test_integer_products_with_scales_behind_them(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    w, zero = rng.integers(0, 255, (32, 5)).astype(np.uint8), np.array(rng.integers(100, 150, size), np.uint8)
    nodes = """
    q, xs, xz = DynamicQuantizeLinear(x)
    m = MatMulInteger(q, w, xz, z)
    c = Cast<to=1>(m)
    s = Mul(xs, ws)
    p = Mul(c, s)
    y = Add(p, b)
    """
    scale = np.array(rng.uniform(0.01, 0.02, size), F)
    proto = parsed(
        nodes, 17, "float[N,32] x", "float[N,5] y", w=w, z=zero, ws=scale, b=rng.normal(size=5).astype(F)
    )  # fmt: skip
    found, rewritten = as_float(proto)
    assert found.style == "dynamic"
    assert [node.op_type for node in onnx.load_from_string(rewritten).graph.node] == ["MatMul", "Add"]
    expected = run(proto.SerializeToString(), ROWS)
    assert np.abs(run(rewritten, ROWS) - expected).max() < 0.02 * np.ptp(expected)


def test_an_input_and_scores_of_integers() -> None:
    w = np.random.default_rng(1).normal(size=(32, 5)).astype(F)
    nodes = "d = DequantizeLinear(x, s, z) \n m = MatMul(d, w) \n y = QuantizeLinear(m, t, z)"
    step, zero = np.array(0.1, F), np.array(128, np.uint8)
    proto = parsed(
        nodes, 17, "uint8[N,32] x", "uint8[N,5] y", w=w, s=np.array(0.02, F), t=step, z=zero
    )  # fmt: skip
    x = np.random.default_rng(2).integers(0, 255, (7, 32)).astype(np.uint8)
    _, rewritten = as_float(proto)
    integers = run(proto.SerializeToString(), x).astype(F)
    inside = (integers > 0) & (integers < 255)
    assert inside.mean() > 0.5
    got = run(rewritten, x)
    assert np.abs(got - step * (integers - 128))[inside].max() <= 0.51 * step


def test_activations_with_a_scale_for_each_channel() -> None:
    nodes = "q = QuantizeLinear<axis=1>(x, s, z) \n d = DequantizeLinear<axis=1>(q, s, z) \n y = Neg(d)"
    scale, zero = np.linspace(0.001, 0.02, 32).astype(F), np.full(32, 128, np.uint8)
    proto = parsed(nodes, 17, "float[N,32] x", "float[N,32] y", s=scale, z=zero)
    _, rewritten = as_float(proto)
    off = np.abs(run(rewritten, ROWS) - run(proto.SerializeToString(), ROWS))
    assert (off <= 0.51 * scale).all()


ROUND = "q = QuantizeLinear(x, s, z) \n"
REFUSED = {
    "two scales": (
        f"{ROUND} y = DequantizeLinear(q, t, z)",
        "op 'DequantizeLinear' (node 'y') reads integers with another scale than they were written with",
    ),
    "arithmetic on integers": (
        f"{ROUND} i = Cast<to=6>(q) \n j = Mul(i, i) \n y = Cast<to=1>(j)",
        "op 'Cast' (node 'i') computes with the integers themselves",
    ),
    "a computed scale": (
        "r = ReduceMax<keepdims=0>(x) \n q = QuantizeLinear(x, r, z) \n y = DequantizeLinear(q, r, z)",
        "op 'QuantizeLinear' (node 'q') computes its scale from the image",
    ),
    "integers of nobody": (
        "i = Cast<to=2>(x) \n y = DequantizeLinear(i, s, z)",
        "op 'DequantizeLinear' (node 'y') reads integers that csk-sdk does not know the scale of",
    ),
    "an op that is not known": (
        f"{ROUND} j = com.microsoft.QLinearReduceMean(q, s, z, s, z) \n y = DequantizeLinear(j, s, z)",
        "op 'com.microsoft.QLinearReduceMean' (node 'j') computes with the integers themselves",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_named(name: str) -> None:
    nodes, said = REFUSED[name]
    tensors = {"s": np.array(0.02, F), "t": np.array(0.03, F), "z": np.array(3, np.uint8)}
    proto = parsed(nodes, 17, "float[N,32] x", "float[N,32] y", **tensors)
    with pytest.raises(ModelError) as caught:
        to_float(ir.from_proto(proto), "model.onnx")
    assert str(caught.value) == (
        f"model.onnx is quantised, and its {said}. Give the float32 model that it was made from."
    )


def test_a_float_model_is_left_alone() -> None:
    assert to_float(ir.from_proto(source(GRAPHS["conv"])), "model.onnx") is None
