"""A task's head beside what is known: against scikit-learn, on features whitened by a root of its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import empirical_covariance
from sklearn.linear_model import LogisticRegression

from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.logistic import KNOWN_DECAY, KNOWN_SHARE, known_head, logistic_head
from csk_sdk.method.symmetric import root_of

PRIOR = 100.0


def drawn(rng: np.random.Generator, images: int, features: int, classes: int) -> tuple[NDArray, NDArray]:
    """Of each class as many images, whose features go together in the same way and are in different units."""
    together = np.eye(features) + 0.5 * rng.normal(size=(features, features)) / np.sqrt(features)
    labels = np.repeat(np.arange(classes), images)
    x = (
        rng.normal(size=(len(labels), features)) @ together
        + 0.6 * rng.normal(size=(classes, features))[labels]
    )
    return (3.0 + x * 10.0 ** (np.arange(features) % 3 - 1)).astype(np.float32), labels


def known_of(x: NDArray, labels: NDArray) -> ClassStatistics:
    names = [str(label) for label in range(int(labels.max()) + 1)]
    return ClassStatistics.empty(x.shape[1]).add(x, labels, names)


def shrunk_by_hand(x: NDArray, labels: NDArray) -> NDArray:
    """`(1 - a) Sw + a diag(Sw)` of images, by scikit-learn's covariance of what is left of them."""
    left = x - np.stack([x[labels == label].mean(axis=0, dtype=np.float64) for label in labels])
    freedom = len(labels) - len(np.unique(labels))
    within = empirical_covariance(left, assume_centered=True) * len(labels) / freedom
    return (freedom * within + PRIOR * np.diag(np.diag(within))) / (freedom + PRIOR)


# Many images, and fewer than a quarter of the features: whole, and of few rows.
@pytest.mark.parametrize(("images", "features"), [(40, 12), (4, 90)])
def test_under_its_root_the_covariance_is_the_identity(images: int, features: int) -> None:
    x, labels = drawn(np.random.default_rng(0), images, features, 5)
    shrunk = Shrunk.of(known_of(x, labels), PRIOR)
    assert shrunk is not None
    covariance = shrunk_by_hand(x, labels)
    root = shrunk.whiten(np.eye(features))
    np.testing.assert_allclose(root.T @ covariance @ root, np.eye(features), atol=1e-5)
    weights = np.random.default_rng(1).normal(size=(3, features))
    np.testing.assert_allclose(shrunk.unwhiten(weights), weights @ root.T, atol=1e-9 * np.abs(root).max())
    np.testing.assert_allclose(shrunk.unwhiten(root), shrunk.solve(np.eye(features)), rtol=1e-6, atol=1e-9)


def test_of_what_rounding_left_indefinite_the_root_is_that_of_its_positive_part() -> None:
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.1, -1e-6])
    found = root_of((turned * values) @ turned.T)
    root, inverse = found.whiten(np.eye(6)), found.solve(np.eye(6))
    np.testing.assert_allclose(inverse, (turned / values) @ turned.T, rtol=1e-6)
    kept = turned[:, :5]
    np.testing.assert_allclose(root @ root.T, (kept / values[:5]) @ kept.T, atol=1e-3)


@pytest.mark.parametrize(("images", "features"), [(40, 12), (4, 90)])
def test_it_is_two_thirds_of_a_fit_in_the_metric_of_what_is_known(images: int, features: int) -> None:
    x, labels = drawn(np.random.default_rng(2), images, features, 5)
    own = labels >= 2
    x_own, labels_own = x[own], labels[own] - 2
    shrunk = Shrunk.of(known_of(x, labels), PRIOR)
    assert shrunk is not None
    first = logistic_head(x_own, labels_own, 3)
    found = known_head(first, x_own, labels_own, shrunk)
    values, vectors = np.linalg.eigh(shrunk_by_hand(x, labels))
    whitened = (x_own - x_own.mean(axis=0, dtype=np.float64)) @ (vectors / np.sqrt(values))
    strength = 1.0 / (len(x_own) * KNOWN_DECAY)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(whitened, labels_own)
    said = KNOWN_SHARE * theirs.decision_function(whitened) + (1 - KNOWN_SHARE) * (
        x_own @ first[0].T + first[1]
    )
    ours = x_own @ found[0].T + found[1]
    # Of a softmax, logits tell their differences only.
    said, ours = (logits - logits.mean(axis=1, keepdims=True) for logits in (said, ours))
    np.testing.assert_allclose(ours, said, atol=2e-3 * np.abs(said).max())
    assert found[0].dtype == found[1].dtype == np.float32


def test_it_is_right_more_often_than_a_head_of_few_images_alone() -> None:
    """What ten known classes of many images show of how features go together, ten new images of a class cannot."""
    gained = []
    for draw in range(8):
        rng = np.random.default_rng(draw)
        x, labels = drawn(rng, 400, 40, 14)
        few = np.concatenate([np.flatnonzero(labels == label)[:10] for label in range(10, 14)])
        others = np.concatenate([np.flatnonzero(labels == label)[10:] for label in range(10, 14)])
        learned = np.concatenate([np.flatnonzero(labels < 10), few])
        shrunk = Shrunk.of(known_of(x[learned], labels[learned]), PRIOR)
        assert shrunk is not None
        alone = logistic_head(x[few], labels[few] - 10, 4)
        beside = known_head(alone, x[few], labels[few] - 10, shrunk)
        right = [
            ((x[others] @ w.T + b).argmax(axis=1) == labels[others] - 10).mean() for w, b in (alone, beside)
        ]
        gained.append(100 * (right[1] - right[0]))
    assert np.mean(gained) > 2.0
    assert np.mean(gained) > 3 * np.std(gained) / np.sqrt(len(gained))
