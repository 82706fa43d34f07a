"""Pools that ONNX Runtime releases compute differently as they are, and what a pool is by definition."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx_text import model

CHANNELS = 3


@dataclass(frozen=True)
class PoolRow:
    """A convolution, perhaps its Relu, perhaps a Pad, and a pool: `size` is the image's, `pool` the attributes."""

    name: str
    op: str
    size: tuple[int, ...]
    pool: dict[str, Any]
    pads: tuple[int, ...] = ()
    relu: bool = False
    opset: int = 17
    tensors: dict[str, NDArray] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def proto(self) -> onnx.ModelProto:
        """`x` -> Conv -> [Relu] -> [Pad] -> pool -> mean -> `y` `(N, 3)`: logits."""
        rank = len(self.size)
        rng = np.random.default_rng(len(self.name))
        nodes = [f"[first] c = Conv<pads={[1] * 2 * rank}>(x, w, b)"]
        # Less than 0 on average: what a zero of the padding changes is seen.
        tensors = {
            "w": rng.normal(0, 0.4, (CHANNELS, 2, *[3] * rank)),
            "b": np.full(CHANNELS, -1.0),
            "h": rng.normal(0, 0.8, (3, CHANNELS)),
            "hb": rng.normal(0, 0.3, 3),
        }
        read = "c"
        for op, wanted in (("Relu", self.relu), ("Pad", bool(self.pads))):
            if wanted:
                nodes.append(f"{op.lower()} = {op}({read}{', around' if op == 'Pad' else ''})")
                read = op.lower()
        if self.pads:
            tensors["around"] = np.array([0, 0, *self.pads[:rank], 0, 0, *self.pads[rank:]])
        attributes = ", ".join(
            f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"
            for name, value in self.pool.items()
        )
        nodes += [
            f"[pool] p = {self.op}<{attributes}>({read})",
            "m = GlobalAveragePool(p)",
            "f = Flatten(m)",
            "[head] y = Gemm<transB=1>(f, h, hb)",
        ]
        text = f"(float[N,2,{','.join(map(str, self.size))}] x) => (float[N,3] y) {{ {' '.join(nodes)} }}"
        return model(text, self.opset, **tensors)

    def expected(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logits in float64, by loops."""
        tensors = {one.name: onnx.numpy_helper.to_array(one) for one in self.proto().graph.initializer}
        tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
        y = convolved(x.astype(np.float64), tensors["w"], tensors["b"])
        if self.relu:
            y = np.maximum(y, 0)
        if self.pads:
            rank = len(self.size)
            y = np.pad(y, [(0, 0), (0, 0), *zip(self.pads[:rank], self.pads[rank:], strict=True)])
        y = pooled(self.op, y, **self.pool)
        return y.mean(axis=tuple(range(2, y.ndim))) @ tensors["h"].T + tensors["hb"]


def convolved(x: NDArray, w: NDArray, b: NDArray | float = 0.0) -> NDArray:
    """A convolution with kernels of 3 and padding of 1."""
    size = x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *[(1, 1)] * len(size)])
    y = np.zeros((len(x), len(w), *size))
    for tap in np.ndindex(w.shape[2:]):
        seen = padded[(..., *(slice(t, t + n) for t, n in zip(tap, size, strict=True)))]
        y += np.einsum("nc...,oc->no...", seen, w[(..., *tap)])
    return y + np.reshape(b, (-1, *[1] * len(size)))


def pooled(
    op: str,
    x: NDArray,
    kernel_shape: list[int],
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    auto_pad: str = "NOTSET",
) -> NDArray:
    """A pool of opset 22, one window after the other; agrees with torch 2.13 in float64 wherever torch has the form.

    With ceil_mode a last window counts only if it begins in the image or in the padding before it, and a mean that
    counts padding divides by the cells of its window that lie within image and padding.
    """
    size, rank = x.shape[2:], len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    begin, end = _pads(size, kernel_shape, strides, dilations, pads, auto_pad)
    out = []
    for axis in range(rank):
        span = dilations[axis] * (kernel_shape[axis] - 1) + 1
        steps = (size[axis] + begin[axis] + end[axis] - span) / strides[axis]
        count = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
        if ceil_mode and (count - 1) * strides[axis] >= size[axis] + begin[axis]:
            count -= 1
        out.append(count)
    y = np.zeros((*x.shape[:2], *out))
    for window in np.ndindex(*out):
        values, cells = [], 0
        for tap in itertools.product(*map(range, kernel_shape)):
            at = [
                w * s + t * d - b
                for w, s, t, d, b in zip(window, strides, tap, dilations, begin, strict=True)
            ]
            if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                values.append(x[(..., *at)])
                cells += 1
            else:
                within = all(-b <= a < n + e for a, n, b, e in zip(at, size, begin, end, strict=True))
                cells += within and bool(count_include_pad)
        y[(..., *window)] = np.max(values, axis=0) if op == "MaxPool" else np.sum(values, axis=0) / cells
    return y


def _pads(
    size: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    pads: list[int] | None,
    auto_pad: str,
) -> tuple[list[int], list[int]]:
    rank = len(size)
    if not auto_pad.startswith("SAME"):
        pads = pads or [0] * 2 * rank
        return pads[:rank], pads[rank:]
    less, more = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n)
        less.append(total // 2)
        more.append(total - total // 2)
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def _of(
    op: str, name: str, size: tuple[int, ...], kernel: int, stride: int, pad: int = 0, **more: Any
) -> PoolRow:
    rank = len(size)
    row = {key: more.pop(key) for key in ("pads", "relu", "opset") if key in more}
    around = {"pads": [pad] * 2 * rank} if pad else {}
    attributes = {"kernel_shape": [kernel] * rank, "strides": [stride] * rank, **around, **more}
    return PoolRow(f"{op}-{name}", op, size, attributes, **row)


ROWS = [
    _of("MaxPool", "zeros in front", (8, 8), 3, 2, pads=(1, 1, 1, 1)),
    _of("MaxPool", "zeros in front, never negative", (8, 8), 3, 2, pads=(1, 1, 1, 1), relu=True),
    _of("MaxPool", "zeros in front and pads of its own", (8, 7), 3, 2, 1, pads=(1, 0, 0, 1)),
    _of("MaxPool", "zeros in front, rounded up", (8, 8), 3, 2, pads=(0, 0, 1, 1), ceil_mode=1),
    _of("MaxPool", "more zeros in front than a pool may pad", (6, 6), 3, 2, pads=(3, 3, 4, 3)),
    _of("MaxPool", "zeros in front, dilated", (7, 7), 2, 1, pads=(1, 1, 1, 1), dilations=[2, 3]),
    _of("MaxPool", "last window behind the image", (17, 17), 2, 3, 1, ceil_mode=1),
    _of("MaxPool", "dilated, last window far over the edge", (8, 8), 2, 3, dilations=[4, 4], ceil_mode=1),
    _of("MaxPool", "SAME_LOWER of zeros", (7, 8), 3, 2, pads=(0, 1, 1, 0), auto_pad="SAME_LOWER"),
    _of("MaxPool", "1-d, zeros in front", (11,), 3, 2, pads=(1, 1)),
    _of("AveragePool", "zeros in front", (8, 8), 3, 2, pads=(1, 1, 1, 1)),
    _of("AveragePool", "zeros in front and pads of its own", (8, 7), 3, 2, 1, pads=(1, 0, 0, 1)),
    _of(
        "AveragePool", "zeros in front, all counted", (8, 7), 3, 2, 1, pads=(1, 0, 0, 1), count_include_pad=1
    ),
    _of("AveragePool", "more zeros in front than a pool may pad", (6, 6), 2, 2, pads=(3, 2, 3, 3)),
    _of("AveragePool", "padding counted, rounded up", (16, 16), 3, 2, 1, ceil_mode=1, count_include_pad=1),
    _of("AveragePool", "the same in opset 22", (16, 16), 3, 2, 1, ceil_mode=1, count_include_pad=1, opset=22),
    _of("AveragePool", "rounded up", (6, 7), 3, 2, ceil_mode=1),
    _of("AveragePool", "last window behind the image", (17, 17), 2, 3, 1, ceil_mode=1),
    _of("AveragePool", "the same, padding counted", (17, 17), 2, 3, 1, ceil_mode=1, count_include_pad=1),
    _of("AveragePool", "dilated", (8, 7), 2, 2, 1, dilations=[2, 3], opset=19),
    _of(
        "AveragePool",
        "dilated, padding counted",
        (8, 7),
        2,
        2,
        1,
        dilations=[3, 2],
        count_include_pad=1,
        opset=22,
    ),
    _of(
        "AveragePool", "SAME_UPPER, padding counted", (7, 8), 3, 2, auto_pad="SAME_UPPER", count_include_pad=1
    ),
    _of("AveragePool", "1-d, padding counted, rounded up", (12,), 3, 2, 1, ceil_mode=1, count_include_pad=1),
]
