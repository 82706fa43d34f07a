"""Batches that the application feeds: what a stream learns, refuses and never commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, open_learner
from csk_sdk import BundleError, ConfigError, Learner, StateLockedError, TaskError
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
    with pytest.raises(TaskError, match="Task '01' saw no image of 'six'; nothing was committed"):
        learn_without_the_third()
    with pytest.raises(TaskError, match="Task '01' saw no image of 'five'; nothing was committed"):
        learn_one_class()
    assert learner.state.head() == 0
    learner.learn(digits.task("01", (4, 5)))


def test_a_refused_batch_leaves_no_trace_in_a_stream(
    learner: Learner, digits_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    other = open_learner(digits_bundle, tmp_path / "other")
    bad: list[tuple[Any, Any, str]] = [
        (digits.of(4, 0, 3), [0, 1], r"3 images came with labels of shape \(2,\)"),
        (digits.of(4, 0, 3), [0, 1, 2], "Labels run from 0 to 2, but the task has 2 classes"),
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
        ([], "Task '01' has no class: name at least one."),
        (
            ["four", "five", "four"],
            "Task '01' has the class 'four' twice, and each class needs a name of its own: leave one out",
        ),
        (["four", ""], "a class called '', and a name is not empty"),
    ],
)
def test_classes_of_a_stream_are_checked_first(learner: Learner, classes: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        learner.stream("01", classes)


def streamed(learner: Learner, digits: Digits, passes: int = 3, **settings: Any) -> TaskStream:
    """A stream of five batches of 16 a pass, trained on from the first; the application says when one is over."""
    config = learner.config.with_overrides(sensitivity_batches=1, **settings)
    with learner.stream("01", ["four", "five"], config) as stream:
        for _ in range(passes):
            for batch in batches(digits, (4, 5)):
                stream.observe(*batch)
            stream.end_epoch()
    assert stream.report is not None
    assert stream.report.generation == learner.state.head()
    assert learner.tasks[-1].images == passes * 80, "what comes after training has ended still counts"
    assert accuracy(learner, digits, (4, 5), "01") > 0.9
    return stream


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses of all steps that are taken from now on."""
    from csk_sdk.learning.training import TaskTraining

    losses: list[float] = []
    step = TaskTraining.step

    def counted(self: TaskTraining, *given: Any) -> float:
        losses.append(step(self, *given))
        return losses[-1]

    monkeypatch.setattr(TaskTraining, "step", counted)
    return losses


def test_without_a_budget_a_stream_takes_every_step(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = steps_of(monkeypatch)
    stream = streamed(learner, digits)
    assert stream.report is not None
    assert (len(losses), stream.ended, stream.report.stopped) == (15, False, "epochs")
    assert (stream.report.epochs, stream.report.loss) == (3, losses[-1])
    assert learner.tasks[-1].config["precision"] == "exact", "what auto came to"


def test_a_stream_ends_when_its_seconds_are_over(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = steps_of(monkeypatch)
    stream = streamed(learner, digits, seconds=1e-9)
    assert stream.report is not None
    assert (len(losses), stream.ended, stream.report.stopped) == (1, True, "seconds")


def test_seconds_of_a_stream_are_those_of_learning(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csk_sdk.learning import stream as module

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    losses = steps_of(monkeypatch)
    config = learner.config.with_overrides(sensitivity_batches=1, seconds=3600.0)
    with learner.stream("01", ["four", "five"], config) as stream:
        for batch in batches(digits, (4, 5)):
            now[0] += 1e6  # the camera saw nothing for days
            stream.observe(*batch)
    assert len(losses) == 5
    assert not stream.ended


def test_a_stream_ends_when_its_flops_are_spent(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = steps_of(monkeypatch)
    each = 16 * learner.bundle.manifest.costs["step_centers"]
    stream = streamed(learner, digits, flops=3.5 * each)
    assert stream.report is not None
    assert (len(losses), stream.ended, stream.report.stopped) == (3, True, "flops")
    with pytest.raises(ConfigError, match=r"flops is 1, and one step of 16 costs .*: allow more"):
        learner.stream("02", ["six", "seven"], {"flops": 1.0})
    config = learner.config.with_overrides(sensitivity_batches=1, flops=1.5 * each)
    with (
        pytest.raises(ConfigError, match="one step of 80 costs"),
        learner.stream("02", ["six", "seven"], config) as more,
    ):
        more.observe(*digits.arrays((6, 7), 0, 40))
    assert [task.name for task in learner.tasks] == ["01"]


def test_a_stream_ends_at_a_plateau_of_the_epochs_that_are_told(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = steps_of(monkeypatch)
    stream = streamed(
        learner, digits, patience=1, learning_rate=0.0, head_learning_rate=0.0, shift=0, flip=False
    )
    assert stream.report is not None
    assert (len(losses), stream.ended, stream.report.stopped, stream.report.epochs) == (
        10,
        True,
        "plateau",
        2,
    )


def test_a_stream_ends_after_the_epochs_that_are_told(
    learner: Learner, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = steps_of(monkeypatch)
    stream = streamed(learner, digits, epochs=2, patience=0)
    assert stream.report is not None
    assert (len(losses), stream.ended, stream.report.stopped) == (10, True, "epochs")


def test_a_stream_keeps_a_memory_budget_or_says_why_not(learner: Learner, digits: Digits) -> None:
    stream = streamed(learner, digits, memory_budget=4 << 30)
    assert stream.report is not None
    assert (stream.report.memory_budget, stream.report.profile) == (4 << 30, "fast")
    with pytest.raises(ConfigError, match="The memory budget is 1 MiB, and learning needs about"):
        learner.stream("02", ["six", "seven"], {"memory_budget": 1 << 20}).__enter__()
    streamed_small = learner.config.with_overrides(profile="small", micro_batch=4, sensitivity_batches=1)
    with learner.stream("02", ["six", "seven"], streamed_small) as small:
        for batch in batches(digits, (6, 7)):
            small.observe(*batch)
    assert small.report is not None
    assert (small.report.profile, small.report.micro_batch) == ("small", 4)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_stream_has_nothing_to_keep_of_the_first_layers(learner: Learner, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        learner.stream("01", ["four", "five"], {"prefix_cache": place})
    assert str(caught.value) == (
        f"prefix_cache is {place}, and a stream trains on each batch once: there is nothing to keep. Set prefix_cache "
        "to off or auto, or learn a task of files or arrays."
    )
    learner.stream("01", ["four", "five"], {"prefix_cache": "auto"})


def test_a_stream_is_refused_what_learn_is(learner: Learner) -> None:
    for settings, error in (({"precision": "int8"}, BundleError), ({"label_smoothing": 2.0}, ConfigError)):
        with pytest.raises(error):
            learner.stream("01", ["four", "five"], settings)


def test_a_stream_takes_nothing_outside_its_block(learner: Learner, digits: Digits) -> None:
    stream = learner.stream("x", ["a", "b"])
    outside = r"The stream of task 'x' is not open: feed it inside `with learner\.stream"
    for call in (lambda: stream.observe(digits.of(4, 0, 2), [0, 1]), stream.end_epoch):
        with pytest.raises(TaskError, match=outside):
            call()
    with stream:
        for batch in batches(digits, (4, 5)):
            stream.observe(*batch)
    with pytest.raises(TaskError, match=outside):
        stream.observe(digits.of(4, 0, 2), [0, 1])
    assert learner.tasks[-1].name == "x"


def test_few_pictures_of_a_stream_get_heads_only(learner: Learner, digits: Digits) -> None:
    with learner.stream("01", ["four", "five"], learner.config.with_overrides(few_shot=100)) as stream:
        for batch in batches(digits, (4, 5)):
            stream.observe(*batch)
        assert not stream.end_epoch()
    assert stream.report is not None
    assert (stream.report.heads_only_because, stream.report.epochs) == ("few-shot", 0)
    assert stream.warnings == stream.report.warnings
