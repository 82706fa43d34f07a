"""How many matrices of features by features a lesson's mathematics has at once: they are its largest arrays.

Counted by `tracemalloc`, beside what it is given, in the size of one of them.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from csk_sdk.method.contributions import ContributionSum, Lesson
from csk_sdk.method.decisions import judge
from csk_sdk.method.drift import Drift, DriftEstimate
from csk_sdk.method.forgetting import estimated_forgetting
from csk_sdk.method.heads import ClassStatistics, Scatter, Shrunk, lda_head
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.method.novelty import novelty

F, CLASSES, IMAGES = 640, ("a", "b", "c"), 60
PRIOR = 100.0


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, F)).astype(np.float32)


def known() -> ClassStatistics:
    """As they are read from a state: the spread around the means of many images."""
    counts = np.full(len(CLASSES), 3000.0)
    rows = np.random.default_rng(1).normal(size=(9 * F, F))
    return ClassStatistics(CLASSES, Scatter(rows.T @ rows), 3000.0 * features(3).astype(np.float64), counts)


def lesson() -> Lesson:
    found = {}
    for name in CLASSES:
        total = ContributionSum(F)
        total.add(features(IMAGES))
        found[name] = total.total()
    return Lesson(CLASSES, found)


def drift() -> Drift:
    estimate = DriftEstimate(F)
    estimate.add(features(IMAGES), features(IMAGES) + 0.1 * features(IMAGES, 2))
    return estimate.fit()


def judged(statistics: ClassStatistics) -> object:
    labels = np.arange(IMAGES) % len(CLASSES)
    shrunk = Shrunk.of(statistics, PRIOR)
    images = JudgedImages.of(statistics, features(IMAGES), labels, CLASSES, shrunk)
    del shrunk
    assert images is not None
    return judge(statistics, images, CLASSES, CLASSES[:1], CLASSES[:2], np.random.default_rng(0))


def forgotten(statistics: ClassStatistics) -> object:
    heads = {"base": (features(3), np.zeros(3, np.float32))}
    rng = np.random.default_rng(0)
    return estimated_forgetting(statistics, {"base": CLASSES}, heads, heads, drift(), rng)


# Each with what it is given, and the most that it may have beside that.
LESSON = lesson()
WAYS: dict[str, tuple[Callable[[ClassStatistics], object], float]] = {
    "how unfamiliar images are": (lambda one: novelty(one, features(IMAGES)), 1.6),
    "what is known and a lesson": (LESSON.after, 1.6),
    "a head of all": (lambda one: lda_head(one, PRIOR), 1.6),
    # The root.
    "what decisions make of images": (judged, 1.7),
    "a root of what is not asked for again": (lambda one: Shrunk.of(one, PRIOR, spent=True), 0.6),
    # One that is made, and the map's product with what is known.
    "what is known, followed": (lambda one: drift().statistics(one), 2.6),
    "how features move": (lambda _: drift(), 1.0),
    "what old tasks lose": (forgotten, 1.2),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_more_matrices_are_there_at_once(way: str) -> None:
    how, most = WAYS[way]
    statistics = known()
    tracemalloc.start()
    try:
        how(statistics)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most * 8 * F**2


def test_statistics_that_are_not_spent_are_not_written_into() -> None:
    statistics = known()
    assert isinstance(statistics.matrix, Scatter)
    before = statistics.matrix.around.copy()
    for way in ("how unfamiliar images are", "what is known and a lesson", "what decisions make of images"):
        WAYS[way][0](statistics)
    forgotten(statistics)
    np.testing.assert_array_equal(statistics.matrix.around, before)
