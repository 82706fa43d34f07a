"""A task's own head for numbers, fitted exactly: ridge regression on features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number
from csk_sdk.method.logistic import DECAY, HeadArrays, standardized

# The decay is that of the logistic heads: relative to a feature, and to a target, of deviation 1.
JITTER = number("ridge", "jitter")


def ridge_head(
    features: NDArray[np.float32], labels: NDArray[np.float32], weight_decay: float = DECAY
) -> HeadArrays:
    """Minimise mean squared error + `weight_decay * |W|^2` over standardised features (Hoerl & Kennard, 1970).

    features `(n, f)` float32, labels `(n, targets)` float32; the result is a head on the raw features: weight
    `(targets, f)`, bias `(targets,)`, float32. The bias is not decayed, and targets do not influence each other. A
    target's unit does not matter, as far as float32 holds the head.
    """
    x, mean, scale = standardized(features)
    y = labels.astype(np.float64)
    middle = y.mean(axis=0)
    y -= middle
    # Sums of large numbers are more than float32 holds.
    unit = np.maximum(np.abs(y).max(axis=0, initial=0.0), np.finfo(np.float64).tiny)
    decay = np.full(x.shape[1], weight_decay + JITTER)
    decay[-1] = 0.0
    gram = (x.T @ x).astype(np.float64) / len(x) + np.diag(decay)
    across = (x.T @ (y / unit).astype(np.float32)).astype(np.float64) / len(x)
    weight = np.linalg.solve(gram, across * unit).T
    raw = weight[:, :-1] / scale
    return raw.astype(np.float32), (weight[:, -1] + middle - raw @ mean).astype(np.float32)
