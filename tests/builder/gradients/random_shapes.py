"""For every op with a rule, rows of random shapes and attributes.

Each function draws one row; the table `SHAPES` has one for every op, and a test fails if it has not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from gradient_row import BATCH, Row
from hypothesis import strategies as st
from onnx_text import initializer

Draw = st.DrawFn


def row(
    op: str, inputs: Sequence[tuple[int, ...]], call: str, tensors: dict[str, Any], **options: Any
) -> Row:
    """`inputs` are the shapes of `x`, `x2`, ...; what a shape's first dimension says is the batch, where it is 0."""
    typed = ", ".join(
        f"float[{','.join(str(size or 'N') for size in shape)}] {name}"
        for shape, name in zip(inputs, ("x", "x2", "x3"), strict=False)
    )
    attributes, _, names = call.partition("(")
    text = f"({typed}) => (float[] y) {{ y = {op} {attributes}({names} }}"
    return Row(
        op, "random", text, {name: value for name, value in tensors.items() if value is not None}, **options
    )


def finished(drawn: Row) -> Row:
    """The row with the shape of `y` written out, as onnx infers it."""
    tensors = {
        name: np.zeros(spec) if isinstance(spec, tuple) else spec for name, spec in drawn.tensors.items()
    }
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {drawn.text}')
    proto.graph.initializer.extend(initializer(name, array) for name, array in tensors.items())
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    (y,) = inferred.graph.output
    dims = ",".join(str(dim.dim_value or dim.dim_param or "?") for dim in y.type.tensor_type.shape.dim)
    return replace(drawn, text=drawn.text.replace("float[] y", f"float[{dims}] y" if dims else "float y"))


def sizes(draw: Draw, least: int, most: int, largest: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, largest), min_size=least, max_size=most)))


def batch(draw: Draw, least: int = 1, most: int = 3) -> tuple[int, ...]:
    return (0, *sizes(draw, least, most))


def known(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size or BATCH for size in shape)


def ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int64)


# --- elementwise


def unary(op: str, draw: Draw, away: tuple[float, ...] = (), low: float = -2.0, high: float = 2.3) -> Row:
    return row(op, [batch(draw)], "(x)", {}, away=away, low=low, high=high)


def sloped(op: str, draw: Draw, **attributes: tuple[float, float]) -> Row:
    chosen = {
        name: draw(st.floats(*bounds).map(lambda v: round(v, 2))) for name, bounds in attributes.items()
    }
    kinks = (0.0,)
    if op == "HardSigmoid":
        alpha, beta = chosen["alpha"], chosen["beta"]
        kinks = (-beta / alpha, (1 - beta) / alpha)
    written = ", ".join(f"{name}={value}" for name, value in chosen.items())
    return row(op, [batch(draw)], f"<{written}>(x)", {}, away=kinks)


def clip(draw: Draw) -> Row:
    low, high = round(draw(st.floats(-1.5, 0.0)), 2), round(draw(st.floats(0.5, 1.5)), 2)
    return row(
        "Clip", [batch(draw)], "(x, a, b)", {"a": np.array(low), "b": np.array(high)}, away=(low, high)
    )


def prelu(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    slope = tuple(size if draw(st.booleans()) else 1 for size in shape[1:])
    return row("PRelu", [shape], "(x, s)", {"s": slope}, away=(0.0,))


def broadcast(draw: Draw) -> list[tuple[int, ...]]:
    """Two shapes that broadcast, one of them perhaps shorter."""
    full = known(batch(draw, 1, 3))
    shapes = [tuple(size if draw(st.booleans()) else 1 for size in full) for _ in range(2)]
    cut = draw(st.integers(0, len(full) - 1))
    shapes[1] = shapes[1][cut:]
    return shapes if draw(st.booleans()) else shapes[::-1]


def binary(op: str, draw: Draw, low: float = -2.0) -> Row:
    return row(op, broadcast(draw), "(x, x2)", {}, low=low)


def extremum(op: str, draw: Draw) -> Row:
    shapes = broadcast(draw)
    typed = ", ".join(
        f"float[{','.join(map(str, one))}] {name}" for one, name in zip(shapes, ("x", "x2"), strict=True)
    )
    # Both inputs hold the same values: one is moved by less than their distance.
    text = f"({typed}) => (float[] y) {{ s = Add(x2, shift) \n y = {op}(x, s) }}"
    return Row(op, "random", text, {"shift": np.array(0.0037)})


def power(draw: Draw) -> Row:
    exponent = draw(st.sampled_from([0.5, 1.5, 2.0, 3.0, -1.0]))
    return row("Pow", [batch(draw)], "(x, p)", {"p": np.array(exponent)}, low=0.4)


def where(draw: Draw) -> Row:
    shapes = broadcast(draw)
    mask = np.broadcast_shapes(*shapes)
    typed = ", ".join(
        f"float[{','.join(map(str, one))}] {name}" for one, name in zip(shapes, ("x", "x2"), strict=True)
    )
    # At least one element from either side, where there are two.
    condition = np.arange(int(np.prod(mask))).reshape(mask) % 2 - 0.5
    text = f"({typed}) => (float[] y) {{ m = Greater(c, z) \n a = Where(m, x, x2) \n b = Where(m, x2, x) \n"
    text += "h = Mul(b, half) \n y = Add(a, h) }"
    return Row("Where", "random", text, {"c": condition, "z": np.array(0.0), "half": np.array(0.3)})


def softmax(op: str, draw: Draw) -> Row:
    shape = (0, *sizes(draw, 1, 3, 3), 3)
    axis = draw(st.sampled_from([-1, len(shape) - 1]))
    return row(op, [shape], f"<axis={axis}>(x)", {})


def summed(draw: Draw) -> Row:
    a, b = broadcast(draw)
    return row("Sum", [a, b], "(x, x2, c)", {"c": known(b)})


# --- convolutions and pools


def picture(draw: Draw, rank: int, least: int = 1, most: int = 7) -> tuple[int, ...]:
    return tuple(draw(st.integers(least, most)) for _ in range(rank))


def window(draw: Draw, rank: int, kernel: tuple[int, ...]) -> dict[str, list[int]]:
    return {
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "pads": [draw(st.integers(0, (k - 1) // 2)) for k in (*kernel, *kernel)],
    }


def written(attributes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}".replace(" ", "") for name, value in attributes.items())


def convolution(draw: Draw) -> Row:
    rank = draw(st.integers(1, 2))
    kernel = picture(draw, rank, 1, 3)
    groups, rows, columns = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    attributes = window(draw, rank, kernel) | {"group": groups}
    size = tuple(k + draw(st.integers(0, 3)) for k in kernel)
    weight = (rows * groups, columns, *kernel)
    # onnx.reference slices a grouped ConvTranspose, which some gradients are, by output channels.
    fault = "grouped ConvTranspose" if groups > 1 else ""
    shape = (0, columns * groups, *size)
    return row("Conv", [shape], f"<{written(attributes)}>(x, w)", {"w": weight}, reference_fault=fault)


def transposed(draw: Draw) -> Row:
    rank = draw(st.integers(1, 2))
    kernel = picture(draw, rank, 1, 3)
    attributes = window(draw, rank, kernel)
    size = tuple(draw(st.integers(2, 3)) for _ in kernel)
    c_in, c_out = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    weights = {"w": (c_in, c_out, *kernel), "b": (c_out,)}
    return row("ConvTranspose", [(0, c_in, *size)], f"<{written(attributes)}>(x, w, b)", weights)


def average_pool(draw: Draw) -> Row:
    kernel = picture(draw, draw(st.integers(1, 2)), 1, 3)
    attributes = {"kernel_shape": list(kernel), **window(draw, len(kernel), kernel)}
    attributes["count_include_pad"] = draw(st.integers(0, 1))
    size = tuple(k + draw(st.integers(0, 3)) for k in kernel)
    return row("AveragePool", [(0, 2, *size)], f"<{written(attributes)}>(x)", {})


def max_pool(draw: Draw) -> Row:
    """Square windows: onnx.reference (1.23) fails on many others."""
    k, s = draw(st.integers(2, 3)), draw(st.integers(1, 3))
    p = draw(st.integers(0, k // 2))
    attributes = {"kernel_shape": [k, k], "strides": [s, s], "pads": [p] * 4}
    size = tuple(k + draw(st.integers(0, 3)) for _ in range(2))
    fault = "returns no indices from MaxPool with stride 1" if s == 1 else ""
    return row("MaxPool", [(0, 2, *size)], f"<{written(attributes)}>(x)", {}, reference_fault=fault)


def global_pool(op: str, draw: Draw) -> Row:
    # onnx.reference's 1-d GlobalMaxPool (1.23) loses an axis.
    least = 1 if op == "GlobalAveragePool" else 2
    return row(op, [(0, 2, *sizes(draw, least, 2, 5))], "(x)", {})


def resized(draw: Draw) -> Row:
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    transform = draw(st.sampled_from(["half_pixel", "align_corners", "asymmetric"]))
    rank = 2 if mode == "cubic" else draw(st.integers(1, 2))
    out = picture(draw, rank, 2)
    call = f'<mode="{mode}", coordinate_transformation_mode="{transform}">(x, , , s)'
    return row("Resize", [(BATCH, 1, *picture(draw, rank, 2, 5))], call, {"s": ints([BATCH, 1, *out])})


# --- reductions and products


def reduced(op: str, draw: Draw, axes_are_input: bool = False) -> Row:
    shape = batch(draw, 2, 3)
    axes = draw(st.lists(st.integers(1, len(shape) - 1), min_size=1, max_size=len(shape) - 1, unique=True))
    axes = [axis - len(shape) * draw(st.integers(0, 1)) for axis in axes]
    keep = draw(st.integers(0, 1))
    if axes_are_input:
        return row(op, [shape], f"<keepdims={keep}>(x, a)", {"a": ints(axes)})
    return row(op, [shape], f"<keepdims={keep}, {written({'axes': axes})}>(x)", {})


def gemm(draw: Draw) -> Row:
    m, k, n = sizes(draw, 3, 3)
    turned = [draw(st.integers(0, 1)) for _ in range(2)]
    a, b = (m, k)[:: 1 - 2 * turned[0]], (k, n)[:: 1 - 2 * turned[1]]
    call = f"<transA={turned[0]}, transB={turned[1]}, alpha=0.7, beta=1.3>(x, x2, x3)"
    return row("Gemm", [a, b, (n,)], call, {})


def matmul(draw: Draw) -> Row:
    m, k, n = sizes(draw, 3, 3)
    stack = sizes(draw, 0, 2, 3)
    a, b = (tuple(size if draw(st.booleans()) else 1 for size in stack) for _ in range(2))
    return row("MatMul", [(*a, m, k), (*b[draw(st.integers(0, len(b))) :], k, n)], "(x, x2)", {})


def instance_norm(draw: Draw) -> Row:
    channels = draw(st.integers(1, 3))
    shape = (0, channels, *(draw(st.integers(2, 4)) for _ in range(draw(st.integers(1, 2)))))
    return row(
        "InstanceNormalization", [shape], "<epsilon=0.01>(x, s, b)", {"s": (channels,), "b": (channels,)}
    )


def layer_norm(draw: Draw) -> Row:
    shape = (*batch(draw, 1, 2), 3)
    axis = draw(st.integers(1, len(shape) - 1))
    return row(
        "LayerNormalization", [shape], f"<axis={axis}>(x, s, b)", {"s": shape[axis:], "b": shape[axis:]}
    )


# --- layout


def reshaped(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    target = draw(st.permutations(shape[1:]))
    cut = draw(st.integers(0, len(target) - 1))
    merged = [*target[:cut], int(np.prod(target[cut:]))]
    return row("Reshape", [shape], "(x, s)", {"s": ints([-1, *merged])})


def flattened(draw: Draw) -> Row:
    shape = batch(draw, 2, 3)
    return row("Flatten", [shape], f"<axis={draw(st.integers(1, len(shape) - 1))}>(x)", {})


def squeezed(draw: Draw) -> Row:
    shape, axes = [0], []
    for size in sizes(draw, 1, 3):
        if not axes or draw(st.booleans()):
            axes.append(len(shape))
            shape.append(1)
        shape.append(size)
    return row("Squeeze", [tuple(shape)], "(x, a)", {"a": ints(axes)})


def unsqueezed(draw: Draw) -> Row:
    shape = batch(draw, 1, 2)
    most = len(shape)
    axes = draw(
        st.lists(st.integers(-most, most), min_size=1, max_size=2, unique_by=lambda a: a % (most + 1))
    )
    axes = axes if len({axis % (most + len(axes)) for axis in axes}) == len(axes) else axes[:1]
    return row("Unsqueeze", [shape], "(x, a)", {"a": ints(axes)})


def transpose(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    return row(
        "Transpose", [shape], f"<{written({'perm': draw(st.permutations(range(len(shape))))})}>(x)", {}
    )


def concat(draw: Draw) -> Row:
    shape = list(batch(draw, 1, 3))
    axis = draw(st.integers(1, len(shape) - 1))
    other = [*shape]
    other[axis] = draw(st.integers(1, 4))
    counted = axis - len(shape) * draw(st.integers(0, 1))
    return row("Concat", [tuple(shape), tuple(other)], f"<axis={counted}>(x2, x, x2)", {})


def padded(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    each = [draw(st.integers(0, 2)) for _ in range(2 * len(shape))]
    each[0] = each[len(shape)] = 0
    return row("Pad", [shape], "(x, p, v)", {"p": ints(each), "v": np.array(0.5)})


def split(draw: Draw) -> Row:
    parts = list(sizes(draw, 2, 2))
    behind = sizes(draw, 0, 2)
    typed = ",".join(map(str, ("N", sum(parts), *behind)))
    used = draw(st.sampled_from(["y, b", "b, y"]))
    text = f"(float[{typed}] x) => (float[] y) {{ {used} = Split<axis=1>(x, s) }}"
    return Row("Split", "random", text, {"s": ints(parts)})


def sliced(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    axis = draw(st.integers(1, len(shape) - 1))
    start = draw(st.integers(0, shape[axis] - 1))
    end, step = draw(st.integers(start + 1, shape[axis] + 2)), draw(st.integers(1, 2))
    if draw(st.booleans()):
        start, end, step = shape[axis] - 1, -(2**62), -step
    return row(
        "Slice",
        [shape],
        "(x, b, e, a, s)",
        {k: ints([v]) for k, v in zip("beas", (start, end, axis, step), strict=True)},
    )


def gathered(draw: Draw) -> Row:
    shape = batch(draw, 1, 3)
    axis = draw(st.integers(1, len(shape) - 1))
    count = draw(st.integers(1, 4))
    indices = [draw(st.integers(-shape[axis], shape[axis] - 1)) for _ in range(count)]
    chosen = np.int64(indices[0]) if draw(st.booleans()) else ints(indices)
    return row("Gather", [shape], f"<axis={axis}>(x, i)", {"i": np.asarray(chosen)})


def expanded(draw: Draw) -> Row:
    wide = sizes(draw, 1, 3)
    narrow = tuple(size if draw(st.booleans()) else 1 for size in wide)
    return row("Expand", [narrow[draw(st.integers(0, len(narrow) - 1)) :]], "(x, s)", {"s": ints(wide)})


def tiled(draw: Draw) -> Row:
    shape = batch(draw, 1, 2)
    return row("Tile", [shape], "(x, r)", {"r": ints([1, *(draw(st.integers(1, 3)) for _ in shape[1:])])})


def blocks(op: str, draw: Draw) -> Row:
    block, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    height, width = picture(draw, 2, 1, 2)
    if op == "SpaceToDepth":
        return row(op, [(0, channels, height * block, width * block)], f"<blocksize={block}>(x)", {})
    mode = draw(st.sampled_from(["DCR", "CRD"]))
    return row(op, [(0, channels * block**2, height, width)], f'<blocksize={block}, mode="{mode}">(x)', {})


SHAPES: dict[str, Callable[[Draw], Row]] = {
    **{
        op: partial(unary, op)
        for op in ("Sigmoid", "Tanh", "Softplus", "Erf", "Exp", "Neg", "Identity", "Dropout")
    },
    **{op: partial(unary, op, away=(0.0,)) for op in ("Relu", "Abs", "Softsign")},
    **{op: partial(unary, op, low=0.4) for op in ("Log", "Sqrt", "Reciprocal")},
    "HardSwish": partial(unary, "HardSwish", away=(-3.0, 3.0), low=-5, high=5),
    "LeakyRelu": partial(sloped, "LeakyRelu", alpha=(0.01, 0.5)),
    "Elu": partial(sloped, "Elu", alpha=(0.3, 1.5)),
    "Celu": partial(sloped, "Celu", alpha=(0.3, 1.5)),
    "Selu": partial(sloped, "Selu", alpha=(0.5, 1.7), gamma=(0.5, 1.2)),
    "HardSigmoid": partial(sloped, "HardSigmoid", alpha=(0.15, 0.3), beta=(0.3, 0.6)),
    "Clip": clip,
    "PRelu": prelu,
    **{op: partial(binary, op) for op in ("Add", "Sub", "Mul")},
    "Div": partial(binary, "Div", low=0.5),
    **{op: partial(extremum, op) for op in ("Max", "Min")},
    "Pow": power,
    "Where": where,
    "Sum": summed,
    **{op: partial(softmax, op) for op in ("Softmax", "LogSoftmax")},
    "Conv": convolution,
    "ConvTranspose": transposed,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    **{op: partial(global_pool, op) for op in ("GlobalAveragePool", "GlobalMaxPool")},
    "Resize": resized,
    **{
        op: partial(reduced, op)
        for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
    },
    "ReduceSum": partial(reduced, "ReduceSum", axes_are_input=True),
    "Gemm": gemm,
    "MatMul": matmul,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "Reshape": reshaped,
    "Flatten": flattened,
    "Squeeze": squeezed,
    "Unsqueeze": unsqueezed,
    "Transpose": transpose,
    "Concat": concat,
    "Pad": padded,
    "Split": split,
    "Slice": sliced,
    "Gather": gathered,
    "Expand": expanded,
    "Tile": tiled,
    **{op: partial(blocks, op) for op in ("DepthToSpace", "SpaceToDepth")},
}
