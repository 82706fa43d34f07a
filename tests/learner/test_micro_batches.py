"""Micro-batches give the step of the whole batch, and a run with them goes on to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, open_learner
from csk_sdk import Bundle, ConfigError, Learner, Progress, TrainingConfig
from csk_sdk.backends import StepResult, open_step
from csk_sdk.backends.micro import pieces
from csk_sdk.contract.manifest import PORTABLE


class Interrupted(BaseException):
    """Like KeyboardInterrupt: nothing may catch it."""


def step_of(bundle: Bundle, digits: Digits, micro: int | None, masked: bool = False) -> StepResult:
    """One step on 11 images of three classes, with random deltas on half of the channels."""
    rng = np.random.default_rng(3)
    images, labels = digits.arrays((4, 5, 6), 0, 4)
    images, labels = images[:11], labels[:11] % (2 if masked else 3)
    order = rng.permutation(11)
    manifest = bundle.manifest
    selected = {
        site.name: np.sort(rng.permutation(site.columns)[: site.columns // 2]) for site in manifest.sites
    }
    deltas = {
        site.name: rng.normal(0, 0.01, (site.rows, len(selected[site.name]))).astype(np.float32)
        for site in manifest.sites
    }
    head = (
        rng.normal(0, 0.3, (3, manifest.head.features)).astype(np.float32),
        rng.normal(0, 0.3, 3).astype(np.float32),
    )
    targets: dict[str, Any] = {"label": labels[order], "label_smoothing": np.array(0.1, np.float32)}
    if masked:
        targets["class_mask"] = np.array([True, True, False])
    step = open_step(PORTABLE, bundle, bundle.checkpoint(), 1, micro)
    return step.run(bundle.preprocessing(images[order]), targets, head, selected, deltas)


@pytest.mark.parametrize("masked", [False, True], ids=["all classes", "one masked"])
@pytest.mark.parametrize("micro", [1, 4, 10])
def test_the_step_is_that_of_the_whole_batch(
    digits_bundle: Path, digits: Digits, micro: int, masked: bool
) -> None:
    bundle = Bundle.open(digits_bundle)
    whole, parts = (step_of(bundle, digits, size, masked) for size in (None, micro))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    pairs = [(whole.weight, parts.weight), (whole.bias, parts.bias)]
    pairs += [(whole.centers[name], parts.centers[name]) for name in whole.centers]
    for expected, found in pairs:
        assert np.linalg.norm(expected) > 0
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_as_large_as_the_batch_is_the_batch(digits_bundle: Path, digits: Digits) -> None:
    bundle = Bundle.open(digits_bundle)
    whole, parts = (step_of(bundle, digits, size) for size in (None, 11))
    assert parts.loss == whole.loss
    assert all(np.array_equal(whole.centers[name], parts.centers[name]) for name in whole.centers)


def test_pieces_keep_the_order() -> None:
    images, labels = np.arange(7, dtype=np.float32), np.arange(7)
    cut = list(pieces([(images, labels), (images[:2], labels[:2])], 3))
    assert [part.tolist() for _, part in cut] == [[0, 1, 2], [3, 4, 5], [6], [0, 1]]
    assert [part.tolist() for _, part in pieces([(images, labels)], None)] == [list(range(7))]


def test_learning_is_the_same_but_for_rounding(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    learners = [
        open_learner(digits_bundle, tmp_path / str(micro), epochs=2, micro_batch=micro) for micro in (None, 3)
    ]
    reports = [learner.learn(digits.task("01", (4, 5), test=0)) for learner in learners]
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=1e-3)
    assert [report.micro_batch for report in reports] == [None, 3]
    whole, parts = (learner.generation.tensors for learner in learners)
    for site in learners[0].bundle.manifest.sites:
        key = f"center/{site.name}"
        moved = np.linalg.norm(whole[key] - learners[0].bundle.checkpoint()[key])
        assert moved > 0
        assert np.linalg.norm(parts[key] - whole[key]) < 1e-2 * moved


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"micro_batch": 5}, {"micro_batch": 5, "profile": "small"}], ids=str)
def test_an_interrupted_run_goes_on_to_the_bit(
    digits_bundle: Path, tmp_path: Path, digits: Digits, settings: dict[str, Any]
) -> None:
    task = digits.task("01", (4, 5), test=0)
    settings = {"epochs": 2, "checkpoint_seconds": 0.0, **settings}

    def stop(progress: Progress) -> None:
        if progress.phase == "train" and progress.step >= 7:
            raise Interrupted

    learner = open_learner(digits_bundle, tmp_path / "a", **settings)
    with pytest.raises(Interrupted):
        learner.learn(task, on_progress=stop)
    again = open_learner(digits_bundle, tmp_path / "a", **settings)
    assert again.learn(task).resumed_at_step == 6
    twin = open_learner(digits_bundle, tmp_path / "b", **settings)
    twin.learn(task)
    assert bits(again) == bits(twin)


def test_a_run_goes_on_as_it_was_planned_at_its_beginning(
    digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process has a little more or less memory, and must not plan the rest of the run anew."""
    from csk_sdk.learning import learn_run
    from csk_sdk.learning.memory_budget import Plan
    from csk_sdk.network.profiles import FAST, SMALL

    task = digits.task("01", (4, 5), test=0)
    settings = {"epochs": 2, "checkpoint_seconds": 0.0}

    def stop(progress: Progress) -> None:
        if progress.phase == "train" and progress.step >= 7:
            raise Interrupted

    def planned(plan: Plan) -> None:
        monkeypatch.setattr(learn_run, "plan_for", lambda *_, **__: plan)

    planned(Plan(SMALL, 5, 0, 1 << 30, 1 << 29))
    with pytest.raises(Interrupted):
        open_learner(digits_bundle, tmp_path / "a", **settings).learn(task, on_progress=stop)
    planned(Plan(FAST, None, 0, 1 << 30, 1 << 29))
    again = open_learner(digits_bundle, tmp_path / "a", **settings)
    report = again.learn(task)
    assert (report.resumed_at_step, report.profile, report.micro_batch) == (6, "small", 5)
    planned(Plan(SMALL, 5, 0, 1 << 30, 1 << 29))
    twin = open_learner(digits_bundle, tmp_path / "b", **settings)
    twin.learn(task)
    assert bits(again) == bits(twin)


def test_a_stream_takes_micro_batches_too(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    def streamed(folder: str, micro: int | None) -> tuple[list[float | None], Learner]:
        settings = TrainingConfig(
            threads=1, sensitivity_batches=2, shift=0, micro_batch=micro, few_shot=0, train="centers"
        )
        learner = Learner.open(digits_bundle, tmp_path / folder, settings)
        images, labels = digits.arrays((4, 5), 0, 24)
        order = np.random.default_rng(0).permutation(len(images))
        with learner.stream("01", ("four", "five")) as stream:
            losses = [stream.observe(images[part], labels[part]) for part in np.split(order, 4)]
        return losses, learner

    (whole, _), (parts, learner) = streamed("a", None), streamed("b", 5)
    assert [loss is None for loss in parts] == [True, False, False, False]
    assert parts[1:] == pytest.approx(whole[1:], rel=1e-3)
    assert [task.name for task in learner.tasks] == ["01"]


def test_a_micro_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro_batch is 0; it must be a whole number, 1 or more"):
        TrainingConfig(micro_batch=0)


def bits(learner: Learner) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in learner.generation.tensors.items()}
