"""The batch that every method of a case trains on, and the base pictures of the bundles: noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cases import CLASSES, LARGEST_BATCH, Case


def write(case: Case, folder: Path) -> None:
    """The pictures of the largest batch, `(n, 3, size, size)` float32, and their labels `(n,)` int64."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((LARGEST_BATCH, 3, case.size, case.size), np.float32)
    np.savez(folder / "data.npz", images=images, labels=np.arange(LARGEST_BATCH) % CLASSES)


def batch(case: Case, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """This case's batch."""
    with np.load(folder / "data.npz") as arrays:
        return arrays["images"][: case.batch].copy(), arrays["labels"][: case.batch].copy()
