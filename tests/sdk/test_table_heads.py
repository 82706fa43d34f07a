"""Heads for tables of labels against scikit-learn, which minimises the same objectives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from csk_sdk.method.logistic import binary_logistic_heads
from csk_sdk.method.ridge import ridge_head


def standard(features: np.ndarray) -> np.ndarray:
    exact = features.astype(np.float64)
    deviation = exact.std(axis=0)
    deviation[deviation == 0] = 1.0
    return (exact - exact.mean(axis=0)) / deviation


def drawn(n: int, f: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    features = np.maximum(rng.normal(size=(n, f)) * np.geomspace(0.01, 100, f) + 0.2, 0).astype(np.float32)
    scores = standard(features) @ rng.normal(size=(f, outputs)) + rng.normal(size=(n, outputs)) * 2
    return features, scores


@pytest.mark.parametrize(("n", "f", "classes"), [(400, 12, 1), (600, 40, 6), (30, 64, 3)])
def test_each_class_has_the_optimum_of_scikit_learn(n: int, f: int, classes: int) -> None:
    features, scores = drawn(n, f, classes)
    labels = (scores > 0.5).astype(np.float32)
    weight, bias = binary_logistic_heads(features, labels, 0.01, tolerance=1e-7, iterations=5000)
    assert (weight.shape, bias.shape) == ((classes, f), (classes,))
    assert weight.dtype == bias.dtype == np.float32
    got = 1 / (1 + np.exp(-(features @ weight.T + bias).astype(np.float64)))
    for one in range(classes):
        oracle = LogisticRegression(C=1 / (0.01 * n), max_iter=5000, tol=1e-9)
        oracle.fit(standard(features), labels[:, one])
        expected = oracle.predict_proba(standard(features))[:, 1]
        np.testing.assert_allclose(got[:, one], expected, atol=2e-3)


def test_the_default_tolerance_decides_as_the_optimum() -> None:
    features, scores = drawn(500, 30, 5)
    labels = (scores > 0).astype(np.float32)
    quick, exact = (
        binary_logistic_heads(features, labels, tolerance=tolerance, iterations=5000)
        for tolerance in (1e-4, 1e-8)
    )
    decided = [features @ weight.T + bias > 0 for weight, bias in (quick, exact)]
    assert (decided[0] == decided[1]).mean() > 0.99


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4, 5e35])
@pytest.mark.parametrize(("n", "f", "targets"), [(400, 12, 1), (300, 40, 3), (30, 64, 2)])
def test_ridge_is_scikit_learns_in_any_unit(n: int, f: int, targets: int, unit: float) -> None:
    features, scores = drawn(n, f, targets)
    labels = (unit * (scores + 7)).astype(np.float32)
    weight, bias = ridge_head(features, labels, 0.01)
    assert (weight.shape, bias.shape) == ((targets, f), (targets,))
    oracle = Ridge(alpha=0.01 * n).fit(standard(features), labels.astype(np.float64))
    expected = oracle.predict(standard(features)).reshape(n, targets)
    np.testing.assert_allclose(features @ weight.T + bias, expected, rtol=1e-3, atol=1e-3 * unit)


def test_features_that_never_fire_get_no_weight() -> None:
    features, scores = drawn(50, 8, 2)
    features[:, 3] = 0.25
    for weight, bias in (
        ridge_head(features, scores.astype(np.float32), 0.0),
        binary_logistic_heads(features, (scores > 0).astype(np.float32)),
    ):
        assert np.all(weight[:, 3] == 0.0)
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()


def test_a_class_that_every_picture_has_is_finite() -> None:
    features, _ = drawn(20, 4, 1)
    weight, bias = binary_logistic_heads(features, np.ones((20, 1), np.float32))
    assert np.isfinite(weight).all()
    assert np.all(features @ weight.T + bias > 2)
