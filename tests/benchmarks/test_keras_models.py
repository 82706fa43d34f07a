"""from_keras with Keras itself, where it is installed, on its torch backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from csk_artifacts_builder import BuildOptions, from_keras
from csk_sdk import Learner
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import ConfigError

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("torch", reason="needs torch: pip install csk-sdk[benchmarks]")
keras = pytest.importorskip("keras", reason="needs keras: pip install keras", exc_type=ImportError)
# What Keras's torch backend does with NumPy is its own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def small(size: int | None = 24, scaled: bool = True) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            *([layers.Rescaling(1 / 127.5, offset=-1)] if scaled else []),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(4, activation="softmax"),
        ],
        name="small net",
    )


def exported_like(model: Any, bundle: Path, folder: Path) -> None:
    Learner.open(bundle, state=folder / "state").export(folder / "exported.onnx")
    session = ort.InferenceSession(str(folder / "exported.onnx"), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).uniform(0, 255, (3, 24, 24, 3)).astype(np.float32)
    got = np.concatenate([session.run(None, {session.get_inputs()[0].name: one[None]})[0] for one in x])
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_pixels_that_the_model_scales(tmp_path: Path) -> None:
    model = small()
    report = from_keras(model, tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.model == "small_net.onnx"
    assert manifest.input.shape == (3, 24, 24)
    assert len(report.sites) == 2
    assert any("scales its pixels itself" in said for said in report.notes)
    assert not any("no --mean/--std given" in said for said in report.warnings)
    np.testing.assert_allclose(manifest.preprocessing.std, [manifest.preprocessing.scale] * 3)
    exported_like(model, tmp_path / "bundle", tmp_path)


def test_any_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give one, BuildOptions\(input_size=\(224, 224\)\)"):
        from_keras(small(None), tmp_path / "bundle")
    model = small(None, scaled=False)
    half = (0.5, 0.5, 0.5)
    from_keras(model, tmp_path / "bundle", BuildOptions(input_size=(24, 24), mean=half, std=half))
    assert Bundle.open(tmp_path / "bundle").manifest.input.size == (24, 24)
    exported_like(model, tmp_path / "bundle", tmp_path)


def test_what_is_no_model_of_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"from_keras takes a keras\.Model, and not 'str'"):
        from_keras("model.keras", tmp_path / "bundle")
    flat = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(ConfigError, match=r"The model's input has shape \(None, 5\)"):
        from_keras(flat, tmp_path / "bundle")
