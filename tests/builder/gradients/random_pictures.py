"""Random rows of convolutions, pools, reductions, products and normalizations."""

from __future__ import annotations

from functools import partial

from gradient_row import BATCH, Row
from hypothesis import strategies as st
from random_row import Draw, Shapes, batch, ints, picture, row, sizes, written


def window(draw: Draw, rank: int, kernel: tuple[int, ...]) -> dict[str, list[int]]:
    return {
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "pads": [draw(st.integers(0, (k - 1) // 2)) for k in (*kernel, *kernel)],
    }


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


SHAPES: Shapes = {
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
}
