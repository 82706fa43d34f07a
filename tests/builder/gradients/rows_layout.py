"""Rows of ops that move, take, repeat or join elements."""

from __future__ import annotations

import numpy as np
from gradient_row import BATCH, Row, of


def sliced(case: str, dims: str, *places: list[int]) -> Row:
    """`places` are starts, ends, and perhaps axes and steps."""
    tensors = dict(zip(("starts", "ends", "axes", "steps"), map(np.array, places), strict=False))
    return of("Slice", case, dims, f"({', '.join(['x', *tensors])})", **tensors)


ROWS = [
    of("Reshape", "to a matrix", "N,3,4 -> N,12", "(x, s)", s=np.array([-1, 12])),
    of("Reshape", "with 0 and -1", "N,3,4,5 -> N,3,20", "(x, s)", s=np.array([0, 0, -1])),
    of("Reshape", "batch folded into channels", "N,3,4 -> M,4", "(x, s)", s=np.array([-1, 4])),
    of("Flatten", "default axis", "N,3,4 -> N,12", "(x)"),
    of("Flatten", "axis 2", "N,3,4 -> M,4", "<axis=2>(x)"),
    of("Squeeze", "axes", "N,3,1,1 -> N,3", "(x, a)", a=np.array([2, -1])),
    of("Squeeze", "no axes", "3,1,4 -> 3,4", "(x)"),
    of("Unsqueeze", "axes", "N,3 -> N,3,1,1", "(x, a)", a=np.array([2, 3])),
    of("Unsqueeze", "negative and first axis", "N,3 -> 1,N,3,1", "(x, a)", a=np.array([-1, 0])),
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
    of("Pad", "that cuts", "N,2,3,4 -> N,2,2,2", "(x, p)", p=np.array([0, 0, -1, -1, 0, 0, 0, -1])),
    of(
        "Pad",
        "that cuts and adds",
        "N,2,3,4 -> N,1,3,5",
        "(x, p, v)",
        p=np.array([0, -1, -1, 2, 0, 0, 1, -1]),
        v=np.array(0.3),
    ),
    of("Pad", "by nothing", "N,2,3 -> N,2,3", "(x, p)", p=np.zeros(6, int)),
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
]
