"""A rule's graph on ONNX Runtime against central differences of the forward graph in float64 on onnx.reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime as ort
from gradient_row import BATCH, Row
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_text import Erf, Pad, in_float64, model

from csk_artifacts_builder.emit import Emitter
from csk_artifacts_builder.gradients import differentiate
from csk_artifacts_builder.sites import Geometry

Arrays = dict[str, NDArray]

STEP = 1e-5


def check(row: Row, may_be_zero: bool = False) -> None:
    """Assert that the rule of the row's op agrees with central differences."""
    rng = np.random.default_rng(sum(map(ord, str(row))))
    forward = model(row.text, **{name: tensor(rng, spec) for name, spec in row.tensors.items()})
    names = [value.name for value in forward.graph.input]
    feeds = {value.name: smooth(rng, dims_of(value), row) for value in forward.graph.input}
    oracle = ReferenceEvaluator(in_float64(forward), new_ops=[Erf, ConvTranspose, Pad])

    def loss(arrays: Arrays) -> float:
        return float(np.sum(oracle.run(None, arrays)[0] * g))

    feeds64 = {name: array.astype(np.float64) for name, array in feeds.items()}
    g = rng.normal(size=oracle.run(None, feeds64)[0].shape).astype(np.float32)
    expected = {name: central_differences(loss, feeds64, name) for name in names}

    gradient = gradient_model(forward)
    agree(run_ort(gradient, feeds | {"g": g}), expected, may_be_zero)
    if not row.reference_fault:
        computed = ReferenceEvaluator(gradient, new_ops=[Pad]).run(None, feeds | {"g": g})
        agree(dict(zip(names, computed, strict=True)), expected, may_be_zero)


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


def agree(got: Arrays, expected: Arrays, may_be_zero: bool) -> None:
    for name, oracle in expected.items():
        gradient = got[name].astype(np.float64)
        assert gradient.shape == oracle.shape, name
        norm = np.linalg.norm(oracle)
        if may_be_zero and norm < 1e-8:
            np.testing.assert_array_equal(gradient, 0, name)
            continue
        assert norm > 1e-3, "a row whose gradient is zero proves nothing"
        assert np.sum(gradient * oracle) / (np.linalg.norm(gradient) * norm) >= 0.99999, name
        assert np.linalg.norm(gradient - oracle) / norm <= 1e-4, name


def dims_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value or BATCH for dim in value.type.tensor_type.shape.dim)


def tensor(rng: np.random.Generator, spec: tuple[int, ...] | NDArray) -> NDArray:
    return rng.normal(size=spec) if isinstance(spec, tuple) else spec


def smooth(rng: np.random.Generator, dims: tuple[int, ...], row: Row) -> NDArray[np.float32]:
    """Random values, all different (so that every maximum is clear), and away from the kinks."""
    count = int(np.prod(dims))
    values = rng.permutation(np.linspace(row.low, row.high, count + 2)[1:-1]).reshape(dims)
    for kink in row.away:
        near = np.abs(values - kink) < 0.01
        values = np.where(near, values + 0.02, values)
    return values.astype(np.float32)


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
        return (adjoint(x, w, shape) + b.reshape(-1, *ones),)


def adjoint(g: NDArray, kernel: NDArray, shape: Geometry) -> NDArray:
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
