"""Which images are worth a step: gradients by finite differences, sets by trying them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from csk_sdk import TrainingConfig
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, MSE
from csk_sdk.method.importance import carrying, gradient_norms
from csk_sdk.objectives import objective_of

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
LABELS = {
    CROSS_ENTROPY: np.array([0, 1, 2, 2, 1, 0]),
    BINARY_CROSS_ENTROPY: RNG.integers(0, 2, size=(6, 3)).astype(np.float32),
    MSE: RNG.normal(size=(6, 3)).astype(np.float32),
}


@pytest.mark.parametrize("loss", LABELS)
def test_residuals_are_the_gradient_of_each_image_s_loss(loss: str) -> None:
    objective, labels = objective_of(loss), LABELS[loss]
    found = objective.residuals(LOGITS, labels, TrainingConfig())
    wide = LOGITS.astype(np.float64)
    slopes = np.empty_like(wide)
    for image, column in np.ndindex(wide.shape):
        sides = []
        for step in (1e-4, -1e-4):
            moved = wide[image : image + 1].copy()
            moved[0, column] += step
            sides.append(objective.head_loss(moved, labels[image : image + 1]))
        slopes[image, column] = (sides[0] - sides[1]) / 2e-4
    factor = float(np.vdot(found, slopes) / np.vdot(slopes, slopes))
    np.testing.assert_allclose(found, factor * slopes, atol=1e-5)


def test_smoothed_labels_pull_on_whoever_is_too_sure() -> None:
    sure = np.array([[30.0, 0.0, 0.0]], np.float32)
    objective, labels = objective_of(CROSS_ENTROPY), np.array([0])
    assert gradient_norms(objective.residuals(sure, labels, TrainingConfig()))[0] < 1e-9
    smoothed = objective.residuals(sure, labels, TrainingConfig(label_smoothing=0.3))
    np.testing.assert_allclose(smoothed, [[0.2, -0.1, -0.1]], atol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.999])
def test_no_smaller_set_carries_as_much(share: float) -> None:
    norms = RNG.random(9) ** 3
    chosen = carrying(norms, share)
    wanted = share * norms.sum()
    assert norms[chosen].sum() >= wanted
    assert list(chosen) == sorted(set(chosen.tolist()))
    smaller = combinations(range(len(norms)), len(chosen) - 1)
    assert all(norms[list(some)].sum() < wanted for some in smaller)


def test_edges() -> None:
    norms = np.array([0.0, 2.0, 1.0, 2.0, 0.0])
    assert carrying(norms, 1.0).tolist() == [0, 1, 2, 3, 4]
    # Of equals the lower index, also where it takes more than the share to be enough.
    assert carrying(norms, 0.3).tolist() == [1]
    assert carrying(norms, 0.3, least=4).tolist() == [0, 1, 2, 3]
    assert carrying(norms, 0.3, least=9).tolist() == [0, 1, 2, 3, 4]
    assert carrying(np.zeros(3), 0.9, least=2).tolist() == [0, 1]
    assert carrying(np.empty(0), 0.9, least=2).tolist() == []
