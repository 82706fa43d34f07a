"""What a device knows is corrected, forgotten, doubted and carried over with the ort-training backend, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import NAMES, Digits, build_digits_bundle, write_pictures
from csk_sdk import ContradictionError, Learner, Task, TrainingConfig, upgrade, upgrade_back
from csk_sdk.contract.manifest import ORT_TRAINING

ALL = tuple(range(10))


def opened(bundle: Path, state: Path) -> Learner:
    learner = Learner.open(
        bundle,
        state,
        TrainingConfig(threads=1, shift=1, learning_rate=0.05, few_shot=0, train="centers"),
        backend="auto",
    )
    assert learner.backend == ORT_TRAINING
    return learner


def right(learner: Learner, digits: Digits, *chosen: int) -> float:
    images, labels = digits.arrays(chosen, 100, 140)
    return float(np.mean(learner.predict(images).labels == np.array([NAMES[one] for one in chosen])[labels]))


def test_a_wrong_lesson_is_noticed_and_corrected(ort_only: Path, tmp_path: Path, digits: Digits) -> None:
    learner = opened(ort_only, tmp_path / "state")
    images, labels = digits.arrays((4, 5), 0, 40)
    learner.learn(Task.from_arrays("wrong", images, 1 - labels, ["four", "five"]))
    assert right(learner, digits, 4, 5) < 0.1
    with pytest.raises(ContradictionError, match="Task '02' contradicts what is known"):
        learner.learn(digits.task("02", (4, 5)))
    assert learner.learn(digits.task("02", (4, 5)), replace=True).replaced == ("four", "five")
    assert right(learner, digits, 4, 5) > 0.95
    assert right(learner, digits, 0, 1, 2, 3) > 0.9


def test_a_twin_takes_nothing_and_one_class_is_a_task(ort_only: Path, tmp_path: Path, digits: Digits) -> None:
    learner = opened(ort_only, tmp_path / "state")
    before = right(learner, digits, 3)
    images, labels = digits.arrays((3, 4), 0, 40)
    report = learner.learn(Task.from_arrays("twins", images, labels, ["drei", "four"]))
    assert report.twins["drei"]["old"] == "three"
    assert report.expected["classes"]["four"]["all_classes"] > 0.9
    assert right(learner, digits, 3) >= before - 0.03
    learner.learn(digits.task("one", (6,)))
    assert right(learner, digits, 4, 6) > 0.9
    learner.merge("three", "drei")
    learner.rename("four", "vier")
    assert "vier" in learner.predict(digits.of(4, 100, 140)).labels
    assert learner.forget("vier", "six").classes == ("vier", "six")
    assert not {"vier", "six", "drei"} & set(learner.predict(digits.arrays(ALL, 100, 140)[0]).labels)
    assert right(learner, digits, 0, 1, 2, 3) > 0.9


def test_what_was_never_taught_is_doubted(ort_only: Path, tmp_path: Path, digits: Digits) -> None:
    learner = opened(ort_only, tmp_path / "state")
    learner.learn(digits.task("01", (4, 5)))
    known, never = (
        np.mean(learner.predict(digits.arrays(chosen, 100, 140)[0], reject=0.1).known)
        for chosen in ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9))
    )
    assert known > 0.8 > never + 0.2
    learner.export(tmp_path / "exported.onnx", reject=0.1)


def test_it_is_carried_over_to_the_next_bundle_and_back(
    ort_only: Path, tmp_path: Path, digits: Digits
) -> None:
    base = write_pictures(tmp_path / "base", digits, (0, 1, 2, 3), 0, 40)
    new = build_digits_bundle(
        tmp_path / "new", base_data=base, backend="ort-training", upgrade_from=ort_only, features="last"
    )
    bundle, state = shutil.copytree(ort_only, tmp_path / "bundle"), tmp_path / "state"
    learner = opened(bundle, state)
    learner.learn(digits.task("01", (4, 5)), {"few_shot": 10**6})
    was = learner.generation.tensors
    assert upgrade(bundle, state, new).carried == ("01",)
    carried = opened(bundle, state)
    assert right(carried, digits, 0, 1, 2, 3, 4, 5) > 0.9
    carried.learn(digits.task("02", (6, 7)))
    assert right(carried, digits, 4, 5, 6, 7) > 0.9
    upgrade_back(bundle, state)
    again = opened(bundle, state).generation.tensors
    assert {name: one.tobytes() for name, one in again.items()} == {
        name: one.tobytes() for name, one in was.items()
    }
