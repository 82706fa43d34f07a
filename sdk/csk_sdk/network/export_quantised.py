"""What an export in int8 appends for a layer: its kernel and bias as integers, and their scales.

The formulas are those of onnxruntime.quantization, symmetric, so that a kernel that was not trained becomes the
integers that it was deployed with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.manifest import BIAS, BIAS_SCALE, KERNEL, KERNEL_SCALE, KERNEL_ZERO, QuantisedLayer
from csk_sdk.errors import BundleError

# A bias is int32: its scale is kept large enough for it.
_BIAS_MAX = float(1 << 30)
_TINY = 1e-30


def quantised_tensors(
    layers: Iterable[QuantisedLayer], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """`tensors`, float32 by name, with those of `layers` as integers: int8, int32, and float32 scales.

    Raises BundleError where a layer's tensors do not fit each other.
    """
    written: dict[str, NDArray[Any]] = dict(tensors)
    for layer in layers:
        kernel = written.pop(layer.weight)
        bias = written.pop(layer.bias) if layer.bias else None
        _require_fit(layer, kernel, bias)
        written.update(_layer(layer, kernel, bias))
    return written


def _require_fit(
    layer: QuantisedLayer, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    """Raise BundleError for a kernel without the layer's axis, and a bias that is not for its outputs."""
    fits = kernel.ndim > layer.axis
    if fits and bias is not None:
        fits = bias.ndim == 1 and (layer.axis < 0 or bias.size == kernel.shape[layer.axis])
    if not fits:
        raise BundleError(
            f"the bundle's layer '{layer.weight}' has a kernel {kernel.shape} that does not fit its bias or its axis "
            f"{layer.axis}. Build the bundle again."
        )


def _layer(
    layer: QuantisedLayer, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> dict[str, NDArray[Any]]:
    """Scales `(n,)` along the layer's axis, or `()`."""
    each = layer.axis >= 0
    others = tuple(axis for axis in range(kernel.ndim) if not each or axis != layer.axis)
    scale = np.abs(kernel).max(axis=others, initial=0.0).astype(np.float64) / layer.largest
    if bias is not None:
        needed = np.abs(bias).astype(np.float64) / (layer.input_scale * _BIAS_MAX)
        scale = np.maximum(scale, needed if each else needed.max(initial=0.0))
    scale = np.maximum(scale, _TINY).astype(np.float32)
    along = scale.reshape([-1 if axis == layer.axis else 1 for axis in range(kernel.ndim)]) if each else scale
    integers = np.clip(np.rint(kernel / along), -layer.largest, layer.largest).astype(np.int8)
    tensors: dict[str, NDArray[Any]] = {
        layer.weight + KERNEL: integers,
        layer.weight + KERNEL_SCALE: scale,
        layer.weight + KERNEL_ZERO: np.zeros(scale.shape, np.int8),
    }
    if bias is not None:
        units = np.float32(layer.input_scale) * scale
        tensors[layer.bias + BIAS] = np.rint(bias.astype(np.float64) / units).astype(np.int32)
        tensors[layer.bias + BIAS_SCALE] = units
    return tensors
