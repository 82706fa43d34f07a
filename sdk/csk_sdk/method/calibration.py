"""How sure a discriminant may be: the temperature that its scores are divided by before they become probabilities.

Linear discriminant analysis takes features for Gaussian. They are not, and the more of them there are the surer it is
of itself: over 100 classes of CIFAR-100 it says 92 % on average where it is right in 55 %. One number mends that (Guo
et al., ICML 2017, arXiv 1706.04599), and no decision changes. docs/decisions/0024-probabilities.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, lda_head

LOWEST, HIGHEST = number("calibration", "lowest"), number("calibration", "highest")
FOLDS, _HALVINGS = integer("calibration", "folds"), integer("calibration", "halvings")
# The logit of a class that a fold's discriminant does not know.
_NEVER = -1e12


def calibrated(
    statistics: ClassStatistics,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    prior_pictures: float,
) -> ClassStatistics:
    """`statistics` with the temperature that suits features `(n, f)` and labels `(n,)` into `classes`.

    Cross-validated: sorted by class, every fifth image is judged by a discriminant of the others, for on the images
    that it was made from it is right too often. Where that leaves fewer than two classes, or nothing to judge, the
    statistics stay as they are.
    """
    order = np.argsort(labels, kind="stable")
    total = ClassStatistics.empty(statistics.features).add(features, labels, classes)
    logits, answers = [], []
    for fold in range(FOLDS):
        judged = order[fold::FOLDS]
        part = ClassStatistics.empty(statistics.features).add(features[judged], labels[judged], classes)
        # In place: a matrix of features by features is larger than many a network.
        gram = np.subtract(total.gram, part.gram, out=part.gram)
        others = ClassStatistics(total.classes, gram, total.sums - part.sums, total.counts - part.counts)
        present = np.flatnonzero(others.counts > 0)
        judged = judged[np.isin(labels[judged], present)]
        if len(present) < 2 or not len(judged):
            continue
        weight, bias = lda_head(others, prior_pictures, [total.classes[label] for label in present])
        scores = np.full((len(judged), len(classes)), _NEVER)
        scores[:, present] = features[judged].astype(np.float64) @ weight.T + bias
        logits.append(scores)
        answers.append(labels[judged])
    if not logits:
        return statistics
    found = temperature(np.concatenate(logits), np.concatenate(answers))
    return replace(statistics, temperature=found)


def temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The T from LOWEST to HIGHEST with the least cross-entropy of `softmax(logits / T)`; `(n, C)` and `(n,)`.

    Its derivative by `1 / T` is the mean expected logit less the mean logit of the labels, and rises with `1 / T`.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = float(shifted[np.arange(len(labels)), labels].mean())

    def surplus(at: float) -> float:
        exponentials = np.exp(shifted / at)
        expected = (exponentials * shifted).sum(axis=1) / exponentials.sum(axis=1)
        return float(expected.mean()) - right

    low, high = LOWEST, HIGHEST
    if surplus(low) <= 0.0:
        return low
    if surplus(high) >= 0.0:
        return high
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if surplus(middle) > 0.0 else (low, middle)
    return float(np.sqrt(low * high))
