"""Batches that the application feeds: what a stream learns, refuses and never commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import Learner, StateLockedError, TaskError
from csk_sdk.learning.stream import TaskStream
from learner.knowing import accuracy, batches, same_tensors


def test_a_stream_learns_and_commits(learner: Learner, digits: Digits) -> None:
    with learner.stream(
        "01", ["four", "five"], learner.config.with_overrides(sensitivity_batches=2)
    ) as stream:
        losses = [
            stream.observe(list(images), labels.tolist()) for images, labels in 4 * batches(digits, (4, 5))
        ]
    assert losses[0] is None
    assert all(loss is not None for loss in losses[1:])
    assert [task.name for task in learner.tasks] == ["01"]
    assert (learner.tasks[0].images, learner.tasks[0].classes) == (320, ("four", "five"))
    assert accuracy(learner, digits, (4, 5), "01") > 0.9
    assert accuracy(learner, digits, tuple(range(6))) > 0.8
    assert learner.generation.tensors["statistics.counts"].sum() == 160 + 320


def test_a_short_stream_is_learned_when_it_ends(learner: Learner, digits: Digits) -> None:
    with learner.stream("01", ["four", "five"]) as stream:
        assert [stream.observe(*batch) for batch in batches(digits, (4, 5))] == [None] * 5
    assert accuracy(learner, digits, (4, 5), "01") > 0.9


def test_an_exception_in_a_stream_commits_nothing_and_frees_the_lock(
    learner: Learner, digits: Digits
) -> None:
    def learn_and_fail() -> None:
        with learner.stream("01", ["four", "five"]) as stream:
            for batch in batches(digits, (4, 5)):
                stream.observe(*batch)
            raise ZeroDivisionError

    def learn_one_class() -> None:
        with learner.stream("01", ["four", "five"]) as stream:
            stream.observe(digits.of(4, 0, 8), [0] * 8)

    def learn_without_the_third() -> None:
        with learner.stream("01", ["four", "five", "six"]) as stream:
            losses = [stream.observe(*batch) for _ in range(30) for batch in batches(digits, (4, 5))]
            assert losses[-1] is not None, "training has begun without waiting for ever"

    with pytest.raises(ZeroDivisionError):
        learn_and_fail()
    assert learner.tasks == ()
    with pytest.raises(TaskError, match="Task '01' saw no picture of 'six'; nothing was committed"):
        learn_without_the_third()
    with pytest.raises(TaskError, match="Task '01' saw no picture of 'five'; nothing was committed"):
        learn_one_class()
    assert learner.state.head() == 0
    learner.learn(digits.task("01", (4, 5)))


def test_a_refused_batch_leaves_no_trace_in_a_stream(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    other = open_learner(digits_bundle, tmp_path / "other")
    bad: list[tuple[Any, Any, str]] = [
        (digits.of(4, 0, 3), [0, 1], r"3 pictures came with labels of shape \(2,\)"),
        (digits.of(4, 0, 3), [0, 1, 2], "Labels run from 0 to 2, but there are 2 classes"),
        (digits.of(4, 0, 3), [0, 1, -1], "Labels run from -1 to 1"),
        (digits.of(4, 0, 3).astype(np.float32), [0, 1, 1], "The images are float32 and must be uint8"),
    ]
    with learner.stream("01", ["four", "five"]) as clean, other.stream("01", ["four", "five"]) as disturbed:
        for batch in batches(digits, (4, 5)):
            clean.observe(*batch)
            disturbed.observe(*batch)
            disturbed.observe(digits.of(4, 0, 0), [])
            for images, labels, message in bad:
                with pytest.raises(TaskError, match=message):
                    disturbed.observe(images, labels)
    assert same_tensors(learner, other)


@pytest.mark.parametrize("held", [1, 32], ids=["trained at once", "held back"])
def test_a_camera_may_reuse_its_buffer(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits, held: int
) -> None:
    other = open_learner(digits_bundle, tmp_path / "other")
    config = learner.config.with_overrides(sensitivity_batches=held)
    pictures, truth = np.empty((16, 8, 8), np.uint8), np.empty(16, np.int64)
    with (
        learner.stream("01", ["four", "five"], config) as fresh,
        other.stream("01", ["four", "five"], config) as reused,
    ):
        for images, labels in batches(digits, (4, 5)):
            fresh.observe(images, labels)
            pictures[:], truth[:] = images, labels
            reused.observe(pictures, truth)
            pictures[:], truth[:] = 0, 0
    assert same_tensors(learner, other)


def test_a_rare_class_survives_a_small_sample(learner: Learner, digits: Digits) -> None:
    config = learner.config.with_overrides(sensitivity_batches=1, learning_rate=0.01)
    stream = TaskStream(learner.bundle, learner.state, "01", ("four", "five"), config, reservoir=6)
    with stream:
        stream.observe(np.concatenate([digits.of(4, 0, 1), digits.of(5, 0, 1)]), [0, 1])
        for start in range(0, 100, 10):
            stream.observe(digits.of(5, start, start + 10), [1] * 10)
    assert learner.classes == NAMES[:6]
    counts = learner.generation.tensors["statistics.counts"]
    assert counts[4] > 0
    assert counts[4:].sum() == pytest.approx(102)
    learner.predict(digits.of(4, 100, 110))


def test_a_stream_and_another_learner_exclude_each_other(
    learner: Learner, digits_bundle: Path, digits: Digits
) -> None:
    other = open_learner(digits_bundle, learner.state.folder)
    late = other.stream("01", ["four", "five"])
    with learner.stream("01", ["four", "five"]) as stream:
        with pytest.raises(StateLockedError, match="This process"):
            other.learn(digits.task("02", (6, 7)))
        for batch in batches(digits, (4, 5)):
            stream.observe(*batch)
    with pytest.raises(TaskError, match="Task '01' is learned already"), late:
        pass
    other.learn(digits.task("02", (6, 7)))
    assert [task.name for task in learner.tasks] == ["01", "02"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["four"], "fewer than two classes"),
        ([], "fewer than two classes"),
        (["four", "five", "four"], "'four', and each class needs a name of its own"),
        (["four", ""], "'', and each class needs a name of its own"),
    ],
)
def test_classes_of_a_stream_are_checked_first(learner: Learner, classes: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        learner.stream("01", classes)
