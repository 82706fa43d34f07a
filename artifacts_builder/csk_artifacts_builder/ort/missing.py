"""Ops that onnxruntime-training 1.19.2 has no gradient for at all, in ops that it has one for.

Each is the same function, with the gradient of docs/gradients.md at its kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import Emitter, attribute, constant_array, static_shape
from csk_artifacts_builder.gradients.arithmetic import is_zero
from csk_artifacts_builder.gradients.reductions import reduced_axes
from csk_artifacts_builder.gradients.resizing import interpolation_matrices
from csk_sdk.errors import UnsupportedOpError

Rewrite = Callable[[Emitter, ir.Node], Sequence[ir.Value | None] | None]


def like(node: ir.Node, value: ir.Value) -> ir.Value:
    """`value` under the shape of the node's output."""
    value.shape, value.dtype = node.outputs[0].shape, ir.DataType.FLOAT
    return value


def between(
    emit: Emitter, node: ir.Node, x: ir.Value, low: ir.Value | None, high: ir.Value | None
) -> ir.Value:
    """`clip(x, low, high)` with gradient 0 at both bounds, where ClipGrad of 1.19.2 has 1.

    So bounds that are constants are moved inwards by one float32, and from 0 on a Relu does it: a step of a network of
    ReLU6 took as long as without. With `where`, as for other bounds, it took 1.7 times as long.
    """
    bounds = [(low, constant_array(low), np.inf), (high, constant_array(high), -np.inf)]
    if any(value is not None and array is None for value, array, _ in bounds):
        for bound, beyond in ((low, "LessOrEqual"), (high, "GreaterOrEqual")):
            if bound is not None:
                x = like(node, emit.op("Where", emit.op(beyond, x, bound), bound, x))
        return x
    if is_zero(low):
        x, bounds = like(node, emit.op("Relu", x)), [(None, None, np.inf), bounds[1]]
    inner = [
        emit.scalar(float(np.nextafter(np.float32(array.item()), np.float32(inwards))))
        if array is not None and np.isfinite(array)
        else None
        for _, array, inwards in bounds
    ]
    return like(node, emit.op("Clip", x, *inner)) if any(bound is not None for bound in inner) else x


def hard_sigmoid(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`clip(alpha x + beta, 0, 1)`"""
    return [_ramp(emit, node, float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5)))]


def hard_swish(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`x clip(x / 6 + 1 / 2, 0, 1)`"""
    return [like(node, emit.op("Mul", _x(node), _ramp(emit, node, 1 / 6, 0.5)))]


def _ramp(emit: Emitter, node: ir.Node, slope: float, offset: float) -> ir.Value:
    line = emit.op("Add", emit.op("Mul", _x(node), emit.scalar(slope)), emit.scalar(offset))
    return between(emit, node, like(node, line), emit.scalar(0.0), emit.scalar(1.0))


def prelu(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`where(x > 0, x, slope x)`"""
    x = _x(node)
    bent = like(node, emit.op("Mul", x, node.inputs[1]))
    return [like(node, emit.op("Where", emit.op("Greater", x, emit.scalar(0.0)), x, bent))]


def elu(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`where(x > 0, x, alpha (e^x - 1))`"""
    return [_exponential_below_zero(emit, node, 1.0, float(attribute(node, "alpha", 1.0)), 1.0)]


def selu(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`gamma where(x > 0, x, alpha (e^x - 1))`"""
    alpha = float(attribute(node, "alpha", 1.6732632423543772))
    gamma = float(attribute(node, "gamma", 1.0507009873554805))
    return [_exponential_below_zero(emit, node, gamma, gamma * alpha, 1.0)]


def celu(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`where(x > 0, x, alpha (e^(x / alpha) - 1))`"""
    alpha = float(attribute(node, "alpha", 1.0))
    return [_exponential_below_zero(emit, node, 1.0, alpha, 1.0 / alpha)]


def _exponential_below_zero(
    emit: Emitter, node: ir.Node, above: float, factor: float, rate: float
) -> ir.Value:
    """`where(x > 0, above x, factor (e^(rate x) - 1))`; e^0 where x > 0, which could be infinite."""
    x = _x(node)
    positive = emit.op("Greater", x, emit.scalar(0.0))
    low = like(node, emit.op("Where", positive, emit.scalar(0.0), x))
    bent = emit.op("Sub", emit.op("Exp", emit.op("Mul", low, emit.scalar(rate))), emit.scalar(1.0))
    scaled = like(node, emit.op("Mul", bent, emit.scalar(factor)))
    straight = like(node, emit.op("Mul", x, emit.scalar(above)))
    return like(node, emit.op("Where", positive, straight, scaled))


def softplus(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`max(x, 0) + log(1 + e^-|x|)`; at 0 the package's Max has the gradient 1 / 2, which is right here."""
    x = _x(node)
    small = emit.op("Exp", emit.op("Neg", emit.op("Abs", x)))
    above = like(node, emit.op("Max", x, emit.scalar(0.0)))
    return [like(node, emit.op("Add", above, emit.op("Log", emit.op("Add", small, emit.scalar(1.0)))))]


def softsign(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`x / (1 + |x|)`"""
    x = _x(node)
    return [like(node, emit.op("Div", x, emit.op("Add", emit.op("Abs", x), emit.scalar(1.0))))]


def variadic_sum(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`x1 + x2 + ...`"""
    total, *rest = node.inputs
    assert total is not None
    for x in rest:
        total = emit.op("Add", total, x)
    return [like(node, total if rest else emit.op("Identity", total))]


def reduce_l1(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`sum |x|`"""
    return [_sum(emit, node, emit.op("Abs", _x(node)))]


def reduce_sum_square(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`sum x^2`"""
    return [_sum(emit, node, emit.op("Mul", _x(node), _x(node)))]


def reduce_extremum(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`sum (x / count where x is the extremum, else 0)`, count its places: the gradient is shared equally."""
    if node.op_type == "GlobalMaxPool":
        axes, reduce = list(range(2, len(static_shape(_x(node))))), "ReduceMax"
    else:
        axes, reduce = reduced_axes(node), node.op_type
    x = _x(node)
    extremum = emit.op(reduce, x, axes=axes, keepdims=1)
    places = emit.op("Equal", x, extremum)
    ones = emit.op("Cast", places, to=ir.DataType.FLOAT)
    count = emit.op("ReduceSum", ones, emit.ints(*axes), keepdims=1)
    kept = emit.op("Where", places, x, emit.scalar(0.0))
    kept.shape, kept.dtype = x.shape, ir.DataType.FLOAT
    return [_sum(emit, node, emit.op("Div", kept, count), axes)]


def _sum(emit: Emitter, node: ir.Node, value: ir.Value, axes: Sequence[int] | None = None) -> ir.Value:
    axes = reduced_axes(node) if axes is None else axes
    value.shape, value.dtype = _x(node).shape, ir.DataType.FLOAT
    if not axes:
        return like(node, emit.op("Identity", value))
    keep = int(attribute(node, "keepdims", 1))
    return like(node, emit.op("ReduceSum", value, emit.ints(*axes), keepdims=keep))


def instance_normalization(emit: Emitter, node: ir.Node) -> list[ir.Value]:
    """`scale (x - mean) / sqrt(variance + epsilon) + bias`, both over the image"""
    x, *rest = node.inputs
    rank = len(static_shape(_x(node)))
    axes = list(range(2, rank))
    centered = like(node, emit.op("Sub", x, emit.op("ReduceMean", x, axes=axes, keepdims=1)))
    variance = emit.op("ReduceMean", emit.op("Mul", centered, centered), axes=axes, keepdims=1)
    epsilon = emit.scalar(float(attribute(node, "epsilon", 1e-5)))
    normal = like(node, emit.op("Div", centered, emit.op("Sqrt", emit.op("Add", variance, epsilon))))
    scale, bias = (emit.op("Unsqueeze", value, emit.ints(*range(1, rank - 1))) for value in rest)
    return [like(node, emit.op("Add", like(node, emit.op("Mul", normal, scale)), bias))]


def depth_to_space(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """A transposition of blocks."""
    block = int(attribute(node, "blocksize"))
    channels, height, width = static_shape(_x(node))[1:]
    if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        return None
    deep = channels // block**2
    if attribute(node, "mode", "DCR") == "DCR":
        apart, order = (block, block, deep, height, width), [0, 3, 4, 1, 5, 2]
    else:
        apart, order = (deep, block, block, height, width), [0, 1, 4, 2, 5, 3]
    return [_moved(emit, node, apart, order, (deep, height * block, width * block))]


def space_to_depth(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """The same the other way."""
    block = int(attribute(node, "blocksize"))
    channels, height, width = static_shape(_x(node))[1:]
    if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        return None
    high, wide = height // block, width // block
    apart, order = (channels, high, block, wide, block), [0, 3, 5, 1, 2, 4]
    return [_moved(emit, node, apart, order, (channels * block**2, high, wide))]


def _moved(
    emit: Emitter, node: ir.Node, apart: Sequence[int], order: Sequence[int], together: Sequence[int]
) -> ir.Value:
    blocks = emit.op("Reshape", _x(node), emit.ints(-1, *apart))
    return like(node, emit.op("Reshape", emit.op("Transpose", blocks, perm=order), emit.ints(-1, *together)))


def transposed_convolution(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """A convolution of the input, with zeros put between its elements, by the kernel turned round."""
    kernel = constant_array(node.inputs[1])
    if (
        kernel is None
        or "output_shape" in node.attributes
        or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
    ):
        return None
    sizes, outs = static_shape(_x(node))[2:], static_shape(node.outputs[0])[2:]
    if not all(isinstance(size, int) for size in (*sizes, *outs)):
        return None
    rank, groups = len(sizes), int(attribute(node, "group", 1))
    strides = attribute(node, "strides", [1] * rank)
    dilations, pads = attribute(node, "dilations", [1] * rank), attribute(node, "pads", [0] * 2 * rank)
    begins, ends, first = [], [], []
    for axis, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        reach = dilations[axis] * (kernel.shape[2 + axis] - 1)
        begin = reach - pads[axis]
        end = int(out) + reach - int(size) * strides[axis] - begin
        begins.append(max(begin, 0))
        ends.append(max(end, 0))
        first.append(max(-begin, 0))
    turned = emit.constant(_turned(kernel, groups), np.float32, "turned")
    apart = _spread(emit, _x(node), [int(size) for size in sizes], strides)
    y = emit.op(
        "Conv", apart, turned, *node.inputs[2:], dilations=dilations, group=groups, pads=[*begins, *ends],
        kernel_shape=list(kernel.shape[2:]),
    )  # fmt: skip
    last = [start + int(out) for start, out in zip(first, outs, strict=True)]
    axes = emit.ints(*range(2, 2 + rank))
    return [like(node, emit.op("Slice", y, emit.ints(*first), emit.ints(*last), axes))]


def _turned(kernel: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """From `(c_in, c_out / groups, ...)` to `(c_out, c_in / groups, ...)`, each axis of the kernel backwards."""
    c_in, per_group, *size = kernel.shape
    parts = kernel.reshape(groups, c_in // groups, per_group, *size).swapaxes(1, 2)
    return np.flip(parts.reshape(groups * per_group, c_in // groups, *size), tuple(range(2, kernel.ndim)))


def _spread(emit: Emitter, x: ir.Value, sizes: Sequence[int], strides: Sequence[int]) -> ir.Value:
    """Each element followed by `stride - 1` zeros along its axis."""
    if all(stride == 1 for stride in strides):
        return x
    channels = int(static_shape(x)[1])
    alone = emit.op("Reshape", x, emit.ints(-1, channels, *(d for size in sizes for d in (size, 1))))
    behind = [0, 0, *(d for stride in strides for d in (0, stride - 1))]
    padded = emit.op("Pad", alone, emit.ints(*[0] * len(behind), *behind))
    wide = (size * stride for size, stride in zip(sizes, strides, strict=True))
    return emit.op("Reshape", padded, emit.ints(-1, channels, *wide))


def resize(emit: Emitter, node: ir.Node) -> list[ir.Value] | None:
    """`M_h x M_w^T` with the constant matrices of the portable rule."""
    try:
        *rows, columns = interpolation_matrices(node)
    except UnsupportedOpError:
        return None
    y = emit.op("MatMul", _x(node), emit.constant(columns.T, np.float32, "interpolation"))
    if rows:
        y = emit.op("MatMul", emit.constant(rows[0], np.float32, "interpolation"), y)
    return [like(node, y)]


def _x(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    return x


MISSING: dict[str, Rewrite] = {
    "Celu": celu,
    "ConvTranspose": transposed_convolution,
    "DepthToSpace": depth_to_space,
    "Elu": elu,
    "GlobalMaxPool": reduce_extremum,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "InstanceNormalization": instance_normalization,
    "PRelu": prelu,
    "ReduceL1": reduce_l1,
    "ReduceMax": reduce_extremum,
    "ReduceMin": reduce_extremum,
    "ReduceSumSquare": reduce_sum_square,
    "Resize": resize,
    "Selu": selu,
    "Softplus": softplus,
    "Softsign": softsign,
    "SpaceToDepth": space_to_depth,
    "Sum": variadic_sum,
}
