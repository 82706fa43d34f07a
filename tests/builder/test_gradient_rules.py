"""Every gradient rule against float64 central differences, one row for each case of an op."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_text import Erf, in_float64, model

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import differentiate, registered_ops, vjp
from csk_artifacts_builder.gradients.convolution import input_gradient
from csk_artifacts_builder.sites import Geometry
from csk_sdk.errors import UnsupportedOpError

Arrays = dict[str, NDArray]

BATCH = 2
STEP = 1e-5


@dataclass(frozen=True)
class Row:
    """One case of one op: inputs of `text` are differentiated; `tensors` are constants, or their shapes.

    Values are drawn from `low` to `high`, all different, and none of them near a kink in `away`. The gradient
    graph also runs on onnx.reference, unless that has a `reference_fault` (seen in onnx 1.23) in an op of it.
    """

    op: str
    case: str
    text: str
    tensors: Mapping[str, tuple[int, ...] | NDArray] = field(default_factory=dict)
    away: tuple[float, ...] = ()
    low: float = -2.0
    high: float = 2.3
    reference_fault: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.case}"


def unary(op: str, case: str, attributes: str = "", **options: object) -> Row:
    return Row(
        op, case, f"(float[N,3,4,5] x) => (float[N,3,4,5] y) {{ y = {op} {attributes} (x) }}", **options
    )  # type: ignore[arg-type]


def of(op: str, case: str, dims: str, call: str, **tensors: tuple[int, ...] | NDArray) -> Row:
    """`dims` are those of `x`, perhaps `; those of x2`, and `-> those of y`."""
    inputs, output = dims.split(" -> ")
    typed = ", ".join(
        f"float[{one}] {name}" for one, name in zip(inputs.split("; "), ("x", "x2"), strict=False)
    )
    return Row(op, case, f"({typed}) => (float[{output}] y) {{ y = {op}{call} }}", tensors)


GROUPED = "slices a grouped ConvTranspose's weight by output channels"
STRIDE_1 = "returns no indices from MaxPool with stride 1"


def convolution(
    case: str, size: str, weight: tuple[int, ...], attributes: str = "", bias: bool = False, fault: str = ""
) -> Row:
    channels = weight[1] * int((re.findall(r"group=(\d+)", attributes) or ["1"])[0])
    dims = ",".join("?" for _ in weight[2:])
    tensors: dict[str, tuple[int, ...]] = {"w": weight} | ({"b": weight[:1]} if bias else {})
    names = ", ".join(["x", *tensors])
    y = f"float[N,{weight[0]},{dims}] y"
    text = f"(float[N,{channels},{size}] x) => ({y}) {{ y = Conv {attributes} ({names}) }}"
    return Row("Conv", case, text, tensors, reference_fault=fault)


def pool(op: str, case: str, size: str, attributes: str, **options: object) -> Row:
    dims = ",".join("?" for _ in size.split(","))
    text = f"(float[N,2,{size}] x) => (float[N,2,{dims}] y) {{ y = {op} <{attributes}> (x) }}"
    return Row(op, case, text, **options)  # type: ignore[arg-type]


def broadcast(op: str, case: str, a: str, b: str, **options: object) -> Row:
    text = f"({_typed(a)} x, {_typed(b)} x2) => (float[N,3,4,5] y) {{ y = {op}(x, x2) }}"
    return Row(op, case, text, **options)  # type: ignore[arg-type]


def sliced(case: str, dims: str, *places: list[int]) -> Row:
    """`places` are starts, ends, and perhaps axes and steps."""
    tensors = dict(zip(("starts", "ends", "axes", "steps"), map(np.array, places), strict=False))
    return of("Slice", case, dims, f"({', '.join(['x', *tensors])})", **tensors)


def transposed(case: str, size: str, weight: tuple[int, ...], attributes: str, fault: str = "") -> Row:
    dims = ",".join("?" for _ in weight[2:])
    channels = weight[1] * int((re.findall(r"group=(\d+)", attributes) or ["1"])[0])
    text = f"(float[N,{weight[0]},{size}] x) => (float[N,{channels},{dims}] y)"
    call = f"{{ y = ConvTranspose <{attributes}> (x, w, b) }}"
    return Row(
        "ConvTranspose", case, f"{text} {call}", {"w": weight, "b": (channels,)}, reference_fault=fault
    )


def extremum(op: str, case: str, a: str, b: str) -> Row:
    """Both inputs are drawn from the same values, so one is moved by less than their distance."""
    call = f"s = Add(x2, shift) \n y = {op}(x, s)"
    text = f"({_typed(a)} x, {_typed(b)} x2) => (float[N,3,4,5] y) {{ {call} }}"
    return Row(op, case, text, {"shift": np.array(0.013)})


def _typed(dims: str) -> str:
    return f"float[{dims}]" if dims else "float"


WIDE, CHANNEL, SCALAR = "N,3,4,5", "3,1,1", "1"
BROADCASTS = {
    "same shape": (WIDE, WIDE),
    "channel on the right": (WIDE, CHANNEL),
    "channel on the left": (CHANNEL, WIDE),
    "scalar on the right": (WIDE, SCALAR),
    "rank 0 on the left": ("", WIDE),
    "rows against a picture": ("N,3,4,1", "1,3,1,5"),
}

ROWS = [
    unary("Relu", "both signs", away=(0.0,)),
    unary("LeakyRelu", "default slope", away=(0.0,)),
    unary("LeakyRelu", "slope 0.3", "<alpha=0.3>", away=(0.0,)),
    Row(
        "Clip",
        "both ends, as Relu6",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, low, high) }",
        {"low": np.array(0.0), "high": np.array(6.0)},
        away=(0.0, 6.0),
        low=-4,
        high=10,
    ),
    Row(
        "Clip",
        "lower end only",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, low) }",
        {"low": np.array(-0.5)},
        away=(-0.5,),
    ),
    Row(
        "Clip",
        "upper end only",
        "(float[N,3,4] x) => (float[N,3,4] y) { y = Clip(x, , high) }",
        {"high": np.array(0.5)},
        away=(0.5,),
    ),
    unary("Clip", "no ends"),
    unary("Sigmoid", "smooth"),
    unary("Tanh", "smooth"),
    unary("HardSigmoid", "default", away=(-2.5, 2.5), low=-4, high=4),
    unary("HardSigmoid", "own slope", "<alpha=0.5, beta=0.3>", away=(-0.6, 1.4)),
    unary("HardSwish", "all three pieces", away=(-3.0, 3.0), low=-5, high=5),
    *(broadcast("Add", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Sub", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Mul", case, a, b) for case, (a, b) in BROADCASTS.items()),
    *(broadcast("Div", case, a, b, low=0.5) for case, (a, b) in BROADCASTS.items()),
    of("Add", "to itself", "N,3 -> N,3", "(x, x)"),
    of("Mul", "by itself", "N,3 -> N,3", "(x, x)"),
    Row(
        "Div",
        "by itself plus a constant",
        "(float[N,3] x) => (float[N,3] y) { s = Add(x, c) \n y = Div(x, s) }",
        {"c": np.array(4.0)},
    ),
    of("Sub", "constant on the left", "N,3,4 -> N,3,4", "(c, x)", c=(3, 1)),
    of("Mul", "constant wider than x", "N,1,4 -> N,3,4", "(x, c)", c=(3, 4)),
    unary("Neg", "plain"),
    convolution("plain 3x3", "5,5", (4, 3, 3, 3), "<pads=[1,1,1,1]>", bias=True),
    convolution("no padding", "5,6", (4, 3, 3, 3)),
    convolution("stride 2 odd size", "7,7", (4, 3, 3, 3), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("stride 2 even size", "6,6", (4, 3, 3, 3), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("stride 2 last rows unseen", "8,8", (4, 3, 3, 3), "<strides=[2,2]>"),
    convolution("stride 3", "8,8", (4, 3, 3, 3), "<strides=[3,3], pads=[1,1,1,1]>"),
    convolution("stride 3 last rows unseen", "10,11", (4, 3, 3, 3), "<strides=[3,3], pads=[0,1,0,1]>"),
    convolution("stride 3 5x5", "11,11", (3, 2, 5, 5), "<strides=[3,3], pads=[2,2,2,2]>"),
    convolution("dilation 2", "7,7", (4, 3, 3, 3), "<dilations=[2,2], pads=[2,2,2,2]>"),
    convolution(
        "dilation 2 stride 2", "9,9", (4, 3, 3, 3), "<dilations=[2,2], strides=[2,2], pads=[2,2,2,2]>"
    ),
    convolution("asymmetric pads", "6,6", (4, 3, 3, 3), "<pads=[0,1,2,1]>"),
    convolution("asymmetric pads stride 2", "6,7", (4, 3, 3, 3), "<strides=[2,2], pads=[0,0,1,1]>"),
    convolution("padding wider than the kernel", "4,4", (4, 3, 3, 3), "<pads=[3,4,4,3]>"),
    convolution(
        "padding wider than the kernel stride 2", "5,5", (4, 3, 3, 3), "<strides=[2,2], pads=[4,3,3,4]>"
    ),
    convolution("1x1 with padding", "4,4", (4, 3, 1, 1), "<pads=[1,2,1,0]>"),
    convolution("groups", "5,5", (4, 2, 3, 3), "<pads=[1,1,1,1], group=2>", fault=GROUPED),
    convolution(
        "groups stride 2", "6,7", (4, 2, 3, 3), "<pads=[1,1,1,1], strides=[2,2], group=2>", fault=GROUPED
    ),
    convolution("depthwise", "5,5", (4, 1, 3, 3), "<pads=[1,1,1,1], group=4>"),
    convolution("depthwise twice as wide", "5,5", (6, 1, 3, 3), "<pads=[1,1,1,1], group=3>", fault=GROUPED),
    convolution("depthwise stride 2", "6,6", (4, 1, 3, 3), "<pads=[1,1,1,1], strides=[2,2], group=4>"),
    convolution(
        "depthwise dilation 2 padded wide", "5,5", (3, 1, 3, 3), "<pads=[4,4,5,5], dilations=[2,2], group=3>"
    ),
    convolution("1x1", "4,5", (4, 3, 1, 1)),
    convolution("1x1 stride 2 even", "6,6", (4, 3, 1, 1), "<strides=[2,2]>"),
    convolution("1x1 stride 2 odd", "5,7", (4, 3, 1, 1), "<strides=[2,2]>"),
    convolution("5x5 stride 2", "9,8", (3, 2, 5, 5), "<strides=[2,2], pads=[2,2,2,2]>"),
    convolution("7x7 stride 2, as in ResNet", "9,9", (2, 3, 7, 7), "<strides=[2,2], pads=[3,3,3,3]>"),
    convolution("2x2 stride 2", "6,7", (4, 3, 2, 2), "<strides=[2,2]>"),
    convolution("2x2 stride 1", "5,5", (4, 3, 2, 2), "<pads=[0,0,1,1]>"),
    convolution("4x4 stride 2", "8,9", (2, 3, 4, 4), "<strides=[2,2], pads=[1,1,1,1]>"),
    convolution("4x4 stride 4, as a patch embedding", "8,8", (2, 3, 4, 4), "<strides=[4,4]>"),
    convolution("2x2 smaller than stride 3", "8,9", (4, 3, 2, 2), "<strides=[3,3]>"),
    convolution("1x1 smaller than stride 3", "8,7", (4, 3, 1, 1), "<strides=[3,3], pads=[1,0,1,0]>"),
    convolution(
        "1x3 smaller than stride 2 in one axis", "6,6", (4, 3, 1, 3), "<strides=[2,2], pads=[0,1,0,1]>"
    ),
    convolution("1-d", "9", (4, 3, 3), "<pads=[1,1]>"),
    convolution("1-d stride 2", "9", (4, 3, 3), "<pads=[1,0], strides=[2]>"),
    convolution("1-d groups dilation", "9", (4, 2, 3), "<pads=[2,2], dilations=[2], group=2>", fault=GROUPED),
    convolution("3-d", "4,4,3", (2, 2, 3, 3, 3), "<pads=[1,1,1,1,1,1]>"),
    convolution("non-square kernel", "5,6", (4, 3, 1, 3), "<pads=[0,1,0,1]>"),
    convolution("non-square strides", "7,8", (4, 3, 3, 3), "<strides=[1,2], pads=[1,1,1,1]>"),
    convolution("non-square kernel and strides", "9,8", (4, 3, 5, 3), "<strides=[3,2], pads=[2,1,1,0]>"),
    convolution("mixed dilations", "8,8", (4, 3, 3, 3), "<dilations=[1,2], pads=[1,2,1,2]>"),
    of("Reshape", "to a matrix", "N,3,4 -> N,12", "(x, s)", s=np.array([-1, 12])),
    of("Reshape", "with 0 and -1", "N,3,4,5 -> N,3,20", "(x, s)", s=np.array([0, 0, -1])),
    of("Reshape", "batch folded into channels", "N,3,4 -> M,4", "(x, s)", s=np.array([-1, 4])),
    of("Flatten", "default axis", "N,3,4 -> N,12", "(x)"),
    of("Flatten", "axis 2", "N,3,4 -> M,4", "<axis=2>(x)"),
    of("Squeeze", "axes", "N,3,1,1 -> N,3", "(x, a)", a=np.array([2, -1])),
    of("Squeeze", "no axes", "3,1,4 -> 3,4", "(x)"),
    of("Unsqueeze", "axes", "N,3 -> N,3,1,1", "(x, a)", a=np.array([2, 3])),
    of("Unsqueeze", "negative and first axis", "N,3 -> 1,N,3,1", "(x, a)", a=np.array([-1, 0])),
    unary("Identity", "plain"),
    unary("Dropout", "inference form"),
    of("Transpose", "perm", "N,3,4,5 -> 4,N,5,3", "<perm=[2,0,3,1]>(x)"),
    of("Transpose", "no perm", "N,3,4 -> 4,3,N", "(x)"),
    of(
        "Concat",
        "three inputs, the second not needed",
        "N,2,3; N,1,3 -> N,6,3",
        "<axis=1>(x, c, x2)",
        c=(BATCH, 3, 3),
    ),
    of("Concat", "negative axis", "N,2,3; N,2,1 -> N,2,4", "<axis=-1>(x2, x)"),
    of("Concat", "with itself", "N,2,3 -> N,4,3", "<axis=1>(x, x)"),
    of("Pad", "all sides", "N,2,3,4 -> N,2,6,7", "(x, p)", p=np.array([0, 0, 1, 2, 0, 0, 2, 1])),
    of(
        "Pad",
        "one end and channels, own value",
        "N,2,3,4 -> N,5,3,5",
        "(x, p, v)",
        p=np.array([0, 1, 0, 0, 0, 2, 0, 1]),
        v=np.array(0.7),
    ),
    of("Pad", "by nothing", "N,2,3 -> N,2,3", "(x, p)", p=np.zeros(6, int)),
    of("Gemm", "transB=1", "N,5 -> N,3", "<transB=1>(x, w, b)", w=(3, 5), b=(3,)),
    of("Gemm", "transB=0, no bias", "N,5 -> N,3", "(x, w)", w=(5, 3)),
    of("Gemm", "alpha and beta", "N,5 -> N,3", "<transB=1, alpha=0.5, beta=2.0>(x, w, b)", w=(3, 5), b=(3,)),
    of("Gemm", "alpha, transB=0", "N,5 -> N,3", "<alpha=-1.5>(x, w)", w=(5, 3)),
    of("Gemm", "by computed weight", "N,5; 3,5 -> N,3", "<transB=1, alpha=0.5>(x, x2, b)", b=(3,)),
    of("Gemm", "by computed weight, transB=0", "N,5; 5,3 -> N,3", "<alpha=0.5>(x, x2)"),
    of("MatMul", "matrix", "N,5 -> N,3", "(x, w)", w=(5, 3)),
    of("MatMul", "sequence by matrix", "N,4,5 -> N,4,3", "(x, w)", w=(5, 3)),
    of("GlobalAveragePool", "2-d", "N,3,4,5 -> N,3,1,1", "(x)"),
    of("GlobalAveragePool", "1-d", "N,3,4 -> N,3,1", "(x)"),
    of("ReduceMean", "spatial, keepdims", "N,3,4,5 -> N,3,1,1", "<axes=[2,3]>(x)"),
    of("ReduceMean", "spatial, no keepdims", "N,3,4,5 -> N,3", "<axes=[2,3], keepdims=0>(x)"),
    of("ReduceMean", "negative unsorted axes", "N,3,4,5 -> N,3", "<axes=[-1,2], keepdims=0>(x)"),
    of("ReduceMean", "one inner axis", "N,3,4 -> N,4", "<axes=[1], keepdims=0>(x)"),
    pool("MaxPool", "2x2", "4,6", "kernel_shape=[2,2], strides=[2,2]"),
    pool(
        "MaxPool",
        "overlapping and padded, as in ResNet",
        "7,7",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
    ),
    pool(
        "MaxPool",
        "overlapping stride 1",
        "5,5",
        "kernel_shape=[3,3], pads=[1,1,1,1]",
        reference_fault=STRIDE_1,
    ),
    pool("MaxPool", "asymmetric pads", "5,6", "kernel_shape=[2,3], strides=[2,2], pads=[0,1,1,0]"),
    pool("MaxPool", "dilated", "8,8", "kernel_shape=[2,2], dilations=[3,2], strides=[2,1]"),
    pool("MaxPool", "ceil_mode", "6,7", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1"),
    pool("MaxPool", "1-d", "9", "kernel_shape=[3], strides=[2], pads=[1,1]"),
    pool("AveragePool", "2x2", "4,6", "kernel_shape=[2,2], strides=[2,2]"),
    pool(
        "AveragePool",
        "padded, without padding counted",
        "6,6",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
    ),
    pool(
        "AveragePool",
        "padded, with padding counted",
        "6,6",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1",
    ),
    pool(
        "AveragePool",
        "overlapping, asymmetric",
        "5,6",
        "kernel_shape=[3,2], pads=[1,0,1,1], count_include_pad=1",
    ),
    pool("AveragePool", "last rows unseen", "8,7", "kernel_shape=[3,3], strides=[3,2]"),
    pool("AveragePool", "1-d", "9", "kernel_shape=[3], strides=[2], pads=[1,1]"),
    pool("AveragePool", "ceil_mode", "6,7", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1"),
    pool(
        "AveragePool",
        "ceil_mode, padded",
        "6,6",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1",
    ),
    pool(
        "AveragePool",
        "ceil_mode, padding counted",
        "6,6",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1",
    ),
    unary("Elu", "default", away=(0.0,)),
    unary("Elu", "alpha 0.7", "<alpha=0.7>", away=(0.0,)),
    unary("Selu", "default", away=(0.0,)),
    unary("Selu", "own alpha and gamma", "<alpha=1.2, gamma=0.8>", away=(0.0,)),
    unary("Celu", "default", away=(0.0,)),
    unary("Celu", "alpha 0.7", "<alpha=0.7>", away=(0.0,)),
    unary("Softplus", "both signs"),
    unary("Softplus", "large values", low=-30, high=30),
    unary("Softsign", "both signs", away=(0.0,)),
    unary("Erf", "both signs"),
    of("PRelu", "slope for each channel", "N,3,4,5 -> N,3,4,5", "(x, s)", s=(3, 1, 1)),
    of("PRelu", "one slope", "N,3,4 -> N,3,4", "(x, s)", s=(1,)),
    of("PRelu", "computed slope", "N,3,4; 3,1 -> N,3,4", "(x, x2)"),
    unary("Softmax", "last axis"),
    unary("Softmax", "channels", "<axis=1>"),
    unary("Softmax", "negative axis", "<axis=-2>"),
    unary("LogSoftmax", "last axis"),
    unary("LogSoftmax", "channels", "<axis=1>"),
    unary("Exp", "both signs"),
    unary("Log", "positive", low=0.3),
    unary("Sqrt", "positive", low=0.3),
    unary("Abs", "both signs", away=(0.0,)),
    unary("Reciprocal", "positive", low=0.4),
    unary("Reciprocal", "negative", low=-3, high=-0.5),
    of("Pow", "square of both signs", "N,3,4 -> N,3,4", "(x, p)", p=np.array(2.0)),
    of("Pow", "cube, integer exponent", "N,3,4 -> N,3,4", "(x, p)", p=np.array(3)),
    replace(of("Pow", "fraction", "N,3,4 -> N,3,4", "(x, p)", p=np.array([1 / 3])), low=0.3),
    replace(of("Pow", "minus one half", "N,3,4 -> N,3,4", "(x, p)", p=np.array(-0.5)), low=0.3),
    of("Pow", "exponents wider than x", "N,1,4 -> N,3,4", "(x, p)", p=np.array([[1.0], [2.0], [0.0]])),
    of("Sum", "three inputs, one constant", "N,3,4; 3,1 -> N,3,4", "(x, c, x2)", c=(4,)),
    of("Sum", "of one", "N,3 -> N,3", "(x)"),
    of("Sum", "to itself", "N,3 -> N,3", "(x, x)"),
    *(extremum(op, case, a, b) for op in ("Max", "Min") for case, (a, b) in BROADCASTS.items()),
    of("Max", "with a constant, as Relu", "N,3,4 -> N,3,4", "(c, x)", c=np.array(0.05)),
    of("Max", "three inputs", "N,3,4; N,3,4 -> N,3,4", "(x, c, x2)", c=(3, 4)),
    of("Min", "with a constant", "N,3,4 -> N,3,4", "(x, c)", c=np.array(1.03)),
    Row(
        "Where",
        "both branches, broadcast",
        "(float[N,3,4] x, float[3,1] x2) => (float[N,3,4] y) { m = Greater(c, z) \n y = Where(m, x, x2) }",
        {"c": (3, 4), "z": np.array(0.0)},
    ),
    Row(
        "Where",
        "condition from the input, constant branch",
        "(float[N,3,4] x) => (float[N,3,4] y) { m = Less(x, z) \n n = Not(m) \n y = Where(n, x, c) }",
        {"c": (4,), "z": np.array(0.55)},
        away=(0.55,),
    ),
    of("ReduceSum", "axes input, keepdims", "N,3,4,5 -> N,3,1,1", "(x, a)", a=np.array([2, -1])),
    of("ReduceSum", "no keepdims, batch too", "N,3,4 -> 4", "<keepdims=0>(x, a)", a=np.array([1, 0])),
    of("ReduceSum", "all axes", "N,3,4 -> 1,1,1", "(x)"),
    Row(
        "ReduceSum",
        "all axes, no keepdims",
        "(float[N,3] x) => (float[2] y) { s = ReduceSum<keepdims=0>(x) \n y = Mul(s, c) }",
        {"c": (2,)},
    ),
    of("ReduceSum", "no axes is no sum", "N,3 -> N,3", "<noop_with_empty_axes=1, keepdims=0>(x)"),
    *(
        of(op, case, dims, f"<{attributes}>(x)")
        for op in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
        for case, dims, attributes in (
            ("picture, keepdims", "N,3,4,5 -> N,3,1,1", "axes=[2,3]"),
            ("channels, no keepdims", "N,3,4 -> N,4", "axes=[-2], keepdims=0"),
        )
    ),
    of("GlobalMaxPool", "2-d", "N,3,4,5 -> N,3,1,1", "(x)"),
    Row(
        "Split",
        "every part used",
        "(float[N,5,3] x) => (float[N,2,3] y)"
        "{ a, b, c = Split<axis=1>(x, s) \n d = Mul(b, b) \n e = Add(a, d) \n y = Mul(e, c) }",
        {"s": np.array([2, 2, 1])},
    ),
    Row("Split", "first part unused", "(float[N,4,3] x) => (float[N,2,3] y) { a, y = Split<axis=1>(x) }"),
    Row("Split", "last part unused", "(float[N,2,6] x) => (float[N,2,3] y) { y, a = Split<axis=-1>(x) }"),
    sliced("a middle part", "N,5,6 -> N,3,6", [1], [4], [1]),
    sliced("two axes from the back, no axes given", "N,4,5 -> N,2,3", [0, -3, -4], [2**62, -1, -1]),
    sliced("every second", "N,2,7 -> N,2,3", [1], [7], [2], [2]),
    sliced("reversed", "N,2,5 -> N,2,5", [-1], [-(2**62)], [-1], [-1]),
    sliced("backwards in twos, and a part", "N,6,5 -> N,2,3", [4, 0], [0, 3], [1, 2], [-2, 1]),
    of("Gather", "one index of each row", "N,4,3 -> N,3", "<axis=1>(x, i)", i=np.array(2)),
    of("Gather", "a negative scalar, last axis", "N,4,3 -> N,4", "<axis=-1>(x, i)", i=np.array(-1)),
    of("Gather", "channels in another order", "N,4,3 -> N,4,3", "<axis=1>(x, i)", i=np.array([2, 0, 3, 1])),
    of("Gather", "repeated indices", "N,4,3 -> N,5,3", "<axis=1>(x, i)", i=np.array([2, 0, 2, -2, 0])),
    of(
        "Gather",
        "a table of indices",
        "N,4,3 -> N,2,3,3",
        "<axis=1>(x, i)",
        i=np.array([[2, 0, 1], [0, 3, 2]]),
    ),
    of("Gather", "a table, batch behind", "4,N,3 -> 2,2,N,3", "(x, i)", i=np.array([[2, 0], [0, 1]])),
    of("Gather", "along a dynamic axis, repeated", "N,4,3 -> 3,4,3", "(x, i)", i=np.array([1, -1, 0])),
    of("Gather", "a scalar along a dynamic axis", "4,N,3 -> 4,3", "<axis=1>(x, i)", i=np.array(-1)),
    of("Expand", "channels", "N,1,4 -> N,3,4", "(x, s)", s=np.array([1, 3, 1])),
    of("Expand", "a new first axis", "3,1 -> 2,3,4", "(x, s)", s=np.array([2, 3, 4])),
    Row(
        "Expand",
        "to a computed shape, as torch's normalize",
        "(float[N,1] x, float[N,4] x2) => (float[N,4] y) { s = Shape(x2) \n e = Expand(x, s) \n y = Mul(e, x2) }",
    ),
    of("Tile", "two axes", "N,2,3 -> N,4,9", "(x, r)", r=np.array([1, 2, 3])),
    of("Tile", "the batch", "N,3 -> M,3", "(x, r)", r=np.array([2, 1])),
    of("Tile", "once", "N,3 -> N,3", "(x, r)", r=np.array([1, 1])),
    of("DepthToSpace", "DCR", "N,8,2,3 -> N,2,4,6", "<blocksize=2>(x)"),
    of("DepthToSpace", "CRD", "N,8,2,3 -> N,2,4,6", '<blocksize=2, mode="CRD">(x)'),
    of("SpaceToDepth", "blocks of 2", "N,2,4,6 -> N,8,2,3", "<blocksize=2>(x)"),
    *(
        of("Resize", f"{case}", "N,2,3,4 -> N,2,6,12", f"<{attributes}>(x, , s)", s=np.array([1.0, 1, 2, 3]))
        for case, attributes in {
            "asymmetric, floor, as torch's": 'coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
            "default, half pixel": 'mode="nearest"',
            "pytorch half pixel": 'coordinate_transformation_mode="pytorch_half_pixel"',
        }.items()
    ),
    of("Resize", "to given sizes", "2,2,3,4 -> 2,2,6,4", "(x, , , s)", s=np.array([2, 2, 6, 4])),
    of("MatMul", "two matrices", "N,5; 5,3 -> N,3", "(x, x2)"),
    of("MatMul", "two stacks", "N,2,3,5; N,2,5,4 -> N,2,3,4", "(x, x2)"),
    of("MatMul", "a stack by one computed matrix", "N,4,5; 5,3 -> N,4,3", "(x, x2)"),
    of("MatMul", "one matrix by a stack", "3,4; N,4,5 -> N,3,5", "(x, x2)"),
    of("MatMul", "stacks broadcast both ways", "N,1,3,4; 2,4,5 -> N,2,3,5", "(x, x2)"),
    of("MatMul", "with itself", "N,3,3 -> N,3,3", "(x, x)"),
    of("MatMul", "constant stack on the left", "N,4,5 -> N,3,5", "(c, x)", c=(1, 3, 4)),
    of("Gemm", "transA=1", "5,N -> N,3", "<transA=1, alpha=0.5>(x, w)", w=(5, 3)),
    of("Gemm", "transA=1, transB=1, both computed", "5,N; 3,5 -> N,3", "<transA=1, transB=1>(x, x2)"),
    of("Gemm", "transA=1, both computed", "5,N; 5,3 -> N,3", "<transA=1, alpha=0.5>(x, x2)"),
    of("Gemm", "computed bias of a row", "N,5; 3 -> N,3", "<beta=0.5>(x, w, x2)", w=(5, 3)),
    of("Gemm", "computed bias of a column", "N,5; N,1 -> N,3", "(x, w, x2)", w=(5, 3)),
    transposed("2x2 stride 2", "3,4", (3, 2, 2, 2), "strides=[2,2]"),
    transposed(
        "3x3 stride 2, output padding",
        "3,4",
        (3, 2, 3, 3),
        "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]",
    ),
    transposed("asymmetric, dilated", "5,4", (3, 2, 3, 2), "dilations=[2,3], pads=[1,0,2,1]"),
    transposed("groups", "4,4", (4, 3, 3, 3), "group=2, strides=[2,1], pads=[1,1,1,1]", GROUPED),
    transposed("depthwise", "4,4", (3, 1, 4, 4), "group=3, strides=[2,2], pads=[1,1,1,1]"),
    transposed("1-d", "5", (3, 2, 3), "strides=[2]"),
    of("InstanceNormalization", "2-d", "N,3,4,5 -> N,3,4,5", "(x, s, b)", s=(3,), b=(3,)),
    of("InstanceNormalization", "1-d, epsilon", "N,3,5 -> N,3,5", "<epsilon=0.1>(x, s, b)", s=(3,), b=(3,)),
    of("LayerNormalization", "last axis", "N,3,5 -> N,3,5", "(x, s, b)", s=(5,), b=(5,)),
    of("LayerNormalization", "last axis, no bias", "N,3,5 -> N,3,5", "<epsilon=0.1>(x, s)", s=(5,)),
    of(
        "LayerNormalization",
        "all but the batch",
        "N,2,3,4 -> N,2,3,4",
        "<axis=1>(x, s, b)",
        s=(2, 3, 4),
        b=(2, 3, 4),
    ),
]


def test_every_rule_has_a_row():
    assert registered_ops() == {row.op for row in ROWS}


def test_row_names_are_unique():
    assert len({str(row) for row in ROWS}) == len(ROWS)


class ConvTranspose(OpRun):
    """onnx.reference's own (1.23) does not know groups."""

    op_domain = ""

    def _run(self, x, w, b, group=1, strides=(), dilations=(), pads=(), output_padding=(), **_: object):
        kernel, sizes = w.shape[2:], x.shape[2:]
        ones, zeros = [1] * len(kernel), [0] * 2 * len(kernel)
        strides, dilations = tuple(strides or ones), tuple(dilations or ones)
        pads, more = tuple(pads or zeros), output_padding or zeros
        out = tuple(
            s * (i - 1) + o + d * (k - 1) + 1 - p - q
            for s, i, o, d, k, p, q in zip(
                *(strides, sizes, more, dilations, kernel, pads, pads[len(kernel) :]), strict=False
            )
        )
        shape = Geometry(kernel, strides, dilations, pads, group or 1, w.shape[1] * (group or 1), out, sizes)
        return (_adjoint(x, w, shape) + b.reshape(-1, *ones),)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradient_equals_central_differences(row: Row) -> None:
    rng = np.random.default_rng(sum(map(ord, str(row))))
    forward = model(row.text, **{name: _tensor(rng, spec) for name, spec in row.tensors.items()})
    names = [value.name for value in forward.graph.input]
    feeds = {value.name: _smooth(rng, _dims(value), row) for value in forward.graph.input}
    oracle = ReferenceEvaluator(in_float64(forward), new_ops=[Erf, ConvTranspose])

    def loss(arrays: Arrays) -> float:
        return float(np.sum(oracle.run(None, arrays)[0] * g))

    feeds64 = {name: array.astype(np.float64) for name, array in feeds.items()}
    g = rng.normal(size=oracle.run(None, feeds64)[0].shape).astype(np.float32)
    expected = {name: central_differences(loss, feeds64, name) for name in names}

    gradient = gradient_model(forward)
    _agree(run_ort(gradient, feeds | {"g": g}), expected)
    if not row.reference_fault:
        _agree(
            dict(zip(names, ReferenceEvaluator(gradient).run(None, feeds | {"g": g}), strict=True)), expected
        )


def gradient_model(forward: onnx.ModelProto) -> onnx.ModelProto:
    """In: the inputs of `forward` and `g`; out: for each input the gradient of `sum(g * y)`."""
    graph_model = ir.from_proto(forward)
    passes.ShapeInferencePass()(graph_model)
    graph = graph_model.graph
    emit, inputs, y = Emitter(graph), list(graph.inputs), graph.outputs[0]
    assert y.shape is not None
    g = emit.input("g", ir.DataType.FLOAT, list(y.shape))  # type: ignore[arg-type]
    gradients = differentiate(emit, {y: g}, inputs)
    graph.outputs.clear()
    for x in inputs:
        emit.output(gradients[x], f"{x.name}.gradient", list(x.shape or ()))  # type: ignore[arg-type]
    passes.TopologicalSortPass()(graph_model)
    proto = ir.to_proto(graph_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run_ort(proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name.removesuffix(".gradient") for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def central_differences(loss: Callable[[Arrays], float], feeds: Arrays, name: str) -> NDArray:
    gradient = np.zeros_like(feeds[name])
    for index in np.ndindex(gradient.shape):
        values = []
        for step in (STEP, -STEP):
            moved = feeds[name].copy()
            moved[index] += step
            values.append(loss(feeds | {name: moved}))
        gradient[index] = (values[0] - values[1]) / (2 * STEP)
    return gradient


def _agree(got: Arrays, expected: Arrays) -> None:
    for name, oracle in expected.items():
        gradient = got[name].astype(np.float64)
        assert gradient.shape == oracle.shape, name
        norm = np.linalg.norm(oracle)
        assert norm > 1e-3, "a row whose gradient is zero proves nothing"
        assert np.sum(gradient * oracle) / (np.linalg.norm(gradient) * norm) >= 0.99999, name
        assert np.linalg.norm(gradient - oracle) / norm <= 1e-4, name


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value or BATCH for dim in value.type.tensor_type.shape.dim)


def _tensor(rng: np.random.Generator, spec: tuple[int, ...] | NDArray) -> NDArray:
    return rng.normal(size=spec) if isinstance(spec, tuple) else spec


def _smooth(rng: np.random.Generator, dims: tuple[int, ...], row: Row) -> NDArray[np.float32]:
    """Random values, all different (so that every maximum is clear), and away from the kinks."""
    count = int(np.prod(dims))
    values = rng.permutation(np.linspace(row.low, row.high, count + 2)[1:-1]).reshape(dims)
    for kink in row.away:
        near = np.abs(values - kink) < 0.01
        values = np.where(near, values + 0.02, values)
    return values.astype(np.float32)


# --- what a rule refuses


@pytest.mark.parametrize(
    ("text", "tensors", "fragment"),
    [
        (
            "(float[N,2,4,4] x, float[3,2,3,3] x2) => (float[N,3,2,2] y) { y = Conv(x, x2) }",
            {},
            "no gradient rule for 'Conv' with a computed weight or bias",
        ),
        (
            "(float[N,3] x) => (float[N] y) { [dot] y = MatMul(x, v) }",
            {"v": (3,)},
            "no gradient rule for 'MatMul' with a vector (node 'dot')",
        ),
        (
            "(float[N,3] x, float[M,3] x2) => (float[K,3] y) { y = Concat<axis=0>(x, x2) }",
            {},
            "no gradient rule for 'Concat' along a dynamic axis",
        ),
        (
            '(float[N,2,4] x) => (float[N,2,6] y) { y = Pad<mode="reflect">(x, p) }',
            {"p": np.array([0, 0, 1, 0, 0, 1])},
            "no gradient rule for 'Pad' with mode 'reflect'",
        ),
        (
            "(float[N,2,4] x) => (float[N,2,3] y) { y = Pad(x, p) }",
            {"p": np.array([0, 0, -1, 0, 0, 0])},
            "negative pads",
        ),
        (
            "(float[N,2,4] x) => (float[2,4] y) { y = ReduceMean<axes=[0], keepdims=0>(x) }",
            {},
            "no gradient rule for 'ReduceMean' over a dynamic axis",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,2,2] y) "
            "{ y = MaxPool<kernel_shape=[2,2], strides=[2,2], storage_order=1>(x) }",
            {},
            "no gradient rule for column-major 'MaxPool'",
        ),
        (
            "(float[N,2,H,W] x) => (float[N,2,1,1] y) { y = GlobalAveragePool(x) }",
            {},
            "no gradient rule for 'GlobalAveragePool' on a picture of unknown size",
        ),
        (
            "(float[N,2] x) => (float[N,2] y) { [soft] y = ThresholdedRelu(x) }",
            {},
            "no gradient rule for 'ThresholdedRelu' (node 'soft' of the model",
        ),
        (
            "(float[N,3] x, float[N,3] x2) => (float[N,3] y) { [power] y = Pow(x, x2) }",
            {},
            "no gradient rule for 'Pow' with a computed exponent (node 'power')",
        ),
        (
            "(float[N,4] x) => (float[N,1] y) { a, y = LayerNormalization(x, s) }",
            {"s": (4,)},
            "no gradient rule for 'LayerNormalization'",
        ),
        (
            "(float[N,4] x, float[4] x2) => (float[N,4] y) { [norm] y = LayerNormalization(x, x2) }",
            {},
            "no gradient rule for 'LayerNormalization' with a computed scale or bias (node 'norm')",
        ),
        (
            "(float[N,2,4] x, float[2] x2) => (float[N,2,4] y) { y = InstanceNormalization(x, s, x2) }",
            {"s": (2,)},
            "no gradient rule for 'InstanceNormalization' with a computed scale or bias",
        ),
        (
            "(float[N,4] x, int64[1] a) => (float y) { [sum] y = ReduceSum(x, a) }",
            {},
            "no gradient rule for 'ReduceSum' with computed axes (node 'sum')",
        ),
        (
            "(float[N,4] x, int64[1] b) => (float[N,M] y) { [cut] y = Slice(x, b, e, a) }",
            {"e": np.array([3]), "a": np.array([1])},
            "no gradient rule for 'Slice' with computed places (node 'cut')",
        ),
        (
            "(float[N,4] x) => (float[M,4] y) { [cut] y = Slice(x, b, e) }",
            {"b": np.array([0]), "e": np.array([1])},
            "no gradient rule for 'Slice' along a dynamic axis (node 'cut')",
        ),
        (
            "(float[N,4] x, int64[2] i) => (float[N,2] y) { [pick] y = Gather<axis=1>(x, i) }",
            {},
            "no gradient rule for 'Gather' with computed indices (node 'pick')",
        ),
        (
            "(float[N,4] x, int64[2] r) => (float[M,K] y) { y = Tile(x, r) }",
            {},
            "no gradient rule for 'Tile' with computed repeats",
        ),
        (
            '(float[N,2,4,4] x) => (float[N,2,8,8] y) { [up] y = Resize<mode="linear">(x, , s) }',
            {"s": np.array([1.0, 1, 2, 2])},
            "no gradient rule for 'Resize' (node 'up') other than enlarging the picture by whole factors",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,6,6] y) { y = Resize(x, , s) }",
            {"s": np.array([1.0, 1, 1.5, 1.5])},
            "other than enlarging the picture by whole factors",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,12,12] y) "
            '{ y = Resize<coordinate_transformation_mode="asymmetric">(x, , s) }',
            {"s": np.array([1.0, 1, 3, 3])},
            "other than enlarging the picture by whole factors",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,2,8,8] y) "
            '{ y = Resize<coordinate_transformation_mode="align_corners">(x, , s) }',
            {"s": np.array([1.0, 1, 2, 2])},
            "other than enlarging the picture by whole factors",
        ),
        (
            "(float[N,2,4,4] x, float[2,3,3,3] x2) => (float[N,3,6,6] y) { y = ConvTranspose(x, x2) }",
            {},
            "no gradient rule for 'ConvTranspose' with a computed weight or bias",
        ),
        (
            "(float[N,2,4,4] x) => (float[N,3,8,8] y) { y = ConvTranspose<output_shape=[8,8], strides=[2,2]>(x, w) }",
            {"w": (2, 3, 3, 3)},
            "no gradient rule for 'ConvTranspose' with auto_pad, output_shape or",
        ),
        (
            "(float[N,2,H,W] x) => (float[N,3,K,L] y) { y = ConvTranspose(x, w) }",
            {"w": (2, 3, 3, 3)},
            "no gradient rule for 'ConvTranspose' on a picture of unknown size",
        ),
        (
            '(float[N,4,H,W] x) => (float[N,1,K,L] y) { y = DepthToSpace<blocksize=2, mode="CRD">(x) }',
            {},
            "no gradient rule for 'DepthToSpace' on a picture of unknown size",
        ),
    ],
)
def test_refuses_what_it_cannot_differentiate(
    text: str, tensors: Mapping[str, object], fragment: str
) -> None:
    rng = np.random.default_rng(0)
    forward = model(text, **{name: _tensor(rng, spec) for name, spec in tensors.items()})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOpError) as caught:
        gradient_model(forward)
    assert fragment in str(caught.value)


def test_registering_a_rule_twice_fails():
    with pytest.raises(ValueError, match="'Relu' exists already"):
        vjp("Relu")(lambda emit, node, g: [g])


def test_no_gradient_flows_through_truth_values_and_shapes():
    forward = model(
        "(float[N,3] x) => (float[N,3] y) { s = Shape(x) \n e = Expand(c, s) \n y = Mul(x, e) }",
        c=np.array([1.0, 2.0, 3.0]),
    )
    gradient = gradient_model(forward)
    g = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(run_ort(gradient, {"x": g, "g": g})["x"], [[1, 2, 3], [1, 2, 3]])


# --- slices and enlargements of any kind

PLACES = st.integers(-9, 9) | st.sampled_from([2**62, -(2**62)])


@given(PLACES, PLACES, st.sampled_from([-3, -2, -1, 1, 2, 3]), st.integers(1, 7))
@example(-1, -(2**62), -1, 5)
@example(2, -8, -1, 7)
@settings(max_examples=60, deadline=None)
def test_gradient_of_any_slice(start: int, end: int, step: int, size: int) -> None:
    places = dict(zip(("b", "e", "a", "s"), (start, end, 1, step), strict=True))
    tensors = {name: np.array([value]) for name, value in places.items()}
    forward = model(f"(float[N,{size}] x) => (float[N,M] y) {{ y = Slice(x, b, e, a, s) }}", **tensors)
    taken = slice(start, end, step)
    expected = np.zeros((BATCH, size), np.float32)
    g = np.random.default_rng(0).normal(size=expected[:, taken].shape).astype(np.float32)
    if not g.size:
        with pytest.raises(UnsupportedOpError, match="'Slice' that takes nothing"):
            gradient_model(forward)
        return
    expected[:, taken] = g
    got = run_ort(gradient_model(forward), {"x": expected, "g": g})["x"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("transform", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
def test_enlarging_is_refused_where_it_does_not_copy_blocks(
    transform: str, nearest: str, factor: int
) -> None:
    attributes = f'coordinate_transformation_mode="{transform}", nearest_mode="{nearest}"'
    forward = model(
        f"(float[N,1,3,4] x) => (float[N,1,3,{4 * factor}] y) {{ y = Resize<{attributes}>(x, , s) }}",
        s=np.array([1.0, 1, 1, factor]),
    )
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    copies = np.array_equal(run_ort(forward, {"x": x})["y"], np.repeat(x, factor, axis=3))
    try:
        gradient = gradient_model(forward)
    except UnsupportedOpError:
        assert not copies or transform == "align_corners"  # whose copies hang on the size
        return
    assert copies
    g = np.arange(12.0 * factor, dtype=np.float32).reshape(1, 1, 3, 4 * factor)
    expected = g.reshape(1, 1, 3, 4, factor).sum(axis=-1)
    np.testing.assert_allclose(run_ort(gradient, {"x": x, "g": g})["x"], expected, rtol=1e-6)


# --- convolutions of any geometry


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, int]:
    """A convolution's geometry and its number of output channels."""
    rank = draw(st.sampled_from([2, 2, 2, 1]))
    each = {"min_size": rank, "max_size": rank}
    kernel = draw(st.lists(st.integers(1, 5), **each))
    stride = (
        [draw(st.integers(1, 3))] * rank if draw(st.booleans()) else draw(st.lists(st.integers(1, 3), **each))
    )
    dilation = draw(st.sampled_from([[1] * rank, [1] * rank, [2] * rank, [1, 2][:rank]]))
    pads = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, rows = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    smallest = [max(1, span - b - e) for span, b, e in zip(spans, pads[:rank], pads[rank:], strict=True)]
    size = [least + draw(st.integers(0, 6)) for least in smallest]
    out = [
        (n + b + e - span) // s + 1
        for n, b, e, span, s in zip(size, pads[:rank], pads[rank:], spans, stride, strict=True)
    ]
    shape = Geometry(
        tuple(kernel),
        tuple(stride),
        tuple(dilation),
        tuple(pads),
        groups,
        per_group * groups,
        tuple(size),
        tuple(out),
    )
    return shape, rows * groups


# The center tap of the last position reads beyond the padded end of a one pixel wide picture.
BEYOND = Geometry((1, 4), (1, 1), (1, 1), (0, 0, 0, 3), 1, 1, (1, 1), (1, 1))


@given(geometries(), st.booleans(), st.integers(0, 2**16))
@example((BEYOND, 1), True, 0)
@example((Geometry((5, 5), (2, 2), (1, 1), (2, 2, 2, 2), 1, 2, (9, 8), (5, 4)), 3), True, 1)
@example((Geometry((7, 5), (3, 3), (1, 1), (3, 0, 2, 1), 1, 2, (10, 9), (3, 2)), 3), True, 2)
@settings(max_examples=100, deadline=None)
def test_input_gradient_of_any_geometry(drawn: tuple[Geometry, int], with_center: bool, seed: int) -> None:
    shape, rows = drawn
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, shape.channels // shape.groups, *shape.kernel)).astype(np.float32)
    center = rng.normal(size=weight.shape[:2]).astype(np.float32)
    g = rng.normal(size=(BATCH, rows, *shape.out_size)).astype(np.float32)

    emit = Emitter(ir.Graph([], [], nodes=[], opset_imports={"": 17}, name="gradient"))
    inputs = [emit.input("g", ir.DataType.FLOAT, ["N", *g.shape[1:]])]
    through = _through(g, center, shape)
    inputs += [emit.input("through", ir.DataType.FLOAT, ["N", *through.shape[1:]])] if with_center else []
    dx = input_gradient(emit, inputs[0], emit.initializer(weight, "w"), shape, *inputs[1:])
    emit.output(dx, "dx", ["N", shape.channels, *shape.in_size])
    proto = ir.to_proto(ir.Model(emit.graph, ir_version=8))
    got = run_ort(proto, {"g": g, "through": through} if with_center else {"g": g})["dx"]

    kernel = weight.astype(np.float64)
    if with_center:
        kernel[(..., *(k // 2 for k in shape.kernel))] += center
    np.testing.assert_allclose(got, _adjoint(g.astype(np.float64), kernel, shape), rtol=1e-4, atol=1e-4)


def _through(g: NDArray, center: NDArray, shape: Geometry) -> NDArray:
    """What a change of the center `(c_out, c_in / groups)` sends back to what the center tap has read."""
    parts = zip(np.split(g, shape.groups, axis=1), np.split(center, shape.groups), strict=True)
    return np.concatenate(
        [np.einsum("no...,oc->nc...", of_group, change) for of_group, change in parts], axis=1
    )


def _adjoint(g: NDArray, kernel: NDArray, shape: Geometry) -> NDArray:
    """dx of a convolution by definition: each output gives to every input that its taps have read."""
    dx = np.zeros((len(g), shape.channels, *shape.in_size))
    rows, columns = len(kernel) // shape.groups, kernel.shape[1]
    for out in np.ndindex(shape.out_size):
        for tap in np.ndindex(shape.kernel):
            place = tuple(
                s * o + d * t - p
                for s, o, d, t, p in zip(shape.stride, out, shape.dilation, tap, shape.pads, strict=False)
            )
            if not all(0 <= at < size for at, size in zip(place, shape.in_size, strict=True)):
                continue
            for group in range(shape.groups):
                of = slice(group * rows, (group + 1) * rows)
                to = slice(group * columns, (group + 1) * columns)
                dx[(slice(None), to, *place)] += g[(slice(None), of, *out)] @ kernel[(of, slice(None), *tap)]
    return dx
