"""The exact head against scikit-learn's logistic regression, which minimises the same objective."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from csk_sdk.method.logistic import logistic_head


def _task(rng: np.random.Generator, n: int, f: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    mixing = rng.normal(size=(f, f)) * np.geomspace(1.0, 0.05, f)
    features = np.maximum(rng.normal(size=(n, f)) @ mixing + 0.2, 0.0).astype(np.float32)
    scores = features @ rng.normal(size=(f, classes)) + rng.gumbel(size=(n, classes)) * 3.0
    labels = scores.argmax(axis=1)
    labels[:classes] = np.arange(classes)
    return features, labels.astype(np.int64)


@pytest.mark.parametrize(("n", "f", "classes"), [(400, 12, 2), (600, 40, 10), (30, 64, 3)])
def test_same_optimum_as_scikit_learn(n: int, f: int, classes: int) -> None:
    features, labels = _task(np.random.default_rng(n), n, f, classes)
    decay = 0.01
    weight, bias = logistic_head(features, labels, classes, decay, tolerance=1e-7, iterations=2000)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = LogisticRegression(C=1 / (decay * n), max_iter=5000, tol=1e-9)
        reference.fit((features - mean) / deviation, labels)
    expected = reference.predict_proba((features - mean) / deviation)
    logits = (features @ weight.T + bias).astype(np.float64)
    got = np.exp(logits - logits.max(axis=1, keepdims=True))
    got /= got.sum(axis=1, keepdims=True)
    if classes == 2:
        # scikit-learn decays one weight vector there, where the softmax has two, of opposite sign.
        assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97
    else:
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_feature_that_never_fires_gets_no_weight() -> None:
    features, labels = _task(np.random.default_rng(0), 100, 8, 3)
    features[:, 5] = 0.25
    weight, bias = logistic_head(features, labels, 3)
    assert np.all(weight[:, 5] == 0.0)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


def test_independent_of_the_features_scale() -> None:
    features, labels = _task(np.random.default_rng(1), 300, 10, 4)
    scale = np.geomspace(1e-3, 1e3, 10).astype(np.float32)
    plain = logistic_head(features, labels, 4)
    scaled = logistic_head(features * scale, labels, 4)
    np.testing.assert_allclose(
        (features * scale) @ scaled[0].T + scaled[1], features @ plain[0].T + plain[1], atol=0.02
    )


@pytest.mark.slow
def test_default_tolerance_is_near_the_optimum() -> None:
    features, labels = _task(np.random.default_rng(2), 2000, 64, 10)
    quick = logistic_head(features, labels, 10)
    exact = logistic_head(features, labels, 10, tolerance=1e-8, iterations=5000)
    same = (features @ quick[0].T + quick[1]).argmax(1) == (features @ exact[0].T + exact[1]).argmax(1)
    assert same.mean() > 0.99


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-7])
@pytest.mark.parametrize(("n", "f"), [(12, 40), (40, 12)], ids=["few", "many"])
def test_images_that_are_all_the_same_tell_nothing(n: int, f: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    same = 3.0 + np.tile(rng.normal(size=f), (n, 1)) + noise * rng.normal(size=(n, f))
    weight, bias = logistic_head(same.astype(np.float32), np.arange(n) % 3, 3)
    assert np.isfinite(weight).all()
    np.testing.assert_allclose(bias + weight @ same[0].astype(np.float32), bias[0], atol=0.2)
