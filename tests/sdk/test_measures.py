"""Measures against scikit-learn's, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, r2_score

from csk_sdk.method.task_metrics import (
    average_precision,
    mean_average_precision,
    r_squared,
    root_mean_squared_error,
)


@given(n=st.integers(1, 40), levels=st.integers(1, 50), seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_average_precision_is_scikit_learns_also_with_ties(n: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=n).astype(np.float32)
    positive = rng.random(n) < 0.4
    positive[0] = True
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))


def test_average_precision_by_hand() -> None:
    # Ranked: yes no yes no: precision 1 at the first half of the positives, 2/3 at the second.
    scores = np.array([0.1, 0.9, 0.4, 0.6], np.float32)
    assert average_precision(scores, np.array([0, 1, 1, 0], bool)) == pytest.approx((1 + 2 / 3) / 2)


def test_map_is_the_mean_over_the_classes_that_occur() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 4)).astype(np.float32)
    labels = (rng.random((50, 4)) < 0.3).astype(np.float32)
    labels[:, 2] = 0
    expected = average_precision_score(labels[:, [0, 1, 3]], scores[:, [0, 1, 3]], average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected)
    assert np.isnan(mean_average_precision(scores, np.zeros((50, 4), np.float32)))


@given(n=st.integers(2, 30), targets=st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_r_squared_is_scikit_learns(n: int, targets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(n, targets)).astype(np.float32)
    values = (labels + rng.normal(size=labels.shape) * rng.choice([0.1, 1, 5])).astype(np.float32)
    assert r_squared(values, labels) == pytest.approx(r2_score(labels, values), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("value", "expected"), [(2.0, 1.0), (2.5, 0.0)])
def test_r_squared_of_labels_that_do_not_vary(value: float, expected: float) -> None:
    labels, values = np.full((4, 1), 2, np.float32), np.full((4, 1), value, np.float32)
    assert r_squared(values, labels) == expected == r2_score(labels, values)


def test_root_mean_squared_error_has_the_targets_units() -> None:
    values = np.array([[3, 100], [5, 100]], np.float32)
    labels = np.array([[0, 100], [1, 110]], np.float32)
    np.testing.assert_allclose(root_mean_squared_error(values, labels), [np.sqrt(12.5), np.sqrt(50)])
