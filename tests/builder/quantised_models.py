"""Quantised models as onnxruntime.quantization writes them, in the styles that are deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from csk_sdk.runtime.sessions import int8_sums_saturate, open_session

STYLES: dict[str, dict[str, Any]] = {
    f"{style.name}-{kind.name}-{'channel' if per_channel else 'tensor'}": {
        "quant_format": style,
        "activation_type": kind,
        "weight_type": QuantType.QInt8,
        "per_channel": per_channel,
    }
    for style in (QuantFormat.QDQ, QuantFormat.QOperator)
    for kind in (QuantType.QUInt8, QuantType.QInt8)
    for per_channel in (False, True)
}

# Two that differ in all, and the others for `make test-slow`.
_FIRST = ("QDQ-QUInt8-channel", "QOperator-QInt8-tensor")
EVERY_STYLE = [pytest.param(style, marks=() if style in _FIRST else pytest.mark.slow) for style in STYLES]


class Images(CalibrationDataReader):
    """Batches of 16 images for the model's one input."""

    def __init__(self, name: str, images: NDArray) -> None:
        self._batches = iter([{name: images[i : i + 16]} for i in range(0, len(images), 16)])

    def get_next(self) -> dict[str, NDArray] | None:
        return next(self._batches, None)


def quantised(source: Path, out: Path, images: NDArray, fold: bool = True, **settings: Any) -> Path:
    """`source` quantised to `out`, its ranges from `images`; `fold` does what ONNX Runtime recommends before that."""
    if fold:
        folded = out.with_name(f"{out.stem}.folded.onnx")
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        source = folded
    name = onnx.load(source).graph.input[0].name
    quantize_static(str(source), str(out), Images(name, images), **settings)
    return out


def quantised_weights(source: Path, out: Path) -> Path:
    """`source` with its weights in int8 and its activations rounded by each image's own range."""
    quantize_dynamic(str(source), str(out), weight_type=QuantType.QUInt8)
    return out


def run(model: Path | bytes, x: NDArray, output: str | None = None, optimised: bool = True) -> NDArray:
    """What the deployed runtime gives; not `optimised`, node by node as the file says."""
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = open_session(str(model) if isinstance(model, Path) else model, options)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) and int8_sums_saturate():
            pytest.skip("this ONNX Runtime opens no QOperator file of s8 activations with wide sums")
        raise
    return np.asarray(session.run(output and [output], {session.get_inputs()[0].name: x})[0])
