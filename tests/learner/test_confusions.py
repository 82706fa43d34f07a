"""What `evaluate` tells of single classes, and of a base that has no test images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import NAMES, Digits
from csk_sdk import Learner, Task


def test_each_class_s_accuracy_and_what_it_is_taken_for(learner: Learner, digits: Digits) -> None:
    rng = np.random.default_rng(0)

    def noisy(images: np.ndarray) -> np.ndarray:
        return np.clip(images + rng.normal(scale=100, size=images.shape), 0, 255).astype(np.uint8)

    images, labels = digits.arrays((4, 9, 8), 0, 60)
    tested, answers = digits.arrays((4, 9, 8), 100, 170)
    tested = noisy(tested)
    classes = [NAMES[digit] for digit in (4, 9, 8)]
    task = Task.from_arrays("noisy", noisy(images), labels, classes, test_images=tested, test_labels=answers)
    learner.learn(task, {"few_shot": 10**6})
    for scenario in ("class", "task"):
        found = learner.evaluate([task], scenario).to_json()["classes"]["noisy"]
        said = learner.predict(tested, "noisy" if scenario == "task" else None).labels
        for place, name in enumerate(classes):
            own = said[70 * place : 70 * place + 70].tolist()
            one = found[name]
            assert one["images"] == 70
            assert one["accuracy"] == pytest.approx(100 * own.count(name) / 70, abs=0.01)
            others = {other: own.count(other) for other in set(own) - {name}}
            most = max(others.values(), default=0)
            assert one["share"] == pytest.approx(100 * most / 70, abs=0.01)
            assert (
                (one["confused"] in others and others[one["confused"]] == most)
                if most
                else not one["confused"]
            )
        assert any(one["accuracy"] < 100 for one in found.values()), "or it says nothing"


def test_no_name_of_a_class_is_kept_with_the_scores(learner: Learner, digits: Digits) -> None:
    task = digits.task("01", (4, 5))
    learner.learn(task)
    assert "classes" in learner.evaluate([task]).details
    for path in (learner.state.folder / "scores").iterdir():
        assert "five" not in path.read_text()
        assert set(json.loads(path.read_text())["scores"]["01"]) == {"images", "task", "class"}


def test_what_a_base_without_test_images_loses_is_estimated(learner: Learner, digits: Digits) -> None:
    tasks = [digits.task(f"0{number}", pair) for number, pair in enumerate(((4, 5), (6, 7), (8, 9)))]
    images, answers = digits.arrays((0, 1, 2, 3), 100, 170)
    right = np.array(NAMES)[answers]
    before = np.mean(learner.predict(images).labels == right)
    for task in tasks:
        learner.learn(task, {"few_shot": 10**6})
    lost = learner.evaluate(tasks, "class").base_lost
    measured = 100 * float(before - np.mean(learner.predict(images).labels == right))
    assert lost == pytest.approx(measured, abs=5)
    assert learner.evaluate(tasks, "class").to_json()["estimated"] == {"base": {"lost": lost}}
    assert learner.evaluate(tasks).base_lost is None, "among its own classes it loses to none"
    named = digits.task("base", (0, 1, 2, 3))
    tested = learner.evaluate([replace(named, train=None), *tasks], "class")
    assert tested.base_lost is None, "it is measured"
    assert "estimated" not in tested.to_json()


def test_a_twin_that_is_counted_shows_in_the_estimate(learner: Learner, digits: Digits) -> None:
    images, labels = digits.arrays((3, 4), 0, 80)
    held, _ = digits.arrays((4,), 100, 140)
    four = {"test_images": held, "test_labels": np.ones(len(held), np.int64)}
    task = Task.from_arrays("twins", images, labels, ["drei", "four"], **four)
    learner.learn(task, {"few_shot": 10**6, "max_forgetting": 100.0})
    lost = learner.evaluate([task], "class").base_lost
    assert lost is not None
    assert lost > 4, "of four classes one loses half"
