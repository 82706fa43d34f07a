"""Evaluating, going back, and reading while another process writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, open_learner, write_pictures
from csk_sdk import Learner, StateError, Task, TaskError
from csk_sdk.network.predicting import Predictor
from learner.knowing import HELD_OUT


def base_test(digits: Digits, tmp_path: Path) -> Task:
    write_pictures(tmp_path / "base" / "test", digits, (0, 1, 2, 3), 100, 120)
    return Task.from_folder(tmp_path / "base")


def test_accuracy_matrices_grow_by_a_row_per_task(learner: Learner, digits: Digits, tmp_path: Path) -> None:
    tasks = [base_test(digits, tmp_path), digits.task("01", (4, 5)), digits.task("02", (6, 7))]
    learner.evaluate(tasks)
    for task in tasks[1:]:
        learner.learn(task)
        learner.evaluate(tasks)
    for scenario in ("task", "class"):
        evaluation = learner.evaluate(tasks, scenario)
        raw = evaluation.to_json()
        matrix = raw["accuracy_matrix"]
        assert raw["scenario"] == f"{scenario}-incremental"
        assert raw["tasks"] == ["base", "01", "02"]
        assert [[value is not None for value in row] for row in matrix] == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]
        assert raw["acc"] == pytest.approx(np.mean(matrix[2]))
        earlier = [matrix[2][0] - matrix[0][0], matrix[2][1] - matrix[1][1]]
        assert raw["bwt"] == pytest.approx(np.mean(earlier))
        last = matrix[2]
        assert raw["accuracy"] == pytest.approx((80 * last[0] + 80 * last[1] + 80 * last[2]) / 240)
        assert {"acc", "bwt", "forgetting"} <= raw.keys()
    images, labels = digits.arrays((6, 7), 100, 140)
    hits = learner.predict(images, "02").labels == np.array(["six", "seven"])[labels]
    assert learner.evaluate(tasks).to_json()["accuracy_matrix"][2][2] == pytest.approx(100 * hits.mean())
    assert learner.evaluate(tasks).matrix.acc > 90


def test_without_test_pictures_of_the_base_the_matrix_begins_with_the_first_task(
    learner: Learner, digits: Digits
) -> None:
    with pytest.raises(TaskError, match=r"None of the learned tasks \(base\) has test images"):
        learner.evaluate([digits.task("01", (4, 5))])
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        learner.learn(digits.task(name, chosen))
    raw = learner.evaluate([digits.task("01", (4, 5)), digits.task("02", (6, 7))]).to_json()
    assert raw["tasks"] == ["01", "02"]
    assert raw["accuracy_matrix"][0] == [None, None]
    assert None not in raw["accuracy_matrix"][1]
    # Nobody measured after the first task, so forgetting is not known either.
    assert (raw["bwt"], raw["forgetting"]) == (None, None)


def test_measuring_while_another_learner_commits(
    learner: Learner, digits_bundle: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = digits.task("01", (4, 5))
    learner.learn(task)
    expected = learner.evaluate([task], "class").to_json()
    other = open_learner(digits_bundle, learner.state.folder)
    read = Predictor.features

    def disturbed(self: Predictor, images: Any) -> Any:
        if len(other.tasks) == 1:
            other.learn(digits.task("02", (6, 7)))
        return read(self, images)

    monkeypatch.setattr(Predictor, "features", disturbed)
    assert learner.evaluate([task], "class").to_json() == expected
    assert learner.tasks[-1].name == "02"


# Going back


def test_rollback_then_relearn(learner: Learner, digits: Digits) -> None:
    tasks = {name: digits.task(name, chosen) for name, chosen in (("01", (4, 5)), ("02", (6, 7)))}
    images = digits.arrays(tuple(range(8)), *HELD_OUT)[0]
    before = learner.predict(images).probabilities
    learner.learn(tasks["01"])
    after_first = learner.predict(images).probabilities
    learner.learn(tasks["02"])
    both = learner.generation.tensors
    assert learner.rollback("01").number == 1
    np.testing.assert_array_equal(learner.predict(images).probabilities, after_first)
    report = learner.learn(tasks["02"])
    assert (report.generation, report.resumed_at_step) == (3, 0)
    assert all(both[name].tobytes() == learner.generation.tensors[name].tobytes() for name in both)
    assert learner.rollback("base").number == 0
    np.testing.assert_array_equal(learner.predict(images).probabilities, before)
    # Forward again, as long as it is there.
    assert learner.rollback("02").number == 3
    assert all(both[name].tobytes() == learner.generation.tensors[name].tobytes() for name in both)
    with pytest.raises(StateError, match=r"has no generation of task '03'\. Known: base, 01, 02\."):
        learner.rollback("03")
    learner.rollback("base")
    learner.learn(tasks["02"])
    assert [task.name for task in learner.tasks] == ["02"]


# Reading while another process writes

WRITER = """
import sys
from csk_sdk import Inbox, Learner, TrainingConfig
bundle, state, inbox = sys.argv[1:]
settings = dict(threads=1, shift=1, epochs=12, learning_rate=0.05, few_shot=0, train="centers", gradient_share=1.0)
config = TrainingConfig(**settings)
learner = Learner.open(bundle, state, config)
for name in Inbox(inbox).names():
    learner.learn(Inbox(inbox).open(name))
"""


@pytest.mark.slow
def test_a_reader_sees_whole_generations_while_another_process_trains(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    images = digits.arrays(tuple(range(10)), 100, 104)[0]
    reference = open_learner(digits_bundle, tmp_path / "reference", epochs=12)
    expected = {len(reference.classes): reference.predict(images).probabilities}
    for name, chosen in (("01", (4, 5)), ("02", (6, 7)), ("03", (8, 9))):
        task = digits.task(name, chosen, test=0)
        digits.save(task, tmp_path / "tasks")
        reference.learn(task)
        expected[len(reference.classes)] = reference.predict(images).probabilities
    reader = open_learner(digits_bundle, tmp_path / "state")
    command = [
        sys.executable,
        "-c",
        WRITER,
        *map(str, (digits_bundle, tmp_path / "state", tmp_path / "tasks")),
    ]
    seen = set()
    with subprocess.Popen(command) as writer:
        while writer.poll() is None or not seen:
            prediction = reader.predict(images)
            np.testing.assert_array_equal(prediction.probabilities, expected[len(prediction.classes)])
            seen.add(len(prediction.classes))
    assert writer.returncode == 0
    assert len(seen) >= 2
    assert len(reader.predict(images).classes) == 10
    assert np.array_equal(reader.predict(images).probabilities, expected[10])


def test_a_predictor_stays_with_its_generation(learner: Learner, digits: Digits) -> None:
    images = digits.arrays((0, 4), 100, 110)[0]
    predictor, before = learner.predictor(), learner.predict(images)
    learner.learn(digits.task("01", (4, 5)))
    after = predictor.head().predict(predictor.features(images))
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert after.classes == before.classes != learner.predict(images).classes
