"""Covariances of few images, and maps that these add to the identity, against the whole matrices."""

import numpy as np
import pytest

from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.heads import ClassStatistics, Shrunk, lda_head
from csk_sdk.method.thin import ThinInverse, thin_rows

F = 96


def known(images: int, seed: int = 0) -> ClassStatistics:
    """Features of very different sizes, one that never fires and one that is always the same."""
    rng = np.random.default_rng(seed)
    seen = np.maximum(rng.normal(size=(images, F)) + 0.5, 0.0) * 10.0 ** (np.arange(F) % 7 - 3)
    seen[:, 0], seen[:, 1] = 0.0, 3.0
    return ClassStatistics.empty(F).add(seen.astype(np.float32), np.arange(images) % 3, ["a", "b", "c"])


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """What a number is off by at most, as a share of the largest of its column."""
    return float((np.abs(found - expected).max(axis=0) / np.abs(expected).max(axis=0)).max())


@pytest.mark.parametrize("images", [4, 9, 24])
def test_a_covariance_of_few_images_is_a_few_rows(images: int) -> None:
    statistics = known(images)
    covariance = statistics.covariance()
    rows = thin_rows(covariance, statistics.rounding)
    assert rows is not None
    # One more for rounding in the feature that never changes.
    assert len(rows) <= images - 3 + 1
    deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0) + statistics.rounding)
    assert np.abs((rows.T @ rows - covariance) / np.outer(deviations, deviations)).max() < 1e-9


@pytest.mark.parametrize("prior", [1.0, 100.0])
@pytest.mark.parametrize("images", [4, 9, 24])
def test_its_inverse_is_that_of_the_whole_matrix(images: int, prior: float) -> None:
    statistics = known(images)
    shrunk = Shrunk.of(statistics, prior)
    assert shrunk is not None
    assert isinstance(shrunk.solve, ThinInverse)
    within, share = statistics.covariance(), prior / (images - 3 + prior)
    assert shrunk.shrinkage == pytest.approx(share)
    whole = (1.0 - share) * within
    np.einsum("ii->i", whole)[:] += share * np.diag(within) + statistics.rounding
    # Scaled first: features of six orders of magnitude are no matter of the mathematics.
    scale = np.sqrt(np.diag(whole))
    inverse = np.linalg.inv(whole / np.outer(scale, scale)) / np.outer(scale, scale)
    assert off(shrunk.solve(np.eye(F)), inverse) < 1e-8
    assert shrunk.noise == pytest.approx(np.trace(inverse @ within), rel=1e-8)


def test_a_covariance_of_many_images_stays_whole() -> None:
    statistics = known(4 * F)
    assert thin_rows(statistics.covariance(), statistics.rounding) is None
    # Where fewer count than it was made of, as after some were forgotten.
    less = ClassStatistics(
        statistics.classes, statistics.gram / 50.0, statistics.sums / 50.0, statistics.counts / 50.0
    )
    shrunk = Shrunk.of(less, 100.0)
    assert shrunk is not None
    assert not isinstance(shrunk.solve, ThinInverse)


def test_without_a_prior_the_head_is_that_of_the_whole_matrix() -> None:
    assert np.isfinite(lda_head(known(9), 0.0)[0]).all()


def test_a_drift_of_few_images_does_as_its_matrix() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(size=(10, F)).astype(np.float32) + 1.0
    drift = DriftEstimate(F)
    drift.add(before, before + 0.2 * rng.normal(size=before.shape).astype(np.float32))
    found = drift.fit()
    statistics, other = known(200), rng.normal(size=(F, F))
    moved = found.statistics(statistics)
    np.testing.assert_allclose(
        moved.gram, found.forward @ statistics.gram @ found.forward.T, rtol=1e-10, atol=1e-6
    )
    np.testing.assert_array_equal(moved.gram, moved.gram.T)
    np.testing.assert_allclose(found.behind(other), found.forward @ other, rtol=1e-10, atol=1e-10)
