"""A class that cannot be told from a known one takes nothing from it, and a lesson says what to expect of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, Task, TaskError
from csk_sdk.learning import consolidation
from csk_sdk.method.decisions import Judgement, judge
from learner.knowing import accuracy


def drei(digits: Digits, *others: int, name: str = "twins") -> Task:
    """Images of the base's three under another name, and beside them those of other digits."""
    images, labels = digits.arrays((3, *others), 0, 80)
    return Task.from_arrays(name, images, labels, ["drei", *(NAMES[other] for other in others)])


def threes(learner: Learner, digits: Digits) -> float:
    images, _ = digits.arrays((3,), 100, 170)
    return float(np.mean(learner.predict(images).labels == "three"))


@pytest.mark.parametrize("settings", [{}, {"few_shot": 10**6}], ids=["trained", "heads only"])
def test_a_twin_takes_nothing_from_a_known_class(
    learner: Learner, digits: Digits, settings: dict[str, int]
) -> None:
    before = threes(learner, digits)
    report = learner.learn(drei(digits, 4), settings)
    (said,) = [one for one in report.warnings if "drei" in one]
    assert said.startswith("'drei' cannot be told from 'three': ")
    assert "csk-sdk merge three drei" in said
    assert threes(learner, digits) >= before - 0.03
    assert accuracy(learner, digits, (0, 1, 2, 4)) > 0.95
    assert report.twins["drei"]["old"] == "three"
    expected = report.expected["classes"]
    assert expected["drei"]["all_classes"] == 0.0
    assert (expected["drei"]["confused"], expected["drei"]["task"] > 0.95) == ("three", True)
    # Its own task knows it.
    images, _ = digits.arrays((3,), 100, 170)
    assert np.mean(learner.predict(images, "twins").labels == "drei") > 0.95
    # What is learned later does not bring it back.
    learner.learn(digits.task("02", (6, 7)))
    assert threes(learner, digits) >= before - 0.05
    learner.forget(task="02")
    assert learner.tasks[0].classes == ("drei", "four")
    learner.merge("three", "drei")
    assert learner.tasks[0].classes == ("three", "four")
    assert not any("drei" in note for note in learner.tasks[0].notes)
    assert threes(learner, digits) >= before - 0.05
    assert learner.forget("three").hidden == ("three",)


def test_what_more_images_of_known_classes_cost_the_others_is_not_told(
    learner: Learner, digits: Digits
) -> None:
    images, labels = digits.arrays((4, 5), 0, 120)
    first = learner.learn(Task.from_arrays("01", images[::2], labels[::2], ["four", "five"]))
    assert "lost" in first.expected["old"]
    more = learner.learn(Task.from_arrays("02", images[1::2], labels[1::2], ["four", "five"]))
    assert more.known == ("four", "five")
    assert set(more.expected) == {"classes"}


def test_what_a_twin_of_a_learned_class_takes_is_told_of_what_was_right(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = digits.arrays((4, 5), 0, 120)
    first = Task.from_arrays("01", images[::2], labels[::2], ["four", "five"])
    learner.learn(first, {"few_shot": 10**6})
    (task,) = learner.generation.tasks
    expected = task.expected["classes"]["four"]["all_classes"]
    given: list[Any] = []

    def judged(*inputs: Any) -> Judgement:
        given.append(inputs[-1])
        return judge(*inputs)

    monkeypatch.setattr(consolidation, "judge", judged)
    learner.learn(Task.from_arrays("02", images[1::2], labels[1::2], ["vier", "fuenf"]), {"few_shot": 10**6})
    assert given[0] == {"four": expected, "five": task.expected["classes"]["five"]["all_classes"]}


def test_images_of_a_twin_are_never_right_over_all_classes(learner: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((3, 4), 0, 80)
    test_images, test_labels = digits.arrays((3, 4), 100, 140)
    names = ["drei", "four"]
    task = Task.from_arrays("twins", images, labels, names, test_images, test_labels)
    assert "drei" in learner.learn(task, {}).twins
    found = learner.score([task])
    row = found.rows[-1]["twins"]
    told = row["details"]["class"]["classes"]
    assert (told["drei"]["accuracy"], told["drei"]["confused"]) == (0.0, "three")
    right = np.mean(learner.predict(test_images).labels == np.array(names)[test_labels])
    assert row["class"] == pytest.approx(100 * right)
    assert right < 0.6
    assert row["task"] > 95


def test_a_task_of_twins_alone_takes_nothing_either(learner: Learner, digits: Digits) -> None:
    learner.learn(digits.task("01", (4, 5)), {"few_shot": 0, "train": "centers", "learning_rate": 0.05})
    before = accuracy(learner, digits, (0, 1, 2, 3, 4, 5))
    images, labels = digits.arrays((2, 3), 0, 80)
    report = learner.learn(
        Task.from_arrays("02", images, labels, ["zwei", "drei"]), {"few_shot": 0, "train": "centers"}
    )
    assert sum("cannot be told" in one for one in report.warnings) == 2
    assert accuracy(learner, digits, (0, 1, 2, 3, 4, 5)) >= before - 0.03
    learner.learn(digits.task("03", (6, 7)))
    learner.forget(task="02")
    assert accuracy(learner, digits, (0, 1, 2, 3, 4, 5, 6, 7)) > 0.9


def test_a_twin_of_a_learned_class_is_found_too(learner: Learner, digits: Digits) -> None:
    images, _ = digits.arrays((5,), 0, 160)
    others, _ = digits.arrays((4, 6), 0, 80)
    labels = np.repeat([0, 1], 80)
    known = np.concatenate([images[::2], others[:80]])
    learner.learn(Task.from_arrays("01", known, labels, ["five", "four"]), {})
    again = np.concatenate([images[1::2], others[80:]])
    report = learner.learn(Task.from_arrays("02", again, labels, ["fuenf", "six"]), {})
    assert [one.split(":")[0] for one in report.warnings] == ["'fuenf' cannot be told from 'five'"]
    assert accuracy(learner, digits, (4, 5, 6)) > 0.95


def test_the_very_same_images_under_another_name_are_a_twin(learner: Learner, digits: Digits) -> None:
    """Two means that are one: which of both is named would be a matter of rounding."""
    images, labels = digits.arrays((3, 4), 0, 40)  # those of three are the base's own
    report = learner.learn(Task.from_arrays("02", images, labels, ["drei", "four"]), {"few_shot": 10**6})
    assert report.twins["drei"]["old"] == "three"
    assert report.expected["classes"]["drei"]["all_classes"] == 0.0
    assert accuracy(learner, digits, (0, 1, 2, 3, 4)) > 0.95


@pytest.mark.parametrize("count", [3, 40])
def test_two_new_classes_of_the_same_images_are_a_guess(learner: Learner, digits: Digits, count: int) -> None:
    """Which of the two is named would be a matter of rounding, and of their order."""
    image = digits.of(4, 0, 1)
    others = digits.of(6, 0, count)
    images, labels = (
        np.concatenate([np.repeat(image, 2 * count, axis=0), others]),
        np.repeat([0, 1, 2], count),
    )
    task = Task.from_arrays("01", images, labels, ["left", "right", "six"])
    report = learner.learn(task, {"few_shot": 10**6, "label_check": False})
    told = report.expected["classes"]
    for name, other in (("left", "right"), ("right", "left")):
        assert told[name] == {"all_classes": 0.0, "task": 0.0, "confused": other, "share": 1.0}
    assert told["six"]["task"] > 0.6
    (said,) = (one for one in report.warnings if "told apart" in one)
    assert said.startswith("'left' and 'right' cannot be told apart by these images: ")


def test_a_sentence_can_be_pasted_into_a_shell(learner: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((3, 4), 0, 80)
    report = learner.learn(Task.from_arrays("twins", images, labels, ["a 3", "four"]), {"few_shot": 10**6})
    assert "`csk-sdk merge three 'a 3'`" in report.warnings[0]


def test_the_twin_is_refused_where_forgetting_is(learner: Learner, digits: Digits) -> None:
    with pytest.raises(
        TaskError, match=r"^Task 'twins' teaches 'drei', which cannot be told from 'three': \d+ %"
    ):
        learner.learn(drei(digits, 4), {"on_forgetting": "refuse"})
    assert learner.generation.number == 0


def test_one_class_that_is_a_twin_is_refused(learner: Learner, digits: Digits) -> None:
    with pytest.raises(TaskError, match=r"If both are the same thing, teach it as 'three'"):
        learner.learn(drei(digits), {})
    assert learner.generation.number == 0


def test_the_owner_may_count_it_all_the_same(learner: Learner, digits: Digits) -> None:
    before = threes(learner, digits)
    report = learner.learn(drei(digits, 4), {"max_forgetting": 100.0})
    (said,) = [one for one in report.warnings if "drei" in one]
    images, _ = digits.arrays((3,), 100, 170)
    taken = float(np.mean(learner.predict(images).labels == "drei"))
    assert before - threes(learner, digits) == pytest.approx(taken, abs=0.03)
    assert taken > 0.2, "both are one thing"
    estimated = float(said.split(": ")[1].split(" %")[0]) / 100
    assert estimated == pytest.approx(taken, abs=0.25)
    assert "will be called 'drei'" in said


def test_what_is_expected_of_a_lesson_is_what_comes_true(learner: Learner, digits: Digits) -> None:
    rng = np.random.default_rng(0)

    def noisy(images: np.ndarray) -> np.ndarray:
        return np.clip(images + rng.normal(scale=70, size=images.shape), 0, 255).astype(np.uint8)

    old, old_answers = digits.arrays((0, 1, 2, 3), 100, 170)
    before = np.mean(learner.predict(old).labels == np.array(NAMES)[old_answers])
    images, labels = digits.arrays((4, 5, 6, 8, 9), 0, 90)
    classes = [NAMES[digit] for digit in (4, 5, 6, 8, 9)]
    report = learner.learn(Task.from_arrays("noisy", noisy(images), labels, classes), {"few_shot": 10**6})
    tested, answers = digits.arrays((4, 5, 6, 8, 9), 90, 170)
    found = learner.predict(noisy(tested)).labels
    truth = np.array(classes)[answers]
    expected = report.expected["classes"]
    mean = np.mean([one["all_classes"] for one in expected.values()])
    assert mean == pytest.approx(np.mean(found == truth), abs=0.07)
    assert mean < 0.98, "or it says nothing"
    assert all(one["task"] >= one["all_classes"] for one in expected.values())
    after = np.mean(learner.predict(old).labels == np.array(NAMES)[old_answers])
    assert report.expected["old"]["lost"] == pytest.approx(100 * (before - after), abs=5)


def test_ordinary_lessons_are_not_warned_of(learner: Learner, digits: Digits) -> None:
    for name, classes in {"01": (4, 5), "02": (6, 7), "03": (8, 9)}.items():
        report = learner.learn(digits.task(name, classes))
        assert not any("told" in one for one in report.warnings)
        assert set(report.expected["classes"]) == {NAMES[digit] for digit in classes}


def test_the_record_says_it_and_forgets_it(digits_bundle: Path, digits: Digits, tmp_path: Path) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", few_shot=10**6)
    learner.learn(digits.task("01", (4, 9)))
    learner.learn(digits.task("02", (5, 8)))
    learner.rename("four", "vier")
    assert set(learner.tasks[0].expected["classes"]) == {"vier", "nine"}
    learner.merge("nine", "five")
    assert set(learner.tasks[1].expected["classes"]) == {"nine", "eight"}
    learner.forget("vier")
    assert set(learner.tasks[0].expected["classes"]) == {"nine"}
    for path in (tmp_path / "state/generations").glob("*.json"):
        assert "vier" not in json.loads(path.read_text())["tasks"].__repr__()
