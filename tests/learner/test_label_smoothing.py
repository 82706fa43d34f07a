"""Label smoothing, and the mask over classes of which no image has come yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import ConfigError, Learner, TrainingConfig
from csk_sdk.contract.manifest import CLASS_MASK, LABEL_SMOOTHING
from csk_sdk.runtime.sessions import Graph


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What every training step was given, and what it gave."""
    steps = []
    run = Graph.run

    def watched(self: Graph, feeds: Any, *arguments: Any, **named: Any) -> Any:
        found = run(self, feeds, *arguments, **named)
        if "loss" in found:
            steps.append(({name: np.copy(value) for name, value in feeds.items()}, found))
        return found

    monkeypatch.setattr(Graph, "run", watched)
    return steps


def entropy_bound(logits: np.ndarray, label: np.ndarray, smoothing: float) -> float:
    """The smoothed loss, in float64 from its definition."""
    z = logits.astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    target = np.eye(z.shape[1])[label] * (1 - smoothing) + smoothing / z.shape[1]
    return float(-np.mean(np.sum(target * log_p, axis=1)))


def test_by_default_the_graph_is_told_nothing_but_the_labels(
    learner: Learner, digits: Digits, fed: list[Any]
) -> None:
    learner.learn(digits.task("01", (4, 5)))
    assert not any(name in feeds for feeds, _ in fed for name in (LABEL_SMOOTHING, CLASS_MASK))


def test_smoothing_reaches_the_loss_and_still_learns(
    digits_bundle: Path, tmp_path: Path, digits: Digits, fed: list[Any]
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", label_smoothing=0.2)
    learner.learn(digits.task("01", (4, 5, 6)))
    assert learner.tasks[0].config["label_smoothing"] == 0.2
    for feeds, found in fed:
        assert feeds[LABEL_SMOOTHING] == np.float32(0.2)
        expected = entropy_bound(found["logits"], feeds["label"], 0.2)
        assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    images, labels = digits.arrays((4, 5, 6), 100, 170)
    truth = np.array(NAMES[4:7])[labels]
    assert np.mean(learner.predict(images, "01").labels == truth) > 0.9


def test_a_streams_class_that_has_not_come_yet_is_masked_out(
    digits_bundle: Path, tmp_path: Path, digits: Digits, fed: list[Any]
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", sensitivity_batches=1)
    images, labels = digits.arrays((4, 5, 6), 0, 40)
    early = np.random.default_rng(0).permutation(np.flatnonzero(labels < 2))
    head = learner.bundle.manifest.head
    with learner.stream("s", ["four", "five", "six"]) as stream:
        for part in np.array_split(early, 5):
            stream.observe(images[part], labels[part])
        assert fed
        for feeds, found in fed:
            assert feeds[CLASS_MASK].tolist() == [True, True, False]
            assert np.all(found[head.weight_gradient][2] == 0.0)
            assert found[head.bias_gradient][2] == 0.0
            assert not feeds[head.weight][2].any()
            assert float(found["loss"]) == pytest.approx(
                entropy_bound(found["logits"][:, :2], feeds["label"], 0.0), rel=1e-4, abs=1e-6
            )
        fed.clear()
        late = np.flatnonzero(labels == 2)
        for part in np.array_split(late, 3):
            stream.observe(images[part], labels[part])
        assert not any(CLASS_MASK in feeds for feeds, _ in fed)
    held_out, truth = digits.arrays((4, 5, 6), 100, 170)
    found_names = learner.predict(held_out, "s").labels
    assert np.mean(found_names == np.array(["four", "five", "six"])[truth]) > 0.9


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"label_smoothing is .*; it must be at least 0 and below 1\."):
        TrainingConfig(label_smoothing=value)
