"""Do a task's labels say anything about its images? Cross-validated accuracy of a linear head, exactly.

Labels that were shuffled or shifted by a row teach nothing and cost what is known. On the features as they are before
training, a head fitted to nine tenths of the images is asked for the others. By the shortcut of ridge regression
(Allen, 1974; for folds, residuals times `(I - H)^-1` of the fold's block) this takes one fit, not ten.
docs/decisions/0015-label-check.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.logistic import standardized
from csk_sdk.method.symmetric import inverse_of, root_of

Float64 = NDArray[np.float64]

USEFUL, LEVEL = number("label_check", "useful"), number("label_check", "level")
RIDGE, FOLDS = number("label_check", "ridge"), integer("label_check", "folds")
_MOST_IMAGES, _CERTAIN = integer("label_check", "most_images"), integer("label_check", "certain")


@dataclass(frozen=True)
class LabelEvidence:
    """What a head says of images it was not fitted on: `accuracy` and `chance` in 0..1, on `pictures` of them.

    `accuracy` is the mean of the classes' own accuracies. `pictures` is how many images of equally frequent classes
    would tell as much; it is 0 where nothing can be told.
    """

    accuracy: float
    chance: float
    pictures: float

    @property
    def useful(self) -> float:
        """The accuracy from which on labels count as learnable."""
        return self.chance + USEFUL * (1.0 - self.chance)

    @property
    def refuted(self) -> bool:
        """Whether labels with an accuracy of `useful` would hardly ever (`LEVEL`) have done this badly.

        Few images cannot refute anything: then it is False.
        """
        count = round(self.pictures)
        return _at_most(math.floor(self.accuracy * count + 0.5), count, self.useful) < LEVEL


def class_evidence(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> LabelEvidence:
    """Of one class per image: features `(n, f)` float32, labels `(n,)` into `classes`.

    Classes with fewer than two images cannot be left out and found again; they are left aside. Of images that all look
    the same, no labels tell anything, however few there are.
    """
    counts = np.bincount(labels, minlength=classes)
    kept = np.flatnonzero((counts >= 2)[labels])[:_MOST_IMAGES]
    counts = np.bincount(labels[kept], minlength=classes)
    kept = kept[(counts >= 2)[labels[kept]]]
    present = np.flatnonzero(counts >= 2)
    if len(present) < 2:
        return LabelEvidence(1.0, 1.0, 0.0)
    chance = 1.0 / len(present)
    design, _, deviations = standardized(features[kept])
    if np.isinf(deviations).all():
        # One image to the network, under several names.
        return LabelEvidence(chance, chance, _CERTAIN)
    own = np.searchsorted(present, labels[kept])
    sizes = counts[present]
    targets = np.eye(len(present))[own]
    scores = _held_out(design, targets, 1.0 / sizes[own], _folds(own))
    right = scores.argmax(axis=1) == own
    recalls = np.bincount(own, weights=right) / sizes
    # The variance of a mean of recalls is that of so many images.
    pictures = len(present) ** 2 / float(np.sum(1.0 / sizes))
    return LabelEvidence(float(recalls.mean()), chance, pictures)


def table_evidence(features: NDArray[np.float32], labels: NDArray[np.float32]) -> LabelEvidence:
    """Of any number of classes per image: labels `(n, classes)` of 0 and 1.

    Each class against its absence is a task of two. The more images tell of it, the more it weighs; one image's
    labels may all hang together, so that many classes are no better evidence than one.
    """
    found = [class_evidence(features, column.astype(np.int64), 2) for column in labels.T]
    told = np.array([evidence.pictures for evidence in found])
    if not told.any():
        return LabelEvidence(1.0, 1.0, 0.0)
    accuracy = float(np.average([evidence.accuracy for evidence in found], weights=told))
    return LabelEvidence(accuracy, 0.5, float((told.sum() / np.sqrt(told).sum()) ** 2))


def held_out_scores(
    features: NDArray[np.float32], targets: Float64, weights: Float64, folds: NDArray[np.int64]
) -> Float64:
    """For each image, what ridge regression fitted to the other folds says of it: `(n, columns)`.

    features `(n, f)`, targets `(n, columns)`, weights `(n,)` of the images in the fit, folds `(n,)` numbers. The
    scaling of the features is that of all images; it knows no label.
    """
    return _held_out(standardized(features)[0], targets, weights, folds)


def _held_out(
    standard: NDArray[np.float32], targets: Float64, weights: Float64, folds: NDArray[np.int64]
) -> Float64:
    """`held_out_scores` of features as `standardized` gives them, `(n, f + 1)`."""
    design = standard.astype(np.float64)
    root = np.sqrt(weights / weights.mean())[:, None]
    design *= root
    ridge = RIDGE * float(np.vdot(design, design)) / len(design)
    if len(design) <= design.shape[1]:
        kernel = design @ design.T
        del design
        residual = _left_out_of_kernel(kernel, ridge, root * targets, folds)
    else:
        residual = _left_out(design, ridge, root * targets, folds)
    held_out: Float64 = targets - residual / root
    return held_out


def _left_out_of_kernel(kernel: Float64, ridge: float, targets: Float64, folds: NDArray[np.int64]) -> Float64:
    """`_left_out` by the products of the images with one another, which are fewer than features, and written into.

    With `G = (K + ridge)^-1`, `I - H = ridge G`.
    """
    np.einsum("ii->i", kernel)[:] += ridge
    inverse = inverse_of(kernel)
    residual = inverse @ targets
    for block in _blocks(folds):
        residual[block] = np.linalg.solve(inverse[np.ix_(block, block)], residual[block])
    return np.asarray(residual)


def _left_out(design: Float64, ridge: float, targets: Float64, folds: NDArray[np.int64]) -> Float64:
    """What a fit of the other folds leaves of each image's targets, `(n, columns)`: designs `(n, f)`.

    `H = X (X^T X + ridge)^-1 X^T`, of which only the folds' blocks are made.
    """

    gram = design.T @ design
    np.einsum("ii->i", gram)[:] += ridge
    white = root_of(gram).whiten(design)
    residual = targets - white @ (white.T @ targets)
    for block in _blocks(folds):
        out = np.eye(len(block)) - white[block] @ white[block].T
        residual[block] = np.linalg.solve(out, residual[block])
    return np.asarray(residual)


def _blocks(folds: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (np.flatnonzero(folds == fold) for fold in range(int(folds.max()) + 1))


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images of each class in turn to folds 0, 1, ..., `(n,)`."""
    folds = np.empty(len(labels), np.int64)
    for label in np.flatnonzero(np.bincount(labels)):
        own = np.flatnonzero(labels == label)
        folds[own] = np.arange(len(own)) % FOLDS
    return folds


def _at_most(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) of a binomial X."""
    if successes >= trials:
        return 1.0
    log_p, log_q = math.log(probability), math.log1p(-probability)
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * log_p
        + (trials - k) * log_q
        for k in range(successes + 1)
    ]
    return float(sum(math.exp(value) for value in logs))
