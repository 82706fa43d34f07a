"""Layers that look at windows of an image one by one: they stand where the batch does, and are learned as others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_text import model

from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_device_runners.check import check_bundle
from csk_sdk import Bundle

RNG = np.random.default_rng(0)
# Four windows of 4x4 of each image, a convolution of each, and the image again.
NETWORK = """
    c = Conv<pads=[1,1,1,1]>(x, w) \n r = Relu(c)
    cut = Reshape(r, to_cut) \n turned = Transpose<perm=[0,2,4,1,3,5]>(cut) \n parts = Reshape(turned, to_parts)
    d = Conv<pads=[1,1,1,1]>(parts, v) \n s = Relu(d)
    back = Reshape(s, to_grid) \n whole = Transpose<perm=[0,3,1,4,2,5]>(back) \n image = Reshape(whole, to_image)
    t = Conv(image, u) \n q = Relu(t)
    p = GlobalAveragePool(q) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h, hb)
"""


def write(path: Path, batch: int | str, parts: int, channels: int = 6) -> Path:
    """A network for one batch size or any, as exporters write it: sizes in front of windows are numbers, or -1."""
    n = batch if isinstance(batch, int) else -1
    sizes = {
        "to_cut": (n, 6, 2, 4, 2, 4),
        "to_parts": (parts, channels, 4, 4),
        "to_grid": (n, 2, 2, 6, 4, channels if channels < 0 else 4),
        "to_image": (n, 6, 8, 8),
    }
    weights = {
        **{"w": RNG.normal(0, 0.3, (6, 3, 3, 3)), "v": RNG.normal(0, 0.3, (6, 6, 3, 3))},
        **{"u": RNG.normal(0, 0.3, (8, 6, 3, 3)), "h": RNG.normal(0, 0.3, (3, 8)), "hb": np.zeros(3)},
    }
    text = f"(float[{batch},3,8,8] x) => (float[{batch},3] y) {{ {NETWORK} }}"
    tensors = {name: np.array(size, np.int64) for name, size in sizes.items()}
    onnx.save(model(text, **weights, **tensors), path)
    return path


@pytest.mark.parametrize(
    ("batch", "parts", "channels"),
    [(1, 4, 6), (1, 4, -1), (2, 8, 6), ("N", -1, 6)],
    ids=["one image", "one image, a size open", "two images", "any"],
)
def test_windows_follow_the_batch(tmp_path: Path, batch: int | str, parts: int, channels: int) -> None:
    path = write(tmp_path / "m.onnx", batch, parts, channels)
    build_artifacts(path, tmp_path / "b", BuildOptions(trainable="all"))
    assert [one for one in check_bundle(tmp_path / "b") if not one.passed] == []
    # The network's own, and what the last layer sees; windows have no row for each image.
    manifest = Bundle.open(tmp_path / "b").manifest
    assert [site.weight for site in manifest.sites] == ["w", "v", "u"]
    assert manifest.head.features == 8 + 6


def test_a_prefix_does_not_end_at_windows(tmp_path: Path) -> None:
    """What is kept of an image is kept in one row."""
    path = write(tmp_path / "m.onnx", "N", -1)
    build_artifacts(path, tmp_path / "b", BuildOptions(trainable="from:Conv_5"))
    assert Bundle.open(tmp_path / "b").manifest.prefix == (6, 8, 8)
    assert [one for one in check_bundle(tmp_path / "b") if not one.passed] == []
