"""How good predictions are, where one of several classes being right is not the question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def average_precision(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Average precision of one class: `sum_k (R_k - R_{k-1}) P_k` over all thresholds, not interpolated.

    `P_k` and `R_k` are precision and recall of what scores at least the k-th highest score; images of one score
    stand or fall together. scores `(n,)`, positive `(n,)` with at least one True. In 0..1; a classifier that knows
    nothing gets about the share of positives. As scikit-learn's `average_precision_score`; Zhu, "Recall, precision
    and average precision", 2004.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_its_score = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(positive[order])[last_of_its_score]
    taken = np.flatnonzero(last_of_its_score) + 1
    gained = np.diff(hits, prepend=0)
    return float(np.sum(gained * (hits / taken)) / hits[-1])


def mean_average_precision(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """mAP: the mean of `average_precision` over the classes that at least one image has ("macro").

    scores `(n, classes)`, labels `(n, classes)` of 0 and 1. In 0..1, NaN where no image has any class.
    """
    positive = labels > 0.5
    there = np.flatnonzero(positive.any(axis=0))
    found = [average_precision(scores[:, one], positive[:, one]) for one in there]
    return float(np.mean(found)) if found else float("nan")


def r_squared(values: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """R^2, the coefficient of determination: `1 - sum (y - v)^2 / sum (y - mean y)^2`, mean over the targets.

    values and labels `(n, targets)`. At most 1; 0 for the labels' mean as the answer, below it for worse. A target
    whose labels do not vary counts 1 where it is met exactly, else 0. As scikit-learn's `r2_score`.
    """
    exact = labels.astype(np.float64)
    residual: Float64 = np.sum((exact - values) ** 2, axis=0)
    total: Float64 = np.sum((exact - exact.mean(axis=0)) ** 2, axis=0)
    varies = total > 0.0
    share = np.where(varies, residual / np.where(varies, total, 1.0), residual > 0.0)
    return float(np.mean(1.0 - share))


def root_mean_squared_error(values: NDArray[np.float32], labels: NDArray[np.float32]) -> Float64:
    """Of each target, in its own unit: `(targets,)` float64, for values and labels `(n, targets)`."""
    squares: Float64 = np.mean((labels.astype(np.float64) - values) ** 2, axis=0)
    return np.sqrt(squares)
