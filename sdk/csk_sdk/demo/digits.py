"""The demo's data: real handwritten digits as PNG files, in the folders that users have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csk_sdk.errors import ConfigError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BASE_DIGITS = (0, 1, 2, 3)
TASKS = {"01-four-five": (4, 5), "02-six-seven": (6, 7), "03-eight-nine": (8, 9)}
_MODEL = "digits-base4.onnx"


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 scans: images uint8 `(n, 8, 8)`, labels `(n,)`, split 75/25, stratified, seed 0."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load() -> Digits:
    """Read the digits and split them exactly as `examples/digits/train_base.py` did.

    Raises ConfigError where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise ConfigError(
            "The demo reads its handwritten digits from scikit-learn: pip install 'csk-sdk[demo]'."
        ) from None
    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)
    parts: list[Any] = train_test_split(
        images, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    return Digits(parts[0], parts[2].astype(np.int64), parts[1], parts[3].astype(np.int64))


def write_folders(digits: Digits, base_data: Path, tasks: Path) -> None:
    """Write PNGs: `base_data/<class>/`, `tasks/NAME/{train,test}/<class>/`, and `tasks/base/test/<class>/`."""
    train = digits.train_images, digits.train_labels
    test = digits.test_images, digits.test_labels
    _write(base_data, *train, BASE_DIGITS)
    _write(tasks / "base" / "test", *test, BASE_DIGITS)
    for name, members in TASKS.items():
        _write(tasks / name / "train", *train, members)
        _write(tasks / name / "test", *test, members)


def model_files() -> tuple[Path, dict[str, Any]]:
    """The shipped base model, and what its json says: classes and normalisation."""
    package = Path(__file__).resolve().parents[1] / "demo_assets"
    # In a checkout the package is not a copy: the model lies where the script that trained it put it.
    checkout = Path(__file__).resolve().parents[3] / "examples" / "digits"
    folder = package if (package / _MODEL).is_file() else checkout
    model = folder / _MODEL
    if not model.is_file():
        raise ConfigError(f"The demo's model is missing ({model}). Install csk-sdk again.")
    return model, json.loads(read_file(model.with_suffix(".json"), LARGEST_TEXT))


def build_bundle(out: Path, **options: Any) -> Path:
    """Build a bundle of the shipped base model in `out`; `options` are more of BuildOptions. Needs the builder."""
    from csk_artifacts_builder import BuildOptions, build_artifacts

    model, facts = model_files()
    normalize = facts["normalize"]
    known = {"classes": facts["classes"], "mean": normalize["mean"], "std": normalize["std"], "flip": False}
    build_artifacts(model, out, BuildOptions(**{**known, **options}))
    return out


def _write(root: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], digits: tuple[int, ...]) -> None:
    for digit in digits:
        folder = root / NAMES[digit]
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == digit):
            Image.fromarray(images[index]).save(folder / f"{index:04d}.png")
