"""Rows of pooling, resizing and reductions."""

from __future__ import annotations

import numpy as np
from gradient_row import Row, of

STRIDE_1 = "returns no indices from MaxPool with stride 1"


def pool(op: str, case: str, size: str, attributes: str, **options: object) -> Row:
    dims = ",".join("?" for _ in size.split(","))
    text = f"(float[N,2,{size}] x) => (float[N,2,{dims}] y) {{ y = {op} <{attributes}> (x) }}"
    return Row(op, case, text, **options)  # type: ignore[arg-type]


ROWS = [
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
            ("image, keepdims", "N,3,4,5 -> N,3,1,1", "axes=[2,3]"),
            ("channels, no keepdims", "N,3,4 -> N,4", "axes=[-2], keepdims=0"),
        )
    ),
    of("GlobalMaxPool", "2-d", "N,3,4,5 -> N,3,1,1", "(x)"),
    *(
        of("Resize", f"{case}", "N,2,3,4 -> N,2,6,12", f"<{attributes}>(x, , s)", s=np.array([1.0, 1, 2, 3]))
        for case, attributes in {
            "asymmetric, floor, as torch's": 'coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
            "default, half pixel": 'mode="nearest"',
            "pytorch half pixel": 'coordinate_transformation_mode="pytorch_half_pixel"',
        }.items()
    ),
    of("Resize", "to given sizes", "2,2,3,4 -> 2,2,6,4", "(x, , , s)", s=np.array([2, 2, 6, 4])),
    *(
        of(
            "Resize",
            f"{mode}, {case}",
            dims,
            f'<mode="{mode}", {attributes}>(x, , {inputs})',
            s=np.array(s),
        )
        for mode in ("linear", "cubic")
        for case, dims, attributes, inputs, s in (
            ("half pixel", "N,2,3,4 -> N,2,6,12", 'nearest_mode="floor"', "s", [1.0, 1, 2, 3]),
            ("to a smaller image", "N,2,7,6 -> N,2,4,4", 'nearest_mode="floor"', "s", [1.0, 1, 0.6, 0.7]),
            (
                "align corners to sizes",
                "2,2,3,4 -> 2,2,5,9",
                'coordinate_transformation_mode="align_corners"',
                ", s",
                [2, 2, 5, 9],
            ),
            (
                "asymmetric, one axis",
                "N,2,4,5 -> N,2,8,5",
                'coordinate_transformation_mode="asymmetric"',
                "s",
                [1.0, 1, 2, 1],
            ),
        )
    ),
    of(
        "Resize",
        "cubic, nothing from outside",
        "N,1,4,5 -> N,1,8,10",
        '<mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1>(x, , s)',
        s=np.array([1.0, 1, 2, 2]),
    ),
    of("Resize", "linear, 1-d", "N,3,5 -> N,3,8", '<mode="linear">(x, , s)', s=np.array([1.0, 1, 1.7])),
    of(
        "Resize",
        "linear, pytorch half pixel to one row",
        "2,2,3,4 -> 2,2,1,6",
        '<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(x, , , s)',
        s=np.array([2, 2, 1, 6]),
    ),
    of("Resize", "nearest by a fraction", "N,2,4,4 -> N,2,6,6", "(x, , s)", s=np.array([1.0, 1, 1.5, 1.5])),
    of(
        "Resize",
        "nearest, not in blocks",
        "N,2,3,4 -> N,2,9,12",
        '<coordinate_transformation_mode="asymmetric">(x, , s)',
        s=np.array([1.0, 1, 3, 3]),
    ),
]
