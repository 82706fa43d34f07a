"""A new class that can be told from an old one, and takes much of it all the same, is named."""

from __future__ import annotations

import numpy as np
import pytest

from csk_sdk.learning.acceptance import told_twins
from csk_sdk.method.decisions import Judgement, judge
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.left_out import JudgedImages
from csk_sdk.objectives.classification import PRIOR_PICTURES

FEATURES, COUNT = 8, 400
CLASSES = ("old", "far", "new")


def drawn(rng: np.random.Generator, apart: float, count: int) -> np.ndarray:
    """Images of one spread: of `old`, of `far`, and of `new`, which is so many deviations from `old`."""
    x = rng.normal(size=(len(CLASSES), count, FEATURES))
    x[1, :, 1] += 12.0
    x[2, :, 0] += apart
    return x.astype(np.float32)


def judged(apart: float) -> tuple[Judgement, float]:
    """What is said of `new`, and the share of `old` that it takes, counted."""
    rng = np.random.default_rng(0)
    x = drawn(rng, apart, COUNT)
    statistics = ClassStatistics.empty(FEATURES)
    statistics = statistics.add(x.reshape(-1, FEATURES), np.repeat(np.arange(3), COUNT), CLASSES)
    images = JudgedImages.of(
        statistics, x[2], np.zeros(COUNT, np.int64), ["new"], Shrunk.of(statistics, PRIOR_PICTURES)
    )
    assert images is not None
    weight, bias = lda_head(statistics, PRIOR_PICTURES)
    # As wide as images that the network was not trained on.
    others = 1.5 * rng.normal(size=(4000, FEATURES))
    taken = float(np.mean((others @ weight.T + bias).argmax(axis=1) == 2))
    return judge(statistics, images, ["new"], [], [], rng), taken


@pytest.mark.parametrize("apart", [2.5, 3.5])
def test_a_rival_is_named_with_what_it_takes(apart: float) -> None:
    found, taken = judged(apart)
    assert found.twins == {}
    assert found.rivals["new"].old == "old"
    assert found.rivals["new"].taken == pytest.approx(taken, abs=0.06)
    (said,) = told_twins(found, (), "sound")
    assert said == (
        f"'new' is hard to tell from 'old': about {100 * found.rivals['new'].taken:.0f} % of 'old' will be called "
        "'new'. More sounds of both help; if both are the same thing, give them one name."
    )


def test_one_that_cannot_be_told_is_a_twin_and_one_that_can_is_neither() -> None:
    twin, _ = judged(0.0)
    assert (set(twin.twins), twin.rivals) == ({"new"}, {})
    clear, _ = judged(8.0)
    assert (clear.twins, clear.rivals) == ({}, {})


def test_where_a_twin_is_left_out_rivals_are_those_of_the_rest() -> None:
    rival, _ = judged(2.5)
    twin, _ = judged(0.0)
    assert twin.without(("new",), rival).rivals == rival.rivals
