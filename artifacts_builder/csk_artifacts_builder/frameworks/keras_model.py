"""`from_keras`: a bundle of a Keras model in one call. Only here is keras imported, and only when it is called."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csk_artifacts_builder.build import BuildReport, build_artifacts
from csk_artifacts_builder.frameworks.comparing import reason_of, require_same_outputs
from csk_artifacts_builder.options import BuildOptions
from csk_sdk.errors import ConfigError, ModelError, RuntimeMissingError

# What the model and its file are compared on: pixels, of a model that scales them itself or not.
_BRIGHTEST = 255.0


def from_keras(
    model: Any,
    out: Path | str,
    options: BuildOptions | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuildReport:
    """Build a bundle of a Keras 3 model, which is exported with `model.export(..., format="onnx")`.

    Layers such as Rescaling or Normalization at its front are part of the network: it is then given pixels of 0 to 255,
    and `options` need no mean and std. Otherwise they are those of the preprocessing that the model was trained with,
    for pixels of 0 to 1. The size is the model's own, or `options.input_size` where that is open.

    Needs keras 3.13 or newer with one of its backends beside `csk-sdk[builder]`. One call at a time, as exporters are.
    Raises RuntimeMissingError without keras, ConfigError where it is no model of one image, ModelError where Keras does
    not export it, or the file says something else than the model; and what `build_artifacts` raises.
    """
    keras = _keras()
    if not isinstance(model, keras.Model):
        raise ConfigError(f"from_keras takes a keras.Model, and not {type(model).__name__!r}.")
    options = options or BuildOptions()
    x = _example(model, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{_name(model)}.onnx"
        expected = _outputs(keras, model, x)
        _export(keras, model, path)
        require_same_outputs(path, x, expected, "Keras", "model")
        return build_artifacts(path, out, options, on_progress)


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise RuntimeMissingError(
            f"from_keras needs Keras 3 and one of its backends in this environment ({reason_of(error)}): pip install "
            "keras, or export the model elsewhere and build from the ONNX file."
        ) from None
    return keras


def _example(model: Any, options: BuildOptions) -> np.ndarray[Any, Any]:
    """One picture of noise, as large as the model takes it."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ConfigError(
            f"The model's input has shape {shape}; from_keras takes models of one image, (batch, height, width, "
            "channels). Call the model once if it was never built, or export it and build from the file."
        )
    first = _is_channels_first(model)
    size = list(shape[2:] if first else shape[1:3])
    channels = shape[1] if first else shape[3]
    if None in size and options.input_size is None:
        raise ConfigError(
            "The model takes images of any size: give one, BuildOptions(input_size=(224, 224))."
        )
    if None in size:
        size = list(options.input_size or ())
    whole = (1, channels, *size) if first else (1, *size, channels)
    noise = np.random.default_rng(0).uniform(0.0, _BRIGHTEST, whole)
    return np.asarray(noise, np.float32)


def _is_channels_first(model: Any) -> bool:
    formats = (getattr(layer, "data_format", None) for layer in model.layers)
    return next((one for one in formats if one is not None), "channels_last") == "channels_first"


def _outputs(keras: Any, model: Any, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    try:
        given = model(x, training=False)
    except Exception as error:
        raise ModelError(f"The model does not run on an example {x.shape} ({reason_of(error)}).") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the backend, about NumPy
        return [np.asarray(keras.ops.convert_to_numpy(one)) for one in keras.tree.flatten(given)]


def _export(keras: Any, model: Any, path: Path) -> None:
    level = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            model.export(str(path), format="onnx", verbose=False)
    except Exception as error:
        raise ModelError(
            f"Keras {keras.__version__} does not export {model.name!r} with the backend {keras.backend.backend()} "
            f"({reason_of(error)}). Export it yourself, perhaps with another backend, and build from the file."
        ) from None
    finally:
        logging.disable(level)


def _name(model: Any) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(model.name))
