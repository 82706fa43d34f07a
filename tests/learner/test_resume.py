"""An interrupted task goes on where its last checkpoint was, and ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, open_learner
from csk_sdk import Learner, Progress, Task

# 80 images in batches of 16: 5 steps an epoch.
SETTINGS: dict[str, Any] = {"epochs": 3, "checkpoint_seconds": 0.0}
STEPS = 15


class Interrupted(BaseException):
    """Like KeyboardInterrupt: nothing may catch it."""


def interrupt(learner: Learner, task: Task, phase: str, step: int = 0) -> None:
    """Learn, up to the moment at which `phase` reports `step`."""

    def stop(progress: Progress) -> None:
        if progress.phase == phase and progress.step >= step:
            raise Interrupted

    with pytest.raises(Interrupted):
        learner.learn(task, on_progress=stop)


def bits(learner: Learner) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in learner.generation.tensors.items()}


@pytest.fixture
def resumable(digits_bundle: Path, tmp_path: Path, digits: Digits) -> Learner:
    """One task learned; checkpoints after every step."""
    learner = open_learner(digits_bundle, tmp_path / "state", **SETTINGS)
    learner.learn(digits.task("01", (4, 5), test=0))
    return learner


def uninterrupted(
    learner: Learner, folder: Path, task: Task, digits: Digits, **settings: Any
) -> dict[str, bytes]:
    """What another learner of the same settings, that nobody interrupts, has in the end."""
    twin = open_learner(learner.bundle.folder, folder / "twin", **{**SETTINGS, **settings})
    twin.learn(digits.task("01", (4, 5), test=0))
    twin.learn(task)
    return bits(twin)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "step", "resumed"),
    [
        ("check", 0, 0),
        ("select", 0, 0),
        ("train", 1, 0),
        ("train", 2, 1),
        ("train", 5, 4),
        ("train", 6, 5),
        ("train", 7, 6),
        ("train", STEPS, STEPS - 1),
        ("consolidate", 0, STEPS - 1),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "seed": 7}],
    ids=["sgd", "adamw"],
)
def test_the_result_is_that_of_an_uninterrupted_run(
    digits_bundle: Path,
    tmp_path: Path,
    digits: Digits,
    settings: dict[str, Any],
    phase: str,
    step: int,
    resumed: int,
) -> None:
    task = digits.task("02", (6, 7, 8), test=0, train=26)
    learner = open_learner(digits_bundle, tmp_path / "state", **{**SETTINGS, **settings})
    learner.learn(digits.task("01", (4, 5), test=0))
    interrupt(learner, task, phase, step)
    assert (learner.state.load_progress() is not None) == (resumed > 0)
    assert learner.state.head() == 1
    # Another process, as after a crash.
    again = open_learner(digits_bundle, tmp_path / "state", **{**SETTINGS, **settings})
    report = again.learn(task)
    assert report.resumed_at_step == resumed
    assert bits(again) == uninterrupted(learner, tmp_path, task, digits, **settings)
    assert again.state.load_progress() is None
    assert not list((tmp_path / "state").glob("*progress*"))


@pytest.mark.slow
def test_many_interruptions_in_a_row(resumable: Learner, tmp_path: Path, digits: Digits) -> None:
    task = digits.task("02", (6, 7), test=0)
    for step in range(2, STEPS + 1):
        interrupt(resumable, task, "train", step)
    seen: list[Progress] = []
    assert resumable.learn(task, on_progress=seen.append).resumed_at_step == STEPS - 1
    assert [p.step for p in seen if p.phase == "train"] == [STEPS]
    assert bits(resumable) == uninterrupted(resumable, tmp_path, task, digits)


def test_the_reported_loss_is_that_of_the_whole_epoch(
    resumable: Learner, tmp_path: Path, digits: Digits
) -> None:
    task = digits.task("02", (6, 7), test=0)
    interrupt(resumable, task, "train", 13)
    resumed = resumable.learn(task)
    resumable.rollback("01")
    assert resumable.learn(task).loss == resumed.loss
    assert resumable.tasks[-1].seconds >= 0


def test_without_time_for_a_checkpoint_it_starts_afresh(
    digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", checkpoint_seconds=3600.0)
    interrupt(learner, digits.task("01", (4, 5)), "train", 8)
    assert learner.state.load_progress() is None
    assert learner.learn(digits.task("01", (4, 5))).resumed_at_step == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a pixel", "an image more", "a class name", "a test image", "another task"])
def test_other_data_starts_afresh(resumable: Learner, tmp_path: Path, digits: Digits, what: str) -> None:
    interrupt(resumable, digits.task("02", (6, 7), test=5), "train", 8)
    images, labels = digits.arrays((6, 7), 0, 40)
    tests, test_labels = digits.arrays((6, 7), 100, 105)
    name, classes = "02", ["six", "seven"]
    if what == "a pixel":
        images = images.copy()
        images[3, 4, 4] ^= 1
    elif what == "an image more":
        images, labels = np.append(images, digits.of(7, 60, 61), axis=0), np.append(labels, 1)
    elif what == "a class name":
        classes[1] = "sept"
    elif what == "a test image":
        tests = np.append(tests[1:], tests[:1], axis=0)
    else:
        name = "03"
    changed = Task.from_arrays(name, images, labels, classes, tests, test_labels)
    assert resumable.learn(changed).resumed_at_step == 0
    assert bits(resumable) == uninterrupted(resumable, tmp_path, changed, digits)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 4},
        {"seed": 1},
        {"learning_rate": 0.005},
        {"optimizer": "adamw", "learning_rate": 1e-3},
        {"channel_ratio": 0.5},
        {"energy": 0.5},
        {"shift": 0},
        {"batch_size": 8},
        {"threads": 2},
    ],
    ids=str,
)
def test_other_settings_start_afresh(
    resumable: Learner, tmp_path: Path, digits: Digits, settings: Any
) -> None:
    task = digits.task("02", (6, 7), test=0)
    interrupt(resumable, task, "train", 8)
    report = resumable.learn(task, resumable.config.with_overrides(**settings))
    assert report.resumed_at_step == 0
    if "threads" not in settings:
        expected = open_learner(resumable.bundle.folder, tmp_path / "twin", **SETTINGS)
        expected.learn(digits.task("01", (4, 5), test=0))
        expected.learn(task, expected.config.with_overrides(**settings))
        assert bits(resumable) == bits(expected)


def test_how_often_checkpoints_are_written_is_no_other_setting(resumable: Learner, digits: Digits) -> None:
    task = digits.task("02", (6, 7), test=0)
    interrupt(resumable, task, "train", 8)
    assert (
        resumable.learn(task, resumable.config.with_overrides(checkpoint_seconds=20.0)).resumed_at_step == 7
    )


def test_another_generation_starts_afresh(resumable: Learner, digits: Digits) -> None:
    task = digits.task("02", (6, 7), test=0)
    interrupt(resumable, task, "train", 8)
    with resumable.state.lock():
        resumable.state.rollback(0)
    assert resumable.state.load_progress() is not None
    assert resumable.learn(task).resumed_at_step == 0


def test_a_rollback_forgets_the_checkpoint(resumable: Learner, digits: Digits) -> None:
    interrupt(resumable, digits.task("02", (6, 7), test=0), "train", 8)
    resumable.rollback("01")
    assert resumable.state.load_progress() is None


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_believed(resumable: Learner, tmp_path: Path, digits: Digits) -> None:
    task = digits.task("02", (6, 7), test=0)
    path = tmp_path / "state" / "progress.safetensors"
    for position in (5, 900, -1):
        interrupt(resumable, task, "train", 8)
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        assert open_learner(resumable.bundle.folder, tmp_path / "state").state.load_progress() is None
    assert resumable.learn(task).resumed_at_step == 0
    assert bits(resumable) == uninterrupted(resumable, tmp_path, task, digits)


def test_a_task_that_was_committed_before_its_checkpoint_was_removed(
    resumable: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(resumable.state, "clear_progress", crash)
        with pytest.raises(Interrupted):
            resumable.learn(digits.task("02", (6, 7), test=0))
    assert [task.name for task in resumable.tasks] == ["01", "02"]
    assert resumable.state.load_progress() is not None
    assert resumable.learn(digits.task("03", (8, 9), test=0)).resumed_at_step == 0
    assert resumable.state.load_progress() is None
