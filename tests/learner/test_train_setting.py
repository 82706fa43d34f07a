"""`train`: heads, centers, or what held-out images say; each is to the bit what it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import NAMES, Digits, build_digits_bundle, open_learner
from csk_sdk import Learner, Progress, Task
from csk_sdk.learning import consolidation
from csk_sdk.learning.training import TaskTraining
from csk_sdk.method import gain

# 80 images in batches of 16: 5 steps an epoch, of which two are taken before the decision.
SETTINGS: dict[str, Any] = {"epochs": 3, "checkpoint_seconds": 0.0}
# So small that nothing can come of it.
NOTHING: dict[str, Any] = {**SETTINGS, "learning_rate": 1e-7}
PROBE = 2

Open = Callable[..., Learner]


@pytest.fixture
def opened(digits_bundle: Path, tmp_path: Path) -> Open:
    def open_one(name: str, **settings: Any) -> Learner:
        return open_learner(digits_bundle, tmp_path / name, **settings)

    return open_one


@pytest.fixture
def task(digits: Digits) -> Task:
    return digits.task("01", (4, 5), test=0)


@pytest.fixture
def worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gain is enough: the digits are too easy for a real one."""
    monkeypatch.setattr(gain, "SURE", -np.inf)
    monkeypatch.setattr(gain, "WORTH", -np.inf)


def bits(learner: Learner) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in learner.generation.tensors.items()}


def test_heads_take_no_step(opened: Open, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    few = opened("few", **SETTINGS, **{"few_shot": 1000})
    few.learn(task)

    def never(*_: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(TaskTraining, "step", never)
    monkeypatch.setattr(TaskTraining, "warm_up", never)
    heads = opened("heads", **SETTINGS, train="heads")
    report = heads.learn(task)
    assert bits(heads) == bits(few)
    assert (report.heads_only, report.heads_only_because, report.epochs) == (True, "train", 0)
    assert (report.protected, report.gain, report.choice, report.warnings) == ({}, {}, "", ())
    assert heads.tasks[0].config["train"] == "heads"


def test_centers_that_are_dropped_in_the_end_are_not_said_to_be_trained(
    opened: Open, task: Task, monkeypatch: pytest.MonkeyPatch, worth_nothing: None
) -> None:
    # Nothing when it is decided, and much in the end.
    lost = iter((0.0, *[50.0] * 9))
    monkeypatch.setattr(consolidation, "estimated_forgetting", lambda *_: {"base": next(lost)})
    report = opened("auto", **SETTINGS, train="auto", max_forgetting=3.0).learn(task)
    assert (report.heads_only, report.heads_only_because) == (True, "max-forgetting")
    assert report.choice.startswith("training seemed to pay: after")
    assert report.choice.endswith(
        "The centers were trained, and dropped in the end: older tasks would have lost more than "
        "--max-forgetting allows."
    )


def test_where_training_does_not_pay_it_is_heads_to_the_bit(opened: Open, task: Task) -> None:
    heads, auto = opened("heads", **NOTHING, train="heads"), opened("auto", **NOTHING, train="auto")
    heads.learn(task)
    seen: list[Progress] = []
    report = auto.learn(task, on_progress=seen.append)
    assert bits(auto) == bits(heads)
    assert sum(now.phase == "train" for now in seen) == PROBE
    assert (report.heads_only, report.heads_only_because, report.epochs) == (True, "no-gain", 0)
    assert (report.loss, report.protected, report.leak) == (heads.tasks[0].loss, {}, 0.0)
    assert report.gain["images"] == 80 - 16 * PROBE
    assert report.choice.startswith("training would not pay: after steps with")
    # Not of the steps, of which fewer had been taken by then.
    assert f" {100 * report.gain['done']:.0f} % of the summed learning rates of all steps, " in report.choice
    assert "--train centers" in report.choice
    assert auto.tasks[0].notes == (report.choice,)


@pytest.mark.usefixtures("worth_nothing")
def test_where_it_pays_it_is_centers_to_the_bit(opened: Open, task: Task) -> None:
    centers, auto = opened("centers", **SETTINGS), opened("auto", **SETTINGS, train="auto")
    centers.learn(task)
    report = auto.learn(task)
    assert bits(auto) == bits(centers)
    assert (report.heads_only, report.heads_only_because, report.epochs) == (False, "", 3)
    assert report.choice.startswith("training pays: after")
    assert auto.tasks[0].notes == (report.choice,)
    assert 0.0 < report.gain["done"] < 0.5


@pytest.mark.usefixtures("worth_nothing")
def test_an_older_task_may_lose_too_much(opened: Open, task: Task) -> None:
    auto = opened(
        "auto",
        **{**SETTINGS, "learning_rate": 3.0},
        train="auto",
        energy=0.0,
        channel_ratio=1.0,
        max_forgetting=0.0,
    )
    report = auto.learn(task)
    assert report.gain["lost"] > 0.0
    assert report.heads_only_because == "no-gain"
    assert "--max-forgetting" in report.choice


class Interrupted(BaseException):
    """Like KeyboardInterrupt: nothing may catch it."""


@pytest.mark.parametrize("pays", [False, True])
@pytest.mark.parametrize(("phase", "step"), [("train", 2), ("train", 3), ("train", 4), ("consolidate", 0)])
def test_a_killed_lesson_makes_the_same_choice(
    opened: Open, task: Task, phase: str, step: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pays:
        monkeypatch.setattr(gain, "SURE", -np.inf)
        monkeypatch.setattr(gain, "WORTH", -np.inf)
    whole, killed = (opened(name, **SETTINGS, train="auto") for name in ("whole", "killed"))
    expected = whole.learn(task)

    def stop(progress: Progress) -> None:
        if progress.phase == phase and progress.step >= step:
            raise Interrupted

    if pays or phase == "consolidate" or step <= PROBE:
        with pytest.raises(Interrupted):
            killed.learn(task, on_progress=stop)
    report = killed.learn(task)
    assert report.heads_only_because == expected.heads_only_because == ("" if pays else "no-gain")
    assert (report.gain, report.choice) == (expected.gain, expected.choice)
    assert bits(killed) == bits(whole)


def interrupted(learner: Learner, task: Task, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        learner.learn(task, on_progress=stop)


def test_the_device_decides_by_default(digits_bundle: Path, tmp_path: Path) -> None:
    learner = Learner.open(digits_bundle, tmp_path / "state")
    assert learner.config.train == "auto"


@pytest.mark.parametrize("said", [True, False], ids=["said", "implied"])
def test_what_a_build_began_that_trained_by_default_goes_on_so(opened: Open, task: Task, said: bool) -> None:
    """Where its checkpoint says "centers", and where it is of a time before the setting."""
    whole, killed = opened("whole", **SETTINGS), opened("killed", **SETTINGS)
    whole.learn(task)
    interrupted(killed, task, 4)
    tensors, meta = killed.state.load_progress() or ({}, {})
    meta = {name: value for name, value in meta.items() if name != "default_train"}
    if not said:
        del meta["config"]["train"]
    with killed.state.lock():
        killed.state.save_progress(tensors, meta)
    # And is interrupted once more.
    interrupted(opened("killed", **SETTINGS, train="auto"), task, 6)
    auto = opened("killed", **SETTINGS, train="auto")
    report = auto.learn(task)
    assert (report.resumed_at_step, report.epochs, report.heads_only, report.gain) == (5, 3, False, {})
    assert bits(auto) == bits(whole)
    assert report.choice == (
        "an earlier build of csk-sdk began this lesson and trained the centers, as was its default: it went on like "
        "that, and whether training pays was not asked."
    )
    assert auto.tasks[0].notes == (report.choice,)
    assert auto.tasks[0].config == whole.tasks[0].config


def test_of_an_earlier_build_what_was_to_be_decided_is_decided(opened: Open, task: Task) -> None:
    whole, killed = opened("whole", **NOTHING, train="auto"), opened("killed", **NOTHING, train="auto")
    expected = whole.learn(task)
    interrupted(killed, task, 2)
    tensors, meta = killed.state.load_progress() or ({}, {})
    with killed.state.lock():
        killed.state.save_progress(tensors, {name: meta[name] for name in meta if name != "default_train"})
    report = killed.learn(task)
    assert (report.resumed_at_step, report.choice) == (1, expected.choice)
    assert bits(killed) == bits(whole)


def test_another_wish_begins_the_lesson_anew(opened: Open, task: Task) -> None:
    """Whoever asked for centers, ended that, and lets it be decided, wants it decided."""
    interrupted(opened("state", **SETTINGS), task, 4)
    auto = opened("state", **SETTINGS, train="auto")
    report = auto.learn(task)
    assert report.resumed_at_step == 0
    assert report.gain["images"] > 0
    assert auto.tasks[0].config["train"] == "auto"


def test_of_one_batch_nothing_can_be_held_out(opened: Open, task: Task) -> None:
    auto = opened("auto", **SETTINGS, train="auto", batch_size=80)
    report = auto.learn(task)
    assert (report.heads_only_because, report.gain["images"]) == ("no-gain", 0)
    assert "--batch-size" in report.choice


def test_a_budget_that_no_step_was_taken_of_ended_nothing(opened: Open, task: Task) -> None:
    costs = opened("costs").bundle.manifest.costs["step_centers"]
    heads = opened("heads", **SETTINGS, train="heads", flops=2.0 * 16 * costs)
    assert heads.learn(task).stopped == "epochs"


def test_of_a_budget_for_two_steps_the_first_is_asked(opened: Open, task: Task) -> None:
    costs = opened("costs").bundle.manifest.costs["step_centers"]
    auto = opened("auto", **NOTHING, train="auto", flops=2.0 * 16 * costs)
    report = auto.learn(task)
    assert (report.gain["images"], report.heads_only_because) == (64, "no-gain")


def test_few_images_are_not_asked(opened: Open, task: Task) -> None:
    report = opened("auto", **SETTINGS, **{"few_shot": 1000}, train="auto").learn(task)
    assert (report.heads_only_because, report.gain) == ("few-shot", {})


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_from_prefix_features(opened: Open, task: Task, kept: str) -> None:
    heads = opened("heads", **NOTHING, train="heads", prefix_cache=kept)
    auto = opened("auto", **NOTHING, train="auto", prefix_cache=kept)
    heads.learn(task)
    assert auto.learn(task).heads_only_because == "no-gain"
    assert bits(auto) == bits(heads)


@pytest.mark.parametrize("pays", [False, True])
def test_in_int8(
    base_data: Path, tmp_path: Path, task: Task, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pays:
        monkeypatch.setattr(gain, "SURE", -np.inf)
        monkeypatch.setattr(gain, "WORTH", -np.inf)
    bundle = build_digits_bundle(tmp_path / "bundle", base_data=base_data, precision="int8")
    settings = SETTINGS if pays else NOTHING
    same = open_learner(bundle, tmp_path / "same", **settings, train="centers" if pays else "heads")
    auto = open_learner(bundle, tmp_path / "auto", **settings, train="auto")
    same.learn(task)
    assert auto.learn(task).heads_only is not pays
    assert bits(auto) == bits(same)


def test_of_one_step_nothing_can_be_held_out(opened: Open, task: Task, digits: Digits) -> None:
    auto = opened("auto", **SETTINGS, train="auto", batch_size=128)
    report = auto.learn(task)
    assert (report.heads_only_because, report.gain["images"]) == ("no-gain", 0)
    assert report.choice.startswith(
        "of 80 images, none could be held out that would tell whether training pays:"
    )
    assert "--batch-size" in report.choice
    images, labels = digits.arrays((6, 7), 0, 20)
    config = auto.config.with_overrides(sensitivity_batches=1)
    with auto.stream("02", NAMES[6:8], config) as stream:
        for part in range(4):
            stream.observe(images[part::4], labels[part::4])
    assert stream.report is not None
    assert stream.report.images == 40
    assert stream.report.choice.startswith("of 10 images, none could be held out"), (
        "of those that had come by then"
    )


@pytest.mark.parametrize("dropped", [False, True])
def test_time_may_be_over_before_it_is_decided(
    opened: Open, task: Task, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    if dropped:
        monkeypatch.setattr(consolidation, "estimated_forgetting", lambda *_: {"base": 50.0})
    auto = opened("auto", **SETTINGS, train="auto", seconds=1e-6, max_forgetting=3.0)
    report = auto.learn(task)
    assert (report.stopped, report.epochs, report.gain, report.heads_only) == ("seconds", 1, {}, dropped)
    fate = "dropped, as older tasks would have lost too much" if dropped else "kept"
    assert report.choice == (
        "the time that --seconds gives (1e-06 s) was over after 1 of 15 steps, before it could be told whether "
        f"training pays: what these have trained is {fate}."
    )
    assert report.choice in auto.tasks[0].notes
    # Without a decision to make there is nothing to say.
    assert opened("centers", **SETTINGS, seconds=1e-6, max_forgetting=3.0).learn(task).choice == ""


@pytest.mark.parametrize(("train", "pays"), [("heads", False), ("auto", False), ("auto", True)])
def test_a_stream_too(
    opened: Open, digits: Digits, train: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pays:
        monkeypatch.setattr(gain, "SURE", -np.inf)
        monkeypatch.setattr(gain, "WORTH", -np.inf)
    images, labels = digits.arrays((4, 5), 0, 40)
    order = np.random.default_rng(0).permutation(len(images))
    learners = []
    for setting in ("centers" if pays else "heads", train):
        learner = opened(f"{len(learners)}", **(SETTINGS if pays else NOTHING), train=setting)
        config = learner.config.with_overrides(sensitivity_batches=4)
        with learner.stream("01", NAMES[4:6], config) as stream:
            for part in np.array_split(order, 8):
                stream.observe(images[part], labels[part])
        learners.append(learner)
    assert stream.report is not None
    because = "" if pays else "train" if train == "heads" else "no-gain"
    assert stream.report.heads_only_because == because
    assert bool(stream.report.gain) == (train == "auto")
    assert bits(learners[1]) == bits(learners[0])
