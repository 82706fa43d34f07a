"""The batch that every method of a case trains on: noise; and how images are normalized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cases import CLASSES, LARGEST_BATCH, Case

IMAGES, BASE = "images.npy", "base"
MEAN, STD = 0.5, 0.25


def write(case: Case, folder: Path) -> None:
    """The images of the largest batch, `(n, 3, size, size)` float32; labels count through the classes."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((LARGEST_BATCH, 3, case.size, case.size), np.float32)
    np.save(folder / IMAGES, images)


def batch(case: Case, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """This case's batch. Mapped, so that a process holds no image that it does not use."""
    images = np.load(folder / IMAGES, mmap_mode="r")
    return np.array(images[: case.batch]), np.arange(case.batch) % CLASSES
