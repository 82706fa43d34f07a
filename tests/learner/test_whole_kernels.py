"""Lessons that train whole kernels; what holds of any lesson is in test_invariants.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Digits, build_digits_bundle, open_learner
from csk_sdk import BundleError, ConfigError, Learner, Task
from csk_sdk.backends import choose_backend
from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import INT8
from csk_sdk.method.projection import is_frozen
from csk_sdk.workspace.doctor import examine
from learner.knowing import accuracy
from learner.test_micro_batches import step_of
from learner.test_resume import interrupt
from learner.upgrading import Bundles, upgraded, used

SETTINGS: dict[str, Any] = {"train": "kernels", "epochs": 3, "checkpoint_seconds": 0.0}


def moved(learner: Learner, before: dict[str, np.ndarray]) -> set[str]:
    """Sites whose kernels differ from what they were."""
    tensors = learner.generation.tensors
    return {name for name, tensor in before.items() if not np.array_equal(tensor, tensors[name])}


def kernels_of(learner: Learner) -> dict[str, np.ndarray]:
    return {name: tensor for name, tensor in learner.generation.tensors.items() if "center/" in name}


@pytest.mark.parametrize("train", ["auto", "heads", "kernels", "centers"])
def test_train_says_what_the_bundle_trains(
    kernels_bundle: Path, digits_bundle: Path, tmp_path: Path, digits: Digits, train: str
) -> None:
    kernels = open_learner(kernels_bundle, tmp_path / "kernels", **{**SETTINGS, "train": train})
    task = digits.task("01", (4, 5), test=0)
    before = kernels_of(kernels)
    if train == "centers":
        with pytest.raises(ConfigError, match=r"train is centers, and .* was built to train kernels: take"):
            kernels.learn(task)
        assert not kernels.tasks
        return
    report = kernels.learn(task)
    assert moved(kernels, before) == (set(before) if not report.heads_only else set())
    if train == "auto":
        assert ("The kernels are trained." in report.choice) != report.heads_only
    if train == "kernels":
        assert not report.heads_only
        centers = open_learner(digits_bundle, tmp_path / "centers", **SETTINGS)
        with pytest.raises(ConfigError, match=r"built to train centers: .* again with --sites kernels\."):
            centers.learn(task)


def test_what_fits_no_bundle_of_kernels_is_said_where_it_is_asked(
    kernels_bundle: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(kernels_bundle)
    with pytest.raises(BundleError, match=r"trains whole kernels, which the portable backend does alone"):
        choose_backend("ort-training", bundle)
    learner = open_learner(kernels_bundle, tmp_path / "state", **SETTINGS, memory_budget=1 << 20)
    with pytest.raises(ConfigError, match=r"build the bundle with --sites center, or fewer features"):
        learner.learn(Task.from_arrays("01", np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2, ["a", "b"]))
    shutil.copytree(kernels_bundle, tmp_path / "bundle")
    (tmp_path / "csk.toml").write_text('[training]\ntrain = "centers"\n')
    failed = [check for check in examine(tmp_path) if check.status == "fail"]
    assert [check.name for check in failed] == ["Settings"]
    assert "was built to train kernels" in failed[0].detail


@pytest.mark.parametrize("micro", [1, 4])
def test_parts_of_a_batch_are_the_whole(kernels_bundle: Path, digits: Digits, micro: int) -> None:
    bundle = Bundle.open(kernels_bundle)
    whole, parts = (step_of(bundle, digits, size) for size in (None, micro))
    for name, expected in whole.centers.items():
        assert np.linalg.norm(parts.centers[name] - expected) <= 1e-5 * np.linalg.norm(expected)


def test_an_interrupted_lesson_ends_as_one_that_was_not(
    kernels_bundle: Path, tmp_path: Path, digits: Digits
) -> None:
    task = digits.task("01", (4, 5), test=0)
    whole = open_learner(kernels_bundle, tmp_path / "whole", **SETTINGS)
    whole.learn(task)
    broken = open_learner(kernels_bundle, tmp_path / "broken", **SETTINGS)
    interrupt(broken, task, "train", 7)
    assert broken.learn(task).resumed_at_step == 6
    for name, tensor in whole.generation.tensors.items():
        assert tensor.tobytes() == broken.generation.tensors[name].tobytes(), name


def test_int8_trains_kernels_in_float(tmp_path: Path, base_data: Path, digits: Digits) -> None:
    folder = build_digits_bundle(tmp_path / "bundle", base_data=base_data, sites="kernels", precision=INT8)
    exact, int8 = (step_of(Bundle.open(folder).view(precision=one), digits, None) for one in ("exact", INT8))
    for name, expected in exact.centers.items():
        cosine = np.vdot(expected, int8.centers[name])
        assert cosine >= 0.98 * np.linalg.norm(expected) * np.linalg.norm(int8.centers[name]), name
    learner = open_learner(folder, tmp_path / "state", **SETTINGS)
    learner.learn(digits.task("01", (4, 5), test=0))
    assert accuracy(learner, digits, (4, 5)) >= 0.95


@pytest.mark.slow
def test_what_centers_have_learned_goes_over_to_kernels_as_heads(tmp_path: Path, digits: Digits) -> None:
    bundles = Bundles.made(tmp_path / "bundles", digits)
    learner = used(bundles.old, tmp_path / "device", digits)
    tasks = learner.tasks
    after, report = upgraded(learner, bundles.build("kernels", sites="kernels"))
    assert after.bundle.manifest.trained == "kernels"
    assert [task.name for task in after.tasks] == [task.name for task in tasks]
    assert report.carried == ("01", "02")
    sites = after.bundle.manifest.sites
    assert all(is_frozen(after.generation.tensors[f"moment/{site.name}"]) for site in sites)
    assert accuracy(after, digits, (4, 5, 6)) >= 0.9
    now = open_learner(after.bundle.folder, after.state.folder, **SETTINGS)
    assert now.learn(digits.task("03", (7, 8), train=20), replace=False).heads_only
