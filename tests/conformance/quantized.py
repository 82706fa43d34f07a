"""An int8 bundle's training graph in `onnx.reference`, in float64: what its ops say, computed by another runtime.

onnx.reference has no QuantizeLinear and DequantizeLinear of opset 17 and its QLinearConv computes in float32, so these
are written here, from the standard's text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv import _conv_implementation

sys.path.insert(0, str(Path(__file__).parents[1] / "builder"))
from onnx_text import in_float64


def _along(values: NDArray, axis: int, rank: int) -> NDArray:
    """A scale or zero point for each channel, as it broadcasts."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _rounded(x: NDArray, zero: NDArray) -> NDArray:
    """Halves to even, plus the zero point, saturated."""
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(x) + zero, limits.min, limits.max).astype(zero.dtype)


class QuantizeLinear(OpRun):
    op_domain = ""

    def _run(self, x: NDArray, scale: NDArray, zero: NDArray, axis: int = 1, **newer: Any) -> tuple[NDArray]:
        scale, zero = (_along(value, axis, x.ndim) for value in (scale, zero))
        return (_rounded(x / scale, zero),)


class DequantizeLinear(OpRun):
    op_domain = ""

    def _run(
        self, x: NDArray, scale: NDArray, zero: NDArray | None = None, axis: int = 1, **newer: Any
    ) -> tuple[NDArray]:
        shift = 0.0 if zero is None else _along(zero, axis, x.ndim).astype(np.float64)
        return ((x.astype(np.float64) - shift) * _along(scale, axis, x.ndim),)


class OneHot(OpRun):
    """With a depth of shape `(1,)`, which onnx.reference does not take."""

    op_domain = ""

    def _run(self, indices: NDArray, depth: NDArray, values: NDArray, axis: int = -1) -> tuple[NDArray]:
        assert axis == -1
        off, on = values
        return (np.where(np.arange(depth.item()) == indices[..., None], on, off),)


class QLinearConv(OpRun):
    op_domain = ""

    def _run(
        self,
        x: NDArray,
        x_scale: NDArray,
        x_zero: NDArray,
        w: NDArray,
        w_scale: NDArray,
        w_zero: NDArray,
        y_scale: NDArray,
        y_zero: NDArray,
        bias: NDArray | None = None,
        auto_pad: str = "NOTSET",
        dilations: Any = None,
        group: int = 1,
        kernel_shape: Any = None,
        pads: Any = None,
        strides: Any = None,
    ) -> tuple[NDArray]:
        whole = x.astype(np.float64) - _along(x_zero, 1, x.ndim).astype(np.float64)
        kernel = w.astype(np.float64) - _along(w_zero, 0, w.ndim).astype(np.float64)
        added = None if bias is None else bias.astype(np.float64)
        summed = _conv_implementation(
            whole,
            kernel,
            added,
            auto_pad or "NOTSET",
            dilations,
            group,
            kernel_shape or w.shape[2:],
            pads,
            strides,
        )
        scale = _along(x_scale, 1, x.ndim) * _along(w_scale, 1, x.ndim) / _along(y_scale, 1, x.ndim)
        return (_rounded(summed * scale, _along(y_zero, 1, x.ndim)),)


def evaluate(graph: Path, feeds: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """All outputs of a graph of a bundle, float64, with its default inputs fed where `feeds` lacks them."""
    proto = in_float64(onnx.load(graph))
    evaluator = ReferenceEvaluator(proto, new_ops=[QuantizeLinear, DequantizeLinear, QLinearConv, OneHot])
    names = [output.name for output in proto.graph.output]
    wide = {name: _wide(value) for name, value in feeds.items()}
    wanted = {value.name for value in proto.graph.input}
    defaults = {name: value for name, value in evaluator.rt_inits_.items() if name in wanted}
    return dict(zip(names, evaluator.run(names, {**defaults, **wide}), strict=True))


def _wide(value: NDArray) -> NDArray:
    return value.astype(np.float64) if value.dtype == np.float32 else value
