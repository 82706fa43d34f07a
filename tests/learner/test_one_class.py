"""One class alone is a task: it is told from what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_sdk import Learner, TaskError
from csk_sdk.config import TrainingConfig
from learner.knowing import accuracy

NEW = (4, 5, 6, 7, 8, 9)
ALL = (0, 1, 2, 3, *NEW)


@pytest.mark.slow
def test_one_by_one_ends_where_all_at_once_does(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    for digit in NEW:
        report = learner.learn(digits.task(f"only-{digit}", (digit,)))
        assert (report.heads_only, report.heads_only_because, report.epochs) == (True, "one-class", 0)
        assert report.warnings == ()
    at_once = open_learner(digits_bundle, tmp_path / "at-once", few_shot=10**6)
    at_once.learn(digits.task("all", NEW))
    assert learner.classes == at_once.classes
    assert accuracy(learner, digits, ALL) >= accuracy(at_once, digits, ALL) - 0.01
    assert accuracy(learner, digits, ALL) > 0.93
    assert set(learner.predict(digits.arrays(ALL, 0, 20)[0], "only-4").labels) == {"four"}


def test_of_a_folder_and_of_a_stream(learner: Learner, digits: Digits, tmp_path: Path) -> None:
    learner.learn(digits.save(digits.task("01", (4,)), tmp_path))
    images, _ = digits.arrays((5,), 0, 80)
    with learner.stream("02", ["five"]) as stream:
        for part in np.array_split(images, 20):
            stream.observe(part, np.zeros(len(part), np.int64))
    assert stream.report is not None
    assert stream.report.heads_only_because == "one-class"
    for name, digit in (("four", 4), ("five", 5)):
        assert np.mean(learner.predict(digits.arrays((digit,), 100, 170)[0]).labels == name) > 0.85
    assert learner.evaluate([digits.task("01", (4,))], "class").accuracy > 85
    assert learner.forget("five").tasks == ("02",)


def test_more_of_a_known_class(learner: Learner, digits: Digits) -> None:
    assert learner.learn(digits.task("01", (0,))).known == (NAMES[0],)
    assert accuracy(learner, digits, (0, 1, 2, 3)) > 0.95


@pytest.mark.slow
def test_where_nothing_else_is_known_it_is_refused(tmp_path: Path, digits: Digits) -> None:
    learner = open_learner(build_digits_bundle(tmp_path / "bundle"), tmp_path / "state")
    with pytest.raises(TaskError) as raised:
        learner.learn(digits.task("01", (4,)))
    assert str(raised.value) == (
        "Task '01' has one class only ('four'), and nothing is known that it could be told from: put its other classes "
        "beside it, learn a task of several classes first, or build the bundle with --base-data."
    )
    learner.learn(digits.task("02", (5, 6)))
    learner.learn(digits.task("01", (4,)))
    assert accuracy(learner, digits, (4, 5, 6)) > 0.9


def test_without_class_statistics_it_is_refused(learner: Learner, digits: Digits) -> None:
    with pytest.raises(TaskError, match=r"learn it with class statistics \(class_statistics = true\)"):
        learner.learn(digits.task("01", (4,)), TrainingConfig(class_statistics=False))
