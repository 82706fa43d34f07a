"""Steps go over the images that most of the gradient comes from, and over no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Digits, open_learner
from csk_sdk import Learner, Progress, Task
from csk_sdk.learning import training
from csk_sdk.learning.training import TaskTraining

EPOCHS, BATCH, IMAGES = 3, 16, 80
# Images come to the steps as they are, so that each can be told.
PLAIN: dict[str, Any] = {"epochs": EPOCHS, "shift": 0, "flip": False, "checkpoint_seconds": 0.0}
# What every device has that sets nothing.
DEFAULT: dict[str, Any] = {**PLAIN, "gradient_share": 0.9}
WRONG = (3, 21, 50, 77)

Steps = list[NDArray[np.float32]]


@pytest.fixture
def task(digits: Digits) -> Task:
    """Two classes of 40 images, four of which have the other's label."""
    images, labels = digits.arrays((4, 5), 0, 40)
    labels = labels.copy()
    labels[list(WRONG)] = 1 - labels[list(WRONG)]
    return Task.from_arrays("01", images, labels, ("four", "five"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The images of each step."""
    seen: Steps = []
    step = TaskTraining.step

    def recorded(self: TaskTraining, batch: Any, schedule: float) -> float:
        seen.append(batch[0].copy())
        return step(self, batch, schedule)

    monkeypatch.setattr(TaskTraining, "step", recorded)
    return seen


@pytest.fixture
def opened(digits_bundle: Path, tmp_path: Path) -> Callable[..., Learner]:
    return lambda name, **settings: open_learner(digits_bundle, tmp_path / name, **settings)


def rows(learner: Learner, task: Task, images: NDArray[np.float32]) -> list[int]:
    """Which of the task's images these are; no two of them are alike."""
    assert task.train is not None
    pixels = [task.train.images.read(index) for index in range(IMAGES)]
    every = learner.bundle.preprocessing.normalize(np.stack(pixels))
    return [int(np.flatnonzero((every == image).all(axis=(1, 2, 3)))[0]) for image in images]


def test_each_epoch_goes_over_the_same_images_the_doubtful_among_them(
    opened: Callable[..., Learner], task: Task, steps: Steps
) -> None:
    learner = opened("state", **DEFAULT)
    told: list[Progress] = []
    report = learner.learn(task, on_progress=told.append)
    assert 0 < report.stepped < IMAGES
    per_epoch = -(-report.stepped // BATCH)
    assert len(steps) == EPOCHS * per_epoch
    assert {one.steps for one in told if one.phase == "train"} == {len(steps)}
    epochs = [
        rows(learner, task, np.concatenate(steps[first : first + per_epoch]))
        for first in range(0, len(steps), per_epoch)
    ]
    assert {len(epoch) for epoch in epochs} == {report.stepped}
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len({tuple(epoch) for epoch in epochs}) == EPOCHS
    assert set(WRONG) < set(epochs[0])
    assert (report.images, report.epochs) == (IMAGES, EPOCHS)


def test_a_share_of_1_is_all_images(opened: Callable[..., Learner], task: Task, steps: Steps) -> None:
    assert opened("state", **PLAIN, gradient_share=1.0).learn(task).stepped == IMAGES
    assert sum(map(len, steps)) == EPOCHS * IMAGES


def test_without_a_step_it_is_none(opened: Callable[..., Learner], task: Task) -> None:
    assert opened("state", **DEFAULT, train="heads").learn(task).stepped == 0


def test_images_that_the_first_head_was_not_fitted_on_are_asked_too(
    opened: Callable[..., Learner], task: Task, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_IMAGES_PER_FEATURE", 0)
    asked: list[int] = []
    norms_of = TaskTraining.norms_of

    def counted(self: TaskTraining, batches: Any) -> NDArray[np.float64]:
        found = norms_of(self, batches)
        asked.append(len(found))
        assert len(self.norms) + len(found) == IMAGES
        return found

    monkeypatch.setattr(TaskTraining, "norms_of", counted)
    learner = opened("state", **DEFAULT, sensitivity_batches=2)
    report = learner.learn(task)
    assert asked == [IMAGES - 2 * BATCH]
    per_epoch = -(-report.stepped // BATCH)
    assert set(WRONG) < set(rows(learner, task, np.concatenate(steps[:per_epoch])))


class Interrupted(BaseException):
    """Nothing may catch it."""


def interrupt(learner: Learner, task: Task, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.step >= step:
            raise Interrupted

    with pytest.raises(Interrupted):
        learner.learn(task, on_progress=stop)


@pytest.mark.parametrize("step", [2, 4, 5])
def test_an_interrupted_run_goes_on_to_the_bit(opened: Callable[..., Learner], task: Task, step: int) -> None:
    learner, twin = opened("state", **DEFAULT), opened("twin", **DEFAULT)
    interrupt(learner, task, step)
    again = opened("state", **DEFAULT)
    report, whole = again.learn(task), twin.learn(task)
    assert (report.resumed_at_step, report.stepped, report.loss) == (step - 1, whole.stepped, whole.loss)
    one, other = (
        {name: tensor.tobytes() for name, tensor in each.generation.tensors.items()} for each in (again, twin)
    )
    assert one == other


def test_a_checkpoint_of_before_goes_over_all_images(
    opened: Callable[..., Learner], task: Task, steps: Steps
) -> None:
    """Of a build that knew of no such choice, as deployed devices may have one at their update."""
    interrupt(opened("state", **PLAIN, gradient_share=1.0), task, 3)
    learner = opened("state", **DEFAULT)
    found = learner.state.load_progress()
    assert found is not None
    tensors, meta = dict(found[0]), dict(found[1])
    del tensors["stepped"], meta["config"]["gradient_share"]
    with learner.state.lock():
        learner.state.save_progress(tensors, meta)
    steps.clear()
    report = learner.learn(task)
    assert (report.resumed_at_step, report.stepped) == (2, IMAGES)
    assert len(steps) == EPOCHS * (IMAGES // BATCH) - 2


def test_whether_it_pays_is_asked_of_images_that_no_step_went_over(
    opened: Callable[..., Learner], task: Task, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    gain, judged = TaskTraining.gain, []

    def recorded(self: TaskTraining, batches: Any, held_out: NDArray[np.bool_], done: float) -> Any:
        images = np.concatenate([images for images, _ in batches()])
        judged.append((images[held_out], images[~held_out], len(steps)))
        return gain(self, batches, held_out, done)

    monkeypatch.setattr(TaskTraining, "gain", recorded)
    learner = opened("state", **DEFAULT, train="auto")
    learner.learn(task)
    ((held, rest, taken),) = judged
    trained = set(rows(learner, task, np.concatenate(steps[:taken])))
    held_out, others = set(rows(learner, task, held)), set(rows(learner, task, rest))
    assert held_out
    assert not held_out & trained
    assert trained <= others
    assert len(held_out | others) == IMAGES


@pytest.mark.parametrize("stepped", [np.zeros(IMAGES, np.uint8), np.ones(IMAGES - 1, np.uint8)])
def test_a_checkpoint_that_no_step_can_go_on_from_is_not_gone_on_from(
    opened: Callable[..., Learner], task: Task, stepped: NDArray[np.uint8]
) -> None:
    interrupt(opened("state", **DEFAULT), task, 3)
    learner = opened("state", **DEFAULT)
    found = learner.state.load_progress()
    assert found is not None
    with learner.state.lock():
        learner.state.save_progress({**found[0], "stepped": stepped}, found[1])
    assert learner.learn(task).resumed_at_step == 0


def test_of_one_batch_that_is_worth_a_step_another_is_held_out(
    opened: Callable[..., Learner], task: Task
) -> None:
    report = opened("state", **PLAIN, gradient_share=1e-9, train="auto").learn(task)
    assert report.gain["images"] > 0
    assert opened("centers", **PLAIN, gradient_share=1e-9).learn(task).stepped == 2 * BATCH


def test_a_budget_for_one_step_is_one_step_s_images(
    opened: Callable[..., Learner], task: Task, digits: Digits
) -> None:
    learner = opened("state", **DEFAULT)
    flops = 1.5 * learner.bundle.manifest.costs["step_centers"] * BATCH
    report = learner.learn(task, learner.config.with_overrides(flops=flops))
    assert (report.stopped, report.stepped, report.images) == ("flops", BATCH, IMAGES)
    images, labels = digits.arrays((6, 7), 0, 40)
    order = np.random.default_rng(0).permutation(IMAGES)
    config = learner.config.with_overrides(flops=flops, sensitivity_batches=1)
    with learner.stream("02", ["six", "seven"], config) as stream:
        for start in range(0, IMAGES, BATCH):
            rows = order[start : start + BATCH]
            stream.observe(images[rows], labels[rows])
    assert stream.report is not None
    assert (stream.report.stopped, stream.report.stepped, stream.report.images) == ("flops", BATCH, IMAGES)
