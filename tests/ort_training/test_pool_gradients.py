"""Pools whose windows the builder writes as numbers: the gradients of onnxruntime-training are the portable ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import BACKENDS

from .test_parity import random_step

NAMES = (
    "MaxPool-zeros in front",
    "MaxPool-more zeros in front than a pool may pad",
    "AveragePool-zeros in front and pads of its own",
    "AveragePool-padding counted, rounded up",
    "AveragePool-last window behind the image",
    "AveragePool-dilated",
)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree(tmp_path: Path, name: str) -> None:
    from pool_rows import ROWS

    (row,) = [row for row in ROWS if str(row) == name]
    onnx.save(row.proto(), tmp_path / "model.onnx")
    build_artifacts(tmp_path / "model.onnx", tmp_path / "b", BuildOptions(backend="both", trainable="all"))
    bundle = Bundle.open(tmp_path / "b")
    ours, theirs = (random_step(bundle, backend, 5) for backend in BACKENDS)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-5)
    for found, expected in (
        *((theirs.centers[site.name], ours.centers[site.name]) for site in bundle.manifest.sites),
        (theirs.weight, ours.weight),
        (theirs.bias, ours.bias),
    ):
        largest = float(np.abs(expected).max())
        assert largest > 0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * largest)
