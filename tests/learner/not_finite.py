"""A classifier of 8x8 pixels that computes NaN for images that are white all over, and for no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from csk_artifacts_builder import BuildOptions, build_artifacts

MEAN, STD = 0.5, 0.25
# White is 2.0 after normalisation; `one` is 1, and 0 / 0 where nothing is left below 1.9.
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
fragile (float[N,1,8,8] x) => (float[N,2] y) <float[1,1] limit = {1.9}> {
    v1 = Conv <pads=[1,1,1,1]> (x, first_w, first_b)
    a1 = Relu(v1)
    v2 = Conv <pads=[1,1,1,1]> (a1, second_w, second_b)
    a2 = Relu(v2)
    m = GlobalAveragePool(a2)
    seen = Flatten(m)
    light = GlobalAveragePool(x)
    mean = Flatten(light)
    below = Sub(limit, mean)
    room = Relu(below)
    one = Div(room, room)
    f = Mul(seen, one)
    y = Gemm <transB=1> (f, head_w, head_b)
}
"""
SHAPES = {
    "first_w": (8, 1, 3, 3), "first_b": (8,), "second_w": (16, 8, 3, 3), "second_b": (16,),
    "head_w": (2, 16), "head_b": (2,),
}  # fmt: skip
WHITE = np.full((8, 8, 1), 255, np.uint8)


def fragile_bundle(folder: Path, **options: Any) -> Path:
    """The bundle, which knows "a" and "b"."""
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = rng.normal(size=shape, scale=0.3).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "fragile.onnx")
    settings = {"classes": ["a", "b"], "mean": [MEAN], "std": [STD], "trainable": "all", "features": "last"}
    build_artifacts(folder / "fragile.onnx", folder / "bundle", BuildOptions(**{**settings, **options}))
    return folder / "bundle"


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Gray noise, uint8 `(count, 8, 8, 1)`, every second one darker."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 120, (count, 8, 8, 1))
    return (noise + 60 * (np.arange(count) % 2)[:, None, None, None]).astype(np.uint8)


def write_png(path: Path, picture: np.ndarray) -> Path:
    """An image as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[:, :, 0]).save(path)
    return path
