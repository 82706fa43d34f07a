"""The estimate of forgetting against accuracies counted on real samples, and what a device does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, TaskError
from csk_sdk.learning.acceptance import worst_of
from csk_sdk.method.drift import DriftEstimate
from csk_sdk.method.forgetting import WIDTH, Spread, estimated_forgetting
from csk_sdk.method.heads import ClassStatistics, lda_head

CLASSES = ("a", "b", "c", "d")


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0], ids=["still", "some", "far"])
def test_estimate_agrees_with_counting(size: float) -> None:
    rng = np.random.default_rng(3)
    f, mixing = 12, rng.normal(size=(12, 12)) / 3
    means = rng.normal(size=(4, f))
    turn = np.eye(f) + size * rng.normal(size=(f, f)) / np.sqrt(f)

    def pictures(count: int, width: float) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(4, size=count)
        return (means[labels] + width * rng.normal(size=(count, f)) @ mixing).astype(np.float32), labels

    def moved(x: np.ndarray) -> np.ndarray:
        return (x @ turn.T + 0.5 * size * rng.normal(size=x.shape)).astype(np.float32)

    seen, labels = pictures(8000, 1.0)
    statistics = ClassStatistics.empty(f).add(seen, labels, CLASSES)
    head = lda_head(statistics, 0.02)
    new = rng.normal(size=(400, f)).astype(np.float32)
    drift = DriftEstimate(f)
    after = moved(new)
    drift.add(new, after)
    map_ = drift.fit()
    found = estimated_forgetting(statistics, {"old": CLASSES}, {"old": head}, {"old": head}, map_, rng)["old"]
    # Images that were never trained on are WIDTH times as far from their means; these are new, and really moved.
    x, truth = pictures(20000, WIDTH)
    right = [float(np.mean((y @ head[0].T + head[1]).argmax(1) == truth)) for y in (x, moved(x))]
    assert found == pytest.approx(100 * (right[0] - right[1]), abs=4.0)
    if size == 0.0:
        assert found == 0.0
    if size == 1.0:
        assert found > 15


def test_tasks_without_statistics_are_left_out() -> None:
    statistics = ClassStatistics.empty(2).add(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"))
    head = lda_head(statistics, 0.5)
    drift = DriftEstimate(2)
    drift.add(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    map_ = drift.fit()
    found = estimated_forgetting(
        statistics,
        {"known": ("a", "b"), "unknown": ("a", "z")},
        {"known": head, "unknown": head},
        {"known": head, "unknown": head},
        map_,
        np.random.default_rng(0),
    )
    assert set(found) == {"known"}
    assert worst_of(found) == ("known", found["known"])
    assert worst_of({}) == ("", 0.0)


@pytest.mark.parametrize("pictures", [4, 9, 40], ids=["hardly any", "fewer than features", "enough"])
@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["", "far from zero"])
def test_made_up_features_spread_as_the_statistics_say(pictures: int, offset: float) -> None:
    """Also where the covariance is singular: of few images, with a feature that never fires."""
    rng = np.random.default_rng(4)
    f = 12
    x = (offset + rng.normal(size=(pictures, f)) @ rng.normal(size=(f, f))).astype(np.float32)
    x[:, 3] = 0.0
    labels = np.arange(pictures) % 2
    statistics = ClassStatistics.empty(f).add(x, labels, ("a", "b"))
    exact = x.astype(np.float64)
    within = np.concatenate([exact[labels == one] - exact[labels == one].mean(axis=0) for one in (0, 1)])
    truth = within.T @ within / (pictures - 2)
    spread = Spread(statistics)
    np.testing.assert_allclose(
        spread.factor @ spread.factor.T, truth, rtol=0, atol=1e-5 * np.trace(truth) / f
    )
    # Scores of few heads are drawn themselves, of many by the features; of the same head, they are the same.
    for count in (5, 7):
        weights = rng.normal(size=(count, f)) / np.trace(truth) ** 0.5
        weights[1] = weights[0]
        draws = spread.of(weights)
        assert draws.shape == (count, 5 if count == 5 else f)
        np.testing.assert_allclose(draws @ draws.T, weights @ truth @ weights.T, rtol=0, atol=1e-5)
        np.testing.assert_allclose(draws[0], draws[1], rtol=0, atol=1e-5)


# A device that forgets

WILD: dict[str, Any] = {"energy": 0.0, "channel_ratio": 1.0, "learning_rate": 1.0, "max_forgetting": 3.0}


def accuracy(learner: Learner, digits: Digits, chosen: tuple[int, ...], task: str) -> float:
    images, labels = digits.arrays(chosen, 100, 170)
    return float(
        np.mean(learner.predict(images, task).labels == np.array([NAMES[d] for d in chosen])[labels])
    )


@pytest.fixture
def wild(digits_bundle: Path, tmp_path: Path) -> Learner:
    return open_learner(digits_bundle, tmp_path / "state", **WILD)


def test_centers_that_cost_too_much_are_dropped(wild: Learner, digits: Digits) -> None:
    before = accuracy(wild, digits, (0, 1, 2, 3), "base")
    centers = {k: v.copy() for k, v in wild.generation.tensors.items() if k.startswith("center/")}
    report = wild.learn(digits.task("01", (4, 5)))
    assert report.heads_only
    assert report.forgetting > 3.0
    assert "'base'" in report.warnings[0]
    assert "--max-forgetting" in report.warnings[0]
    assert wild.tasks[0].notes == report.warnings
    for name, center in centers.items():
        assert wild.generation.tensors[name].tobytes() == center.tobytes()
    assert accuracy(wild, digits, (0, 1, 2, 3), "base") == before
    assert accuracy(wild, digits, (4, 5), "01") > 0.8


def test_or_the_task_is_refused(wild: Learner, digits: Digits) -> None:
    config = wild.config.with_overrides(on_forgetting="refuse")
    with pytest.raises(
        TaskError, match=r"'01' would cost 'base' about \d+\.\d percentage points .*lower --learning-rate"
    ):
        wild.learn(digits.task("01", (4, 5)), config)
    assert wild.generation.number == 0


def test_what_was_dropped_would_really_have_forgotten(wild: Learner, digits: Digits) -> None:
    before = accuracy(wild, digits, (0, 1, 2, 3), "base")
    report = wild.learn(digits.task("01", (4, 5)), wild.config.with_overrides(max_forgetting=100.0))
    assert not report.heads_only
    assert report.warnings == ()
    assert accuracy(wild, digits, (0, 1, 2, 3), "base") < before - 0.03


def test_a_stream_drops_them_too(wild: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((4, 5), 0, 60)
    order = np.random.default_rng(0).permutation(len(images))
    with wild.stream("01", NAMES[4:6]) as stream:
        for _ in range(4):
            for part in np.array_split(order, 8):
                stream.observe(images[part], labels[part])
    assert "was dropped" in stream.warnings[0]
    assert wild.tasks[0].notes == stream.warnings
