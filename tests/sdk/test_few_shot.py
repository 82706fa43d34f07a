"""Tasks of few images get heads on the network as it is, unless they are told otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_sdk import ConfigError, Learner, Task, TrainingConfig
from csk_sdk.learning.few_shot import heads_because, is_few_shot
from csk_sdk.method.logistic import cross_entropy
from csk_sdk.objectives import OBJECTIVES

FEW = 20


@pytest.fixture
def learner(digits_bundle: Path, tmp_path: Path) -> Learner:
    """Twenty images a class are what training needs here."""
    return open_learner(digits_bundle, tmp_path / "state", few_shot=FEW)


def centers(learner: Learner) -> dict[str, bytes]:
    return {
        name: tensor.tobytes()
        for name, tensor in learner.generation.tensors.items()
        if name.startswith("center/")
    }


def right(learner: Learner, digits: Digits, chosen: tuple[int, ...], task: str) -> float:
    images, labels = digits.arrays(chosen, 100, 170)
    return float(
        np.mean(learner.predict(images, task).labels == np.array([NAMES[d] for d in chosen])[labels])
    )


@pytest.mark.parametrize(
    ("pictures", "loss", "few_shot", "epochs", "expected"),
    [
        (59, "cross-entropy", 30, 4, True),
        (60, "cross-entropy", 30, 4, False),
        (60, "cross-entropy", 30, 1, False),
        (14, "cross-entropy", 30, 16, True),
        (15, "cross-entropy", 30, 16, False),
        (1, "cross-entropy", 0, 1, False),
        (59, "binary-cross-entropy", 30, 4, False),
        (59, "mse", 30, 4, False),
    ],
)
def test_the_rule(pictures: int, loss: str, few_shot: int, epochs: int, expected: bool) -> None:
    config = TrainingConfig(few_shot=few_shot)
    assert is_few_shot(pictures, ("a", "b"), OBJECTIVES[loss], config, epochs) is expected


@pytest.mark.parametrize(
    ("classes", "pictures", "train", "loss", "fixed", "expected"),
    [
        ("ab", 59, "centers", "cross-entropy", "", "few-shot"),
        ("ab", 59, "auto", "cross-entropy", "", "few-shot"),
        ("ab", 60, "centers", "cross-entropy", "", ""),
        ("ab", 60, "auto", "cross-entropy", "", ""),
        ("ab", 60, "heads", "cross-entropy", "", "train"),
        ("ab", 59, "heads", "cross-entropy", "", "train"),
        ("a", 60, "centers", "cross-entropy", "", "one-class"),
        ("a", 60, "heads", "cross-entropy", "", "one-class"),
        ("ab", 60, "centers", "cross-entropy", "frozen", "frozen"),
        ("ab", 60, "centers", "cross-entropy", "domains", "domains"),
        ("a", 1, "centers", "mse", "", ""),
        ("a", 1, "heads", "mse", "", "train"),
        ("ab", 59, "heads", "binary-cross-entropy", "", "train"),
    ],
)
def test_reasons(classes: str, pictures: int, train: str, loss: str, fixed: str, expected: str) -> None:
    config = TrainingConfig(train=train)
    assert heads_because(pictures, classes, OBJECTIVES[loss], config, 1, fixed) == expected


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="few_shot is -1; it must be a whole number, 0 or more"):
        TrainingConfig(few_shot=-1)


def test_cross_entropy_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(3, size=50)
    weight, bias = rng.normal(size=(3, 7)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    expected = -np.mean(log_softmax(x @ weight.T + bias, axis=1)[np.arange(50), labels])
    assert cross_entropy(x @ weight.T + bias, labels) == pytest.approx(expected, rel=1e-5)


def test_the_network_stays_as_it_was(learner: Learner, digits: Digits) -> None:
    before, old = centers(learner), right(learner, digits, (0, 1, 2, 3), "base")
    report = learner.learn(digits.task("01", (4, 5), train=FEW - 1))
    assert (report.heads_only, report.heads_only_because) == (True, "few-shot")
    assert (report.epochs, report.forgetting, report.leak, report.protected) == (0, 0.0, 0.0, {})
    assert 0.0 < report.loss < np.log(2)
    assert report.warnings == learner.tasks[0].notes
    assert "19 images a class: too few for training" in report.warnings[0]
    assert "--few-shot 0" in report.warnings[0]
    assert centers(learner) == before
    assert right(learner, digits, (0, 1, 2, 3), "base") == old
    assert right(learner, digits, (4, 5), "01") > 0.9


def test_it_is_what_training_without_moving_the_centers_gives(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    task = digits.task("01", (4, 5), train=FEW - 1)
    learner.learn(task)
    still = open_learner(digits_bundle, tmp_path / "still", learning_rate=0.0, epochs=1)
    assert not still.learn(task).heads_only
    expected = still.generation.tensors
    assert learner.generation.tensors.keys() == expected.keys()
    for name, tensor in learner.generation.tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_of_one_image_nothing_is_promised(learner: Learner, digits: Digits) -> None:
    report = learner.learn(digits.task("01", (4, 5), train=1))
    few, *_ = (one for one in report.warnings if one.startswith("1 image a class: too few for training"))
    said = (
        "there is one image only of {}: how often that is recognised cannot be estimated, and is likely seldom. 20 or "
        "more of each class are advised."
    )
    assert report.warnings[-2:] == (said.format("'four', 'five'"), few)
    assert report.expected["classes"] == {}
    images, labels = digits.arrays((6, 7), 0, 5)
    report = learner.learn(Task.from_arrays("02", images[:6], labels[:6], NAMES[6:8]))
    assert said.format("'seven'") in report.warnings
    assert list(report.expected["classes"]) == ["six"]
    # What is known of a class beside it counts.
    report = learner.learn(digits.task("03", (6, 7), train=1))
    assert not any("one image only" in one for one in report.warnings)


def test_of_one_image_a_class_nothing_is_promised_without_base_data(tmp_path: Path, digits: Digits) -> None:
    learner = open_learner(build_digits_bundle(tmp_path / "bundle"), tmp_path / "state", few_shot=FEW)
    report = learner.learn(digits.task("01", (4, 5), train=1))
    assert any("there is one image only of 'four', 'five'" in one for one in report.warnings)
    assert report.expected == {}


def test_enough_pictures_are_trained_on(learner: Learner, digits: Digits) -> None:
    before = centers(learner)
    report = learner.learn(digits.task("01", (4, 5), train=FEW))
    assert (report.heads_only, report.heads_only_because, report.warnings) == (False, "", ())
    assert report.epochs == learner.config.epochs
    assert centers(learner) != before


def test_the_next_task_is_trained_on_top(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5), train=FEW - 1))
    report = learner.learn(digits.task("02", (6, 7), train=FEW))
    assert not report.heads_only
    assert right(learner, digits, (4, 5), "01") > 0.9


def test_the_default_is_the_measured_one(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    default = TrainingConfig(threads=1).few_shot
    learner = open_learner(digits_bundle, tmp_path / "state", few_shot=default, epochs=1)
    assert learner.learn(digits.task("01", (4, 5), train=20)).heads_only
    assert not learner.learn(digits.task("02", (6, 7), train=50)).heads_only


@pytest.mark.parametrize("batches", [1, 16], ids=["all held back", "steps were taken"])
def test_a_stream_too(learner: Learner, digits: Digits, batches: int) -> None:
    before = centers(learner)
    images, labels = digits.arrays((4, 5), 0, FEW - 1)
    order = np.random.default_rng(0).permutation(len(images))
    config = learner.config.with_overrides(sensitivity_batches=8)
    with learner.stream("01", NAMES[4:6], config) as stream:
        losses = [stream.observe(images[part], labels[part]) for part in np.array_split(order, batches)]
    assert (losses[-1] is not None) == (batches == 16)
    assert "19 images a class: too few for training" in stream.warnings[0]
    assert learner.tasks[0].notes == stream.warnings
    assert learner.tasks[0].loss > 0.0
    assert centers(learner) == before
    assert right(learner, digits, (4, 5), "01") > 0.9
