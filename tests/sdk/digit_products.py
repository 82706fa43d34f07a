"""Features that are anything but Gaussian, of scanned digits."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits


def digit_products(classes, each):
    """Products of pixels of scanned digits: `each` images of each of the first `classes`, and all others.

    Both as features `(n, 150)` float32 and labels `(n,)`.
    """
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(2)
    # Mixed, for they come writer by writer.
    order = rng.permutation(len(labels))
    images, labels = images[order], labels[order]
    pairs = rng.integers(0, 64, (150, 2))
    x = (images[:, pairs[:, 0]] * images[:, pairs[:, 1]] / 64).astype(np.float32)
    known = np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(classes)])
    rest = np.setdiff1d(np.arange(len(labels)), known)
    return (x[known], labels[known]), (x[rest], labels[rest])
