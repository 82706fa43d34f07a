"""Budgets: training ends where they do, and what was learned is kept."""

from __future__ import annotations

import pytest

from conftest import Digits
from csk_sdk import ConfigError, Learner, Progress


def steps_of(learner: Learner, digits: Digits, **settings: float) -> tuple[list[Progress], object]:
    seen: list[Progress] = []
    config = learner.config.with_overrides(epochs=3, **settings)
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
    # The mean over the pictures of the epoch that was begun.
    assert report.loss == pytest.approx(trained[-1].loss)


def test_seconds_end_at_a_step_and_are_committed(learner: Learner, digits: Digits) -> None:
    trained, report = steps_of(learner, digits, seconds=1e-6)
    assert (len(trained), report.epochs, report.stopped, report.generation) == (1, 1, "seconds", 1)
    assert learner.classes[-2:] == ("four", "five")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"seconds": 0.0}, "seconds is 0.0; it must be above 0"),
        ({"flops": float("inf")}, "flops is inf; it must be above 0"),
        ({"flops": 10.0}, "one step of 16 costs"),
    ],
)
def test_budgets_that_are_none(learner: Learner, digits: Digits, settings: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        steps_of(learner, digits, **settings)
    assert learner.generation.number == 0
