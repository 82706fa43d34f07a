"""Drift compensation against drifts that are known."""

import numpy as np
import pytest

from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.heads import ClassStatistics, lda_head

F = 12


def features(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.maximum(rng.normal(size=(n, F)) + 0.5, 0.0).astype(np.float32)


def estimate(before: np.ndarray, after: np.ndarray, ridge: float) -> object:
    drift = DriftEstimate(F)
    for start in range(0, len(before), 50):
        drift.add(before[start : start + 50], after[start : start + 50])
    return drift.fit(ridge)


def test_no_drift_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    seen = features(rng, 200)
    drift = estimate(seen, seen, 0.01)
    weight = rng.normal(size=(3, F)).astype(np.float32)
    assert drift.head(weight).tobytes() == weight.tobytes()
    statistics = ClassStatistics.empty(F).add(seen, rng.integers(0, 3, 200), ["a", "b", "c"])
    moved = drift.statistics(statistics)
    np.testing.assert_allclose(moved.gram, statistics.gram, rtol=1e-12)
    np.testing.assert_allclose(moved.sums, statistics.sums, rtol=1e-12)


def test_a_linear_drift_is_found_and_followed_on_other_data() -> None:
    rng = np.random.default_rng(1)
    truth = np.eye(F) + 0.1 * rng.normal(size=(F, F))
    seen, old = features(rng, 400), features(rng, 300)
    drift = estimate(seen, (seen @ truth.T).astype(np.float32), 1e-9)
    np.testing.assert_allclose(drift.forward, truth, atol=1e-4)
    np.testing.assert_allclose(drift.backward, np.linalg.inv(truth), atol=1e-4)
    weight = rng.normal(size=(4, F)).astype(np.float32)
    np.testing.assert_allclose((old @ truth.T) @ drift.head(weight).T, old @ weight.T, atol=1e-3)
    labels = rng.integers(0, 2, 300)
    moved = drift.statistics(ClassStatistics.empty(F).add(old, labels, ["a", "b"]))
    exact = ClassStatistics.empty(F).add((old @ truth.T).astype(np.float32), labels, ["a", "b"])
    np.testing.assert_allclose(moved.gram, exact.gram, rtol=1e-3)
    np.testing.assert_allclose(moved.sums, exact.sums, rtol=1e-3)
    assert moved.counts.tobytes() == exact.counts.tobytes()
    for ours, theirs in zip(lda_head(moved, 0.1), lda_head(exact, 0.1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_the_ridge_solves_its_own_normal_equations(ridge: float) -> None:
    rng = np.random.default_rng(2)
    before = features(rng, 60).astype(np.float64)
    after = before + 0.2 * rng.normal(size=before.shape)
    drift = estimate(before.astype(np.float32), after.astype(np.float32), ridge)
    pull = ridge * np.trace(before.T @ before) / F
    # Ridge regression on augmented rows: sqrt(pull) * I must map to sqrt(pull) * I.
    x = np.vstack([before, np.sqrt(pull) * np.eye(F)])
    y = np.vstack([after, np.sqrt(pull) * np.eye(F)])
    expected = np.linalg.lstsq(x, y, rcond=None)[0].T
    np.testing.assert_allclose(drift.forward, expected, atol=1e-5)


def test_unseen_directions_are_left_alone() -> None:
    rng = np.random.default_rng(3)
    before = features(rng, 100)
    before[:, 6:] = 0.0
    after = before.copy()
    after[:, :6] *= 1.5
    drift = estimate(before, after, 0.01)
    np.testing.assert_allclose(drift.forward[6:, 6:], np.eye(6), atol=1e-6)
    assert np.all(np.diag(drift.forward)[:6] > 1.3)


def test_dead_features_are_no_drift() -> None:
    nothing = np.zeros((10, F), np.float32)
    np.testing.assert_array_equal(estimate(nothing, nothing, 0.01).forward, np.eye(F))


@pytest.mark.parametrize("count", [8, 60, 600], ids=["fewer than features", "more", "more than are kept"])
def test_what_a_map_leaves_of_a_picture_is_by_the_map_of_all_others(count: int) -> None:
    rng = np.random.default_rng(4)
    before = features(rng, count)
    after = (before + 0.2 * rng.normal(size=before.shape)).astype(np.float32)
    drift = estimate(before, after, 0.05)
    assert drift.unexplained.shape == (min(count, 512), F)
    # The pull stays that of all images: what is left out is the one image.
    pull = 0.05 * np.trace(before.T.astype(np.float64) @ before) / F
    for left_out in (0, 5, len(drift.unexplained) - 1):
        others = np.arange(count) != left_out
        x = np.vstack([before[others], np.sqrt(pull) * np.eye(F)])
        y = np.vstack([after[others], np.sqrt(pull) * np.eye(F)])
        map_ = np.linalg.lstsq(x, y, rcond=None)[0]
        expected = after[left_out] - before[left_out] @ map_
        np.testing.assert_allclose(drift.unexplained[left_out], expected, atol=1e-4)


def test_fewer_pictures_than_features_do_not_explain_themselves() -> None:
    rng = np.random.default_rng(5)
    before = features(rng, 8)
    noise = rng.normal(size=before.shape)
    drift = estimate(before, (before + noise).astype(np.float32), 0.01)
    itself = before + noise - before @ drift.forward.T
    assert np.linalg.norm(itself) < 0.5 * np.linalg.norm(noise)
    assert np.linalg.norm(drift.unexplained) > 0.9 * np.linalg.norm(noise)
