"""How sure the discriminant over all classes may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from digit_products import digit_products
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from csk_sdk.errors import StateError
from csk_sdk.method.calibration import HIGHEST, LOWEST, calibrated, temperature
from csk_sdk.method.drift import Drift
from csk_sdk.method.heads import ClassStatistics, lda_head

PRIOR = 100.0
DIGITS = tuple("0123456789")


def cross_entropy(logits, labels, at):
    scores = logits / at
    return float(np.mean(logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]))


def minimum(logits, labels):
    """By scipy, from 0.5 to 100."""
    return minimize_scalar(
        lambda at: cross_entropy(logits, labels, at), bounds=(0.5, 100.0), method="bounded", options={"xatol": 1e-9}
    ).x  # fmt: skip


@pytest.fixture
def digits():
    """40 images of each digit, and the rest."""
    return digit_products(10, 40)


@pytest.mark.parametrize("scale", [2.0, 7.0, 30.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(scale: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 6))
    labels = np.array([rng.choice(6, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    found = temperature(scale * logits, labels)
    expected = minimum(scale * logits, labels)
    assert found == pytest.approx(expected, rel=1e-5)
    # These labels were drawn with the logits' own probabilities.
    assert found == pytest.approx(scale, rel=0.2)


def test_it_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    assert temperature(1e6 * logits, labels) == HIGHEST
    assert temperature(0.01 * logits, logits.argmax(axis=1)) == LOWEST


def test_the_temperature_suits_other_pictures_of_these_classes(digits) -> None:
    (x, labels), (tested, answers) = digits
    known = ClassStatistics.empty(150).add(x, labels, DIGITS)
    mended = calibrated(known, x, labels, DIGITS, PRIOR)
    weight, bias = lda_head(known, PRIOR)
    logits = tested @ weight.T + bias
    best = minimum(logits, answers)
    assert best > 1.5
    assert mended.temperature == pytest.approx(best, rel=0.2)

    assert cross_entropy(logits, answers, mended.temperature) < 0.7 * cross_entropy(logits, answers, 1.0)


def test_no_decision_changes(digits) -> None:
    (x, labels), _ = digits
    known = ClassStatistics.empty(150).add(x, labels, DIGITS)
    weight, bias = lda_head(known, PRIOR)
    cooler, lower = lda_head(replace(known, temperature=4.0), PRIOR)
    np.testing.assert_allclose(4.0 * cooler, weight, rtol=1e-5)
    np.testing.assert_allclose(4.0 * lower, bias, rtol=1e-5)


def test_a_class_of_one_picture_is_never_judged_by_others(digits) -> None:
    (x, labels), _ = digits
    alone = labels.copy()
    alone[np.flatnonzero(labels == 9)[1:]] = 8
    with_it = calibrated(ClassStatistics.empty(150), x, alone, DIGITS, PRIOR).temperature
    without = calibrated(
        ClassStatistics.empty(150), x[alone < 9], alone[alone < 9], DIGITS[:9], PRIOR
    ).temperature
    assert with_it == pytest.approx(without, rel=0.25)


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [2, 2]])
def test_too_few_pictures_tell_nothing(labels: list[int]) -> None:
    x = np.random.default_rng(4).normal(size=(len(labels), 5)).astype(np.float32)
    known = ClassStatistics.empty(5).add(x, np.array(labels), ["a", "b", "c"])
    assert calibrated(known, x, np.array(labels), ["a", "b", "c"], PRIOR) is known


def test_it_is_kept_with_the_statistics() -> None:
    rng = np.random.default_rng(5)
    first = ClassStatistics.empty(3).add(rng.normal(size=(9, 3)).astype(np.float32), np.arange(9) % 3, "abc")
    known, later = replace(first, temperature=5.5), replace(first, temperature=9.0)
    assert ClassStatistics.from_tensors(known.tensors()).temperature == 5.5
    assert ClassStatistics.from_tensors(first.tensors()).temperature is None
    # What was measured first stays.
    assert known.merge(later).temperature == 5.5
    assert first.merge(later).temperature == 9.0
    assert known.scaled(2.0).temperature == 5.5
    assert Drift(np.eye(3), np.eye(3), np.zeros((0, 3))).statistics(known).temperature == 5.5
    tensors = known.tensors()
    first.replace_in(tensors)
    assert "statistics.temperature" not in tensors


@pytest.mark.parametrize("stored", [[0.0], [-1.0], [np.nan], [np.inf], [], [1.0, 2.0]])
def test_a_temperature_that_nothing_can_be_divided_by_is_refused(stored: list[float]) -> None:
    known = ClassStatistics.empty(3).tensors() | {"statistics.temperature": np.array(stored)}
    with pytest.raises(StateError, match="which is not one number above 0"):
        ClassStatistics.from_tensors(known)
