"""A wrong lesson is noticed when it is corrected, and nothing of it counts once it is replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import ContradictionError, Learner, Task
from learner.knowing import accuracy


def random_tenth(labels: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(0).random(len(labels)) < 0.1, (labels + 1) % 3, labels)


# What is told of images of three classes.
WRONG = {
    "exchanged": lambda labels: np.array([1, 0, 2])[labels],
    "shifted": lambda labels: (labels + 1) % 3,
    "one class": lambda labels: np.where((labels == 0) & (np.arange(len(labels)) > 4), 1, labels),
    "10 % random": random_tenth,
}


def wrong(digits: Digits, names: dict[int, int], count: int = 40) -> Task:
    """A task that calls some digits by the names of others."""
    images, labels = digits.arrays(tuple(names), 0, count)
    told = np.array([tuple(names).index(name) for name in names.values()])[labels]
    return Task.from_arrays("wrong", images, told, [NAMES[digit] for digit in names])


def taught(learner: Learner, task: Task, **how: bool) -> Learner:
    learner.learn(task, **how)
    return learner


@pytest.mark.parametrize("kind", WRONG)
def test_a_correction_leaves_nothing_of_the_wrong_lesson(
    digits_bundle: Path, tmp_path: Path, digits: Digits, kind: str
) -> None:
    right = digits.task("right", (4, 5, 6))
    images, labels = digits.arrays((4, 5, 6), 0, 40)
    task = Task.from_arrays("wrong", images, WRONG[kind](labels), right.classes)
    heads = {"few_shot": 10**6}
    only = taught(open_learner(digits_bundle, tmp_path / "only", **heads), right)
    corrected = taught(open_learner(digits_bundle, tmp_path / "corrected", **heads), task)
    report = corrected.learn(right, replace=True)
    assert report.replaced == right.classes
    assert report.known == ()
    every = (0, 1, 2, 3, 4, 5, 6)
    assert accuracy(corrected, digits, every) >= accuracy(only, digits, every) - 0.01
    # The network never moved: what is known is to the bit that of a device that saw the right ones only.
    for name in ("scatter", "means", "counts"):
        key = f"statistics.{name}"
        np.testing.assert_array_equal(
            corrected.generation.tensors[key], only.generation.tensors[key], err_msg=name
        )
    # The wrong task's own decision is made of what is known now, too.
    assert accuracy(corrected, digits, (4, 5, 6), "wrong") > 0.95


def test_with_trained_centers_too(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    right, every = digits.task("right", (4, 5)), (0, 1, 2, 3, 4, 5)
    only = taught(open_learner(digits_bundle, tmp_path / "only"), right)
    corrected = taught(open_learner(digits_bundle, tmp_path / "corrected"), wrong(digits, {4: 5, 5: 4}))
    assert np.any(corrected.generation.tensors["ledger.map"] != np.eye(len(corrected.head().weight[0])))
    corrected.learn(right, replace=True)
    assert accuracy(corrected, digits, every) >= accuracy(only, digits, every) - 0.01


def test_a_contradiction_is_noticed_and_nothing_is_overwritten(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)))
    before = learner.generation
    with pytest.raises(ContradictionError) as raised:
        learner.learn(wrong(digits, {4: 5, 5: 4}))
    said = str(raised.value)
    assert said.startswith("Task 'wrong' contradicts what is known: ")
    assert "of its images of 'four' look like 'five'" in said
    assert "--replace;" in said
    assert "--add;" in said
    assert learner.generation.number == before.number
    # Whoever says that it is so is believed.
    assert learner.learn(wrong(digits, {4: 5, 5: 4}), replace=False).known == ("four", "five")


def test_of_the_base_it_is_said_that_it_stays(learner: Learner, digits: Digits) -> None:
    with pytest.raises(ContradictionError, match=r"with --replace \(what the base knows of '.*' counts on\)"):
        learner.learn(wrong(digits, {0: 1, 1: 0}))
    learner.learn(wrong(digits, {0: 1, 1: 0}), replace=True)
    counts = dict(zip(learner.classes, learner.generation.tensors["statistics.counts"], strict=True))
    assert counts["zero"] >= 80, "the base's and the lesson's"


def test_more_of_the_same_is_no_contradiction(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)))
    images, labels = digits.arrays((4, 5, 0), 40, 80)
    names = [NAMES[digit] for digit in (4, 5, 0)]
    assert set(learner.learn(Task.from_arrays("more", images, labels, names)).known) == set(names)


def test_a_stream_notices_too(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)))
    images, labels = digits.arrays((5, 4), 0, 40)
    order = np.random.default_rng(0).permutation(len(images))

    def feed(replace: bool | None) -> None:
        with learner.stream("02", ["four", "five"], replace=replace) as stream:
            for part in np.array_split(order, 5):
                stream.observe(images[part], labels[part])

    with pytest.raises(ContradictionError, match="Task '02' contradicts what is known"):
        feed(None)
    feed(True)
    exchanged = Task.from_arrays("x", *digits.arrays((5, 4), 100, 140), ["four", "five"])
    assert exchanged.train is not None
    found = learner.predict(digits.arrays((5,), 100, 170)[0]).labels
    assert np.mean(found == "four") > 0.9
