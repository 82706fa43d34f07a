"""The digits workspace of the conformance run: a bundle that knows 0 to 3, and two tasks of two digits.

    python tests/conformance/digits.py out/digits

Real images (scikit-learn's), few enough for an emulated CPU. For readers without NumPy's npz, the same images and
labels are in `digits.safetensors`: docs/conformance.md.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from csk_sdk.demo import digits
from csk_sdk.state.tensorfile import packed

TRAIN, TEST = 60, 45
TASKS = dict(list(digits.TASKS.items())[:2])
SETTINGS = (
    "[training]\nepochs = 3\nlearning_rate = 0.02\nshift = 1\nthreads = 1\nfew_shot = 0\ntrain = 'centers'\n"
)


def main(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    loaded = digits.load()
    train = loaded.train_images, loaded.train_labels
    test = loaded.test_images, loaded.test_labels
    _write(folder / "base-data", *_first(*train, digits.BASE_DIGITS, TRAIN), digits.BASE_DIGITS)
    base = _first(*test, digits.BASE_DIGITS, TEST)
    _write(folder / "tasks" / "base" / "test", *base, digits.BASE_DIGITS)
    tensors = {"base/test/images": base[0], "base/test/labels": base[1]}
    for name, members in TASKS.items():
        arrays = dict(zip(("images", "labels"), _first(*train, members, TRAIN), strict=True))
        held_out = dict(zip(("images", "labels"), _first(*test, members, TEST), strict=True))
        classes = np.array([digits.NAMES[digit] for digit in members])
        more = {f"test_{key}": value for key, value in held_out.items()}
        np.savez(folder / "tasks" / f"{name}.npz", class_names=classes, **arrays, **more)
        tensors |= {f"{name}/train/{key}": value for key, value in arrays.items()}
        tensors |= {f"{name}/test/{key}": value for key, value in held_out.items()}
    (folder / "digits.safetensors").write_bytes(packed(tensors))
    (folder / "csk.toml").write_text(SETTINGS)
    digits.build_bundle(folder / "bundle", base_data=folder / "base-data")


def _first(
    images: NDArray[np.uint8], labels: NDArray[np.int64], members: tuple[int, ...], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first images of each digit, and their place in `members`."""
    found = [np.flatnonzero(labels == digit)[:count] for digit in members]
    return images[np.concatenate(found)], np.repeat(np.arange(len(members)), [len(one) for one in found])


def _write(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], members: tuple[int, ...]
) -> None:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / digits.NAMES[members[label]] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
