"""A memory budget: what is chosen, what is said, what is refused; and the profile small computes the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from plain_stack import stack

from conftest import REPOSITORY, Digits, build_digits_bundle, open_learner
from csk_artifacts_builder import BuildOptions, build_artifacts
from csk_sdk import Bundle, ConfigError, Learner, StorageError, TrainingConfig
from csk_sdk.contract.manifest import TRAINING_MODEL, Manifest
from csk_sdk.learning.memory_budget import plan_for, predicted_bytes
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.network.profiles import FAST, PROFILES, SMALL, MappedBundle, in_profile
from csk_sdk.runtime.peak_memory import peak_rss_bytes, resident_bytes
from csk_sdk.workspace.folder import Workspace

MIB = 1 << 20


@pytest.fixture(scope="module")
def manifest(digits_bundle: Path) -> Manifest:
    """The digits', with activations that matter."""
    found = Bundle.open(digits_bundle).manifest
    return replace(found, step_memory={"one": 2 * MIB, "each": 2 * MIB})


def planned(manifest: Manifest, budget: int, present: int = 50 * MIB, **settings: object):
    config = TrainingConfig(memory_budget=budget, **settings)  # type: ignore[arg-type]
    return plan_for(manifest, config, "portable", 100, present=present)


def test_the_fastest_plan_that_fits_is_taken(manifest: Manifest) -> None:
    config = TrainingConfig()
    sizes = {
        micro: 50 * MIB + predicted_bytes(manifest, config, FAST, micro, 100) for micro in (16, 8, 4, 2, 1)
    }
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    for micro, needed in sizes.items():
        plan = planned(manifest, needed)
        assert (plan.profile, plan.micro_batch or 16, plan.pixel_bytes) == (FAST, micro, 0)
    below = planned(manifest, sizes[8] - 1)
    assert below.micro_batch == 4
    assert below.predicted is not None
    assert below.predicted <= sizes[8] - 1


def test_what_is_left_is_for_pictures(manifest: Manifest) -> None:
    plan = planned(manifest, 1 << 30)
    assert plan.micro_batch is None
    assert plan.pixel_bytes == 100 * 8 * 8  # all of them, grey


def test_what_the_settings_fix_stays_fixed(manifest: Manifest) -> None:
    plan = planned(manifest, 1 << 30, micro_batch=3, profile="small")
    assert (plan.profile, plan.micro_batch) == (SMALL, 3)
    assert plan.sentence == "Memory budget 1024 MiB: micro-batches of 3, profile small."


def test_a_budget_that_nothing_fits_says_what_would_do(manifest: Manifest) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(manifest, 51 * MIB)
    needed = int(str(caught.value).split("needs about ")[1].split(" MiB")[0])
    assert str(caught.value) == (
        f"The memory budget is 51 MiB, and learning needs about {needed} MiB here even in the smallest way: 50 MiB "
        "that this process has already, and the rest for digits-base4.onnx. Pass "
        f"{needed + 4}MiB or more, or build the bundle with --precision int8, or fewer features (--features) "
        "or sites (--trainable)."
    )
    planned(manifest, needed * MIB)
    with pytest.raises(ConfigError):
        planned(manifest, (needed - 1) * MIB)


def test_a_bundle_that_does_not_say_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="build it again with this csk-sdk"):
        planned(replace(manifest, step_memory={}), 1 << 30)
    with pytest.raises(ConfigError, match="planned for the portable backend"):
        plan_for(manifest, TrainingConfig(memory_budget=1 << 30), "ort-training", 100)


def test_without_a_budget_the_settings_are_the_plan(manifest: Manifest) -> None:
    plan = plan_for(manifest, TrainingConfig(micro_batch=64), "portable", 100)
    assert (plan.profile, plan.micro_batch, plan.predicted, plan.sentence) == (FAST, None, None, "")


@pytest.mark.slow
def test_the_device_predicts_what_the_bundle_says(digits_bundle: Path) -> None:
    """Of a step's activations: exactly at one image, and not less at the bundle's batch."""
    found = Bundle.open(digits_bundle).manifest
    one = Bundle.open(build_digits_bundle(digits_bundle.parent / "one", batch_size=1)).manifest
    assert found.step_memory["one"] == one.memory["activations"]
    assert found.step_memory["one"] + 15 * found.step_memory["each"] >= found.memory["activations"]
    assert found.step_memory["each"] > 0


# --- the profile small


@pytest.fixture(scope="module", params=["exact", "int8"])
def learned(request, tmp_path_factory, base_data: Path, digits: Digits):
    """A bundle and a generation whose centers are not the bundle's."""
    folder = tmp_path_factory.mktemp(request.param)
    learner = open_learner(
        build_digits_bundle(folder / "b", base_data=base_data, precision=request.param), folder / "s"
    )
    learner.learn(digits.task("01", (4, 5), test=0))
    return learner


@pytest.mark.slow
def test_both_profiles_compute_the_same(learned, tmp_path: Path, digits: Digits) -> None:
    tensors = learned.generation.tensors
    x = learned.bundle.preprocessing(digits.of(5, 0, 20))
    mapped = MappedBundle(learned.bundle, tmp_path / "scratch")
    fast = FeatureExtractor(learned.bundle, tensors, 1)(x)
    small = FeatureExtractor(mapped, tensors, 1)(x)
    before = FeatureExtractor(learned.bundle, learned.bundle.checkpoint(), 1)(x)
    assert np.linalg.norm(fast - before) > 1e-3 * np.linalg.norm(fast)
    assert np.linalg.norm(small - fast) < 1e-5 * np.linalg.norm(fast)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_int8_is_mapped_in_both_profiles_and_exact_in_one(
    learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over = []
    read = Bundle.folded_kernels

    def folded(bundle: Bundle, *arguments: object):
        handed_over.append(bundle.precision)
        return read(bundle, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Bundle, "folded_kernels", folded)
    for profile in (FAST, SMALL):
        bundle = in_profile(learned.bundle, profile, tmp_path / profile.name)
        bundle.graph(TRAINING_MODEL, learned.generation.tensors, 1)
    assert handed_over == ([] if learned.bundle.precision == "int8" else ["exact"])


def test_int8_without_room_to_map_is_handed_over(
    learned, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits; but not within a budget, which handing over would break."""
    if learned.bundle.precision != "int8":
        pytest.skip("exact graphs are not mapped in the profile fast")
    tensors, x = learned.generation.tensors, learned.bundle.preprocessing(digits.of(5, 0, 20))
    with_room = FeatureExtractor(in_profile(learned.bundle, FAST, tmp_path), tensors, 1)(x)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    without = FeatureExtractor(in_profile(learned.bundle, FAST, tmp_path), tensors, 1)(x)
    assert np.array_equal(without, with_room)
    assert list(tmp_path.iterdir()) == []
    limited = in_profile(learned.bundle, FAST, tmp_path, limited=True)
    with pytest.raises(StorageError, match=r"the profile fast needs .* MB there .* with no memory budget"):
        FeatureExtractor(limited, tensors, 1)


def test_a_task_learned_small_is_the_task(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    learners = [open_learner(digits_bundle, tmp_path / name, profile=name, epochs=2) for name in PROFILES]
    for learner in learners:
        learner.learn(digits.task("01", (4, 5), test=0))
    images, labels = digits.arrays((4, 5), 100, 140)
    fast, small = (learner.predict(images, "01") for learner in learners)
    names = np.array(["four", "five"])[labels]
    assert np.mean(small.labels == names) >= np.mean(fast.labels == names) - 0.03
    assert not list((tmp_path / "small").glob("kernels-*"))


def test_a_killed_process_leaves_nothing_for_long(digits_bundle: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "kernels-old", tmp_path / "kernels-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(b"x")
    os.utime(old, (0, 0))
    bundle = Bundle.open(digits_bundle)
    MappedBundle(bundle, tmp_path).graph(TRAINING_MODEL, bundle.checkpoint(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["kernels-new"]


def test_a_full_disk_is_one_sentence(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    bundle = Bundle.open(digits_bundle)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError) as caught:
        MappedBundle(bundle, tmp_path).graph(TRAINING_MODEL, bundle.checkpoint(), 1)
    assert str(caught.value).startswith(
        f"The kernels cannot be written into {tmp_path} (No space left on device): the profile small needs"
    )
    assert list(tmp_path.iterdir()) == []


# --- settings


@pytest.mark.parametrize(("text", "size"), [('"96MiB"', 96 * MIB), ("1000000", 1_000_000)])
def test_a_budget_in_csk_toml(tmp_path: Path, text: str, size: int) -> None:
    (tmp_path / "csk.toml").write_text(f"[training]\nmemory_budget = {text}\n")
    assert Workspace.open(tmp_path).config.memory_budget == size


def test_no_size_in_csk_toml(tmp_path: Path) -> None:
    (tmp_path / "csk.toml").write_text('[training]\nmemory_budget = "much"\n')
    with pytest.raises(ConfigError, match="memory_budget to 'much', which is no size such as 64MiB"):
        Workspace.open(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_resident_memory_is_what_the_kernel_says() -> None:
    block = np.ones(64 * MIB // 8)
    here = resident_bytes()
    assert block.nbytes < here <= peak_rss_bytes()


# --- the whole process, under a limit that kills


def limited(limit: str, *command: object) -> subprocess.CompletedProcess[str]:
    supervisor = [sys.executable, REPOSITORY / "tests/field/memory_limit.py", "--limit", limit, "--"]
    return subprocess.run([*supervisor, *command], capture_output=True, text=True)


@pytest.fixture
def workspace(tmp_path: Path, digits_bundle: Path, digits: Digits) -> Path:
    shutil.copytree(digits_bundle, tmp_path / "w/bundle")
    digits.save(digits.task("01", (4, 5), test=0), tmp_path / "w/tasks")
    return tmp_path / "w"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
@pytest.mark.parametrize("trained", ["centers", "auto"])
def test_the_process_stays_within_its_budget_under_a_hard_limit(workspace: Path, trained: str) -> None:
    train = [Path(sys.executable).with_name("csk-sdk"), "train", "--workspace", workspace, "--json"]
    train += ["--train", trained]
    options = ["--memory-budget", "128MiB", "--threads", "1", "--epochs", "1", "--no-evaluate"]
    refused = limited("128MiB", *train, "--memory-budget", "40MiB")
    assert "The memory budget is 40 MiB" in refused.stderr
    done = limited("128MiB", *train, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[0])
    assert report["memory_budget"] == 128 * MIB
    assert report["peak_rss_bytes"] <= 128 * MIB
    assert "kept: peak" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_the_smallest_budget_holds_where_matrices_of_features_are_the_peak(tmp_path: Path) -> None:
    """A network whose kernels are small beside 1,318 features squared, learned with what the refusal says it needs."""
    build_artifacts(
        stack(tmp_path / "m.onnx", (3, 16, 256, 256, 256), 8),
        tmp_path / "w/bundle",
        BuildOptions(features="wide"),
    )
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = np.clip(rng.normal(100 + 60 * labels[:, None, None, None], 30, (120, 8, 8, 3)), 0, 255).astype(
        np.uint8
    )
    (tmp_path / "w/tasks").mkdir()
    np.savez(tmp_path / "w/tasks/01.npz", images=images, labels=labels, class_names=["dark", "bright"])
    train = [Path(sys.executable).with_name("csk-sdk"), "train", "--workspace", tmp_path / "w", "--json"]
    train += ["--train", "centers", "--threads", "1", "--epochs", "1", "--no-evaluate", "--memory-budget"]
    refused = subprocess.run([*train, "60MiB"], capture_output=True, text=True, check=False).stderr
    needed = refused.split(". Pass ")[1].split(" or more")[0]
    done = limited(needed, *train, needed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not json.loads(done.stdout.splitlines()[0])["heads_only"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_the_smallest_budget_holds_where_images_are_seen_through_a_domain(tmp_path: Path) -> None:
    """An int8 network of large kernels: the graph that sees through a domain has them in float32."""
    rng = np.random.default_rng(0)

    def drawn(each: int, striped: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        labels = np.arange(4 * each) % 4
        images = rng.normal(80 + 30 * labels[:, None, None, None], 30, (4 * each, 8, 8, 3))
        images[:, :, ::2] *= 0.0 if striped else 1.0
        return np.clip(images, 0, 255).astype(np.uint8), labels

    images, labels = drawn(40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / f"base/{'abcd'[label]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    build_artifacts(
        stack(tmp_path / "m.onnx", (3, 16, 640, 640, 640), 2),
        tmp_path / "w/bundle",
        BuildOptions(features="last", precision="int8", base_data=tmp_path / "base", classes=tuple("abcd")),
    )
    Learner.open(tmp_path / "w/bundle", tmp_path / "w/state").adapt("striped", drawn(40, striped=True)[0])
    images, labels = drawn(40, striped=True)
    (tmp_path / "w/tasks").mkdir()
    np.savez(tmp_path / "w/tasks/01.npz", images=images, labels=labels, class_names=list("efgh"))
    train = [Path(sys.executable).with_name("csk-sdk"), "train", "--workspace", tmp_path / "w", "--json"]
    train += ["--threads", "1", "--no-evaluate", "--memory-budget"]
    refused = subprocess.run([*train, "60MiB"], capture_output=True, text=True, check=False).stderr
    needed = refused.split(". Pass ")[1].split(" or more")[0]
    done = limited(needed, *train, needed)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")
def test_the_limit_does_kill() -> None:
    done = limited("64MiB", sys.executable, "-c", "b = bytearray(1 << 28); import time; time.sleep(20)")
    assert done.returncode == 1
    assert "NOT kept" in done.stdout
    assert "exit status -9" in done.stdout
