"""Plateaus and budgets: training ends where they do, and what was learned is kept."""

from __future__ import annotations

import json

import pytest

from conftest import Digits
from csk_sdk import ConfigError, Learner, Progress
from csk_sdk.learning.stopping import Stopping


def steps_of(learner: Learner, digits: Digits, **settings: float) -> tuple[list[Progress], object]:
    seen: list[Progress] = []
    config = learner.config.with_overrides(**{"epochs": 3, **settings})
    report = learner.learn(digits.task("01", (4, 5)), config, seen.append)
    return [one for one in seen if one.phase == "train"], report


def test_epochs_are_the_most(learner: Learner, digits: Digits) -> None:
    trained, report = steps_of(learner, digits, seconds=1e6, flops=1e18)
    assert (len(trained), report.epochs, report.stopped) == (15, 3, "epochs")


def test_a_budget_of_flops_is_counted_in_advance(learner: Learner, digits: Digits) -> None:
    each = learner.bundle.manifest.costs["step_centers"] * 16
    trained, report = steps_of(learner, digits, flops=7.5 * each)
    assert (len(trained), trained[-1].steps) == (7, 7)
    assert (report.epochs, report.stopped, report.generation) == (2, "flops", 1)
    assert learner.tasks[0].epochs == 2
    # The mean over the images of the epoch that was begun.
    assert report.loss == pytest.approx(trained[-1].loss)


def test_seconds_end_at_a_step_and_are_committed(learner: Learner, digits: Digits) -> None:
    trained, report = steps_of(learner, digits, seconds=1e-6)
    assert (len(trained), report.epochs, report.stopped, report.generation) == (1, 1, "seconds", 1)
    assert learner.classes[-2:] == ("four", "five")


FLAT = {"learning_rate": 0.0, "head_learning_rate": 0.0, "shift": 0, "flip": False}


def test_a_loss_that_does_not_fall_ends_training(learner: Learner, digits: Digits) -> None:
    trained, report = steps_of(learner, digits, **FLAT, epochs=9, patience=2)
    # The first epoch is the best, the second and third bring nothing.
    assert (len(trained), report.epochs, report.stopped, report.generation) == (15, 3, "plateau", 1)
    assert learner.tasks[0].epochs == 3


def test_without_patience_all_epochs_are_done(learner: Learner, digits: Digits) -> None:
    _, report = steps_of(learner, digits, **FLAT, epochs=5, patience=0)
    assert (report.epochs, report.stopped) == (5, "epochs")


def test_a_plateau_is_the_same_after_an_interruption(learner: Learner, digits: Digits) -> None:
    config = learner.config.with_overrides(**FLAT, epochs=9, patience=3, checkpoint_seconds=0.0)
    task = digits.task("01", (4, 5))

    def cut(progress: Progress) -> None:
        if progress.phase == "train" and progress.step == 12:  # in the middle of the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn(task, config, cut)
    report = learner.learn(task, config)
    assert (report.resumed_at_step, report.epochs, report.stopped) == (11, 4, "plateau")


@pytest.mark.parametrize(
    ("patience", "losses", "end"),
    [
        (1, [1.0, 0.98, 0.971], 3),
        (2, [1.0, 0.995, 0.985, 0.980, 0.976], 5),
        (2, [1.0, 1.5, 0.98, 1.2, 0.97, 0.96, 0.95, 0.94], None),
        (3, [0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_a_plateau_is_no_fall_by_a_hundredth(
    learner: Learner, patience: int, losses: list[float], end: int | None
) -> None:
    config = learner.config.with_overrides(epochs=20, patience=patience)
    stopping = Stopping(config, learner.bundle.manifest, 2, 16)
    ended = None
    for epoch, loss in enumerate(losses, start=1):
        assert not stopping.over(2 * epoch - 1, 0.0, 0.0)  # within an epoch nothing is compared
        if stopping.over(2 * epoch, 0.0, loss):
            ended = epoch
            break
        again = Stopping(config, learner.bundle.manifest, 2, 16)
        again.resume(json.loads(json.dumps(stopping.memory)))
        stopping = again
    assert ended == end
    assert stopping.reason == ("plateau" if end else "epochs")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patience": -1}, "patience is -1; it must be a whole number, 0 or more"),
        ({"seconds": 0.0}, "seconds is 0.0; it must be above 0"),
        ({"flops": float("inf")}, "flops is inf; it must be above 0"),
        ({"flops": 10.0}, "one step of 16 costs"),
    ],
)
def test_budgets_that_are_none(learner: Learner, digits: Digits, settings: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        steps_of(learner, digits, **settings)
    assert learner.generation.number == 0
