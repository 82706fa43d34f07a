"""scikit-learn's handwritten digits, scaled up from 8x8 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def scaled_digits(
    size: int, resample: Image.Resampling, count: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `count` images `(n, size, size, 3)`, or all of them, and their labels `(n,)`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images[:count] * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(one).resize((size, size), resample).convert("RGB") for one in pixels]
    return np.stack([np.asarray(one) for one in large]), found.target[:count].astype(np.int64)
