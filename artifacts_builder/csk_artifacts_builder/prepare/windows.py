"""The windows of a pool along each axis of the image, as plain numbers: where they begin, and what they cover."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from csk_artifacts_builder.emit import attribute


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of the image: `size` pixels, `zeros` around them by a Pad, `pads` of the pool."""

    size: int
    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]
    out: int
    zeros: tuple[int, int] = (0, 0)

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first tap of each window, counted from the first pixel."""
        return np.arange(self.out) * self.stride - self.pads[0] - self.zeros[0]

    def inside(self, before: int = 0, behind: int = 0) -> NDArray[np.int64]:
        """How many taps of each window lie in the image, or up to so many cells in front of it and behind it."""
        taps = self.starts[:, None] + self.dilation * np.arange(self.kernel)
        return np.asarray(((taps >= -before) & (taps < self.size + behind)).sum(axis=1))

    @property
    def reach(self) -> int:
        """Pixels from the first window's first tap to the last one's."""
        return self.stride * (self.out - 1) + 1

    @property
    def over(self) -> tuple[int, int]:
        """How far windows reach over the image at its two ends."""
        last = int(self.starts[-1]) + self.dilation * (self.kernel - 1) + 1
        return -int(self.starts[0]), max(0, last - self.size)

    @property
    def written(self) -> bool:
        """Whether a pool itself can pad so much, and no window is in its padding alone."""
        return max(self.over) < self.kernel and bool(self.inside().all())


@dataclass(frozen=True)
class Windows:
    """A pool's windows along every axis; `mean` where it is an AveragePool."""

    axes: tuple[Axis, ...]
    mean: bool
    counts_pads: bool

    @property
    def out(self) -> list[int]:
        """How many there are along each axis."""
        return [axis.out for axis in self.axes]

    @property
    def dilated_mean(self) -> bool:
        """Whether they are what AveragePool of opset 17 has not."""
        return self.mean and any(axis.dilation != 1 for axis in self.axes)

    @property
    def over(self) -> tuple[list[int], list[int]]:
        """How far they reach over the image: in front of it and behind it along each axis."""
        return [axis.over[0] for axis in self.axes], [axis.over[1] for axis in self.axes]

    @property
    def written(self) -> bool:
        """Whether a pool itself can pad so much, and no window is in its padding alone."""
        return all(axis.written for axis in self.axes)

    def behind(self, begin: list[int], end: list[int]) -> Windows:
        """The same windows over an image that has so many zeros more around it."""
        axes = zip(self.axes, begin, end, strict=True)
        return replace(
            self, axes=tuple(replace(axis, size=axis.size - b - e, zeros=(b, e)) for axis, b, e in axes)
        )

    @property
    def pixels(self) -> NDArray[np.float64]:
        """Pixels of each window, `(*out)`."""
        return _outer([axis.inside() for axis in self.axes])

    @property
    def cells(self) -> NDArray[np.float64]:
        """Pixels and zeros of each window."""
        return _outer([axis.inside(*axis.zeros) for axis in self.axes])

    @property
    def counted(self) -> NDArray[np.float64]:
        """What a mean divides by: pixels, zeros and, where that is asked for, the pool's padding."""
        if not self.counts_pads:
            return self.cells
        return _outer(
            [
                axis.inside(*(zero + pad for zero, pad in zip(axis.zeros, axis.pads, strict=True)))
                for axis in self.axes
            ]
        )


def _outer(counts: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    product = np.ones(())
    for count in counts:
        product = np.multiply.outer(product, count)
    return product


def windows_of(node: ir.Node) -> Windows | None:
    """The windows of a pool, or None where the image's size is not known yet."""
    sizes = picture_size(node.inputs[0])
    if sizes is None:
        return None
    kernel = attribute(node, "kernel_shape")
    rank = len(kernel)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    pads = padding(node, sizes, kernel, strides, dilations)
    ceil = bool(attribute(node, "ceil_mode", 0))
    axes = []
    for size, k, stride, dilation, begin, end in zip(
        sizes, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True
    ):
        room = size + begin + end - dilation * (k - 1) - 1
        out = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (out - 1) * stride >= size + begin:
            out -= 1
        axes.append(Axis(size, k, stride, dilation, (begin, end), out))
    return Windows(tuple(axes), node.op_type == "AveragePool", bool(attribute(node, "count_include_pad", 0)))


def padding(
    node: ir.Node, sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    """A node's pads, those of SAME_UPPER and SAME_LOWER from the image's size."""
    rank, mode = len(kernel), attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(attribute(node, "pads", [0] * (2 * rank)))
    pads = [0] * (2 * rank)
    if mode == "VALID":
        return pads
    for axis in range(rank):
        out = -(-sizes[axis] // strides[axis])
        total = max(0, (out - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - sizes[axis])
        smaller, larger = total // 2, total - total // 2
        pads[axis], pads[axis + rank] = (smaller, larger) if mode == "SAME_UPPER" else (larger, smaller)
    return pads


def picture_size(x: ir.Value | None) -> list[int] | None:
    """The image's size, or None where it is not known yet."""
    sizes = list(x.shape)[2:] if x is not None and x.shape is not None else [None]
    return [int(size) for size in sizes] if all(isinstance(size, int) for size in sizes) else None  # type: ignore[arg-type]
