"""What a state holds of the images it was learned from, and `--no-class-statistics`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import reload
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import csk_sdk
from conftest import NAMES, REPOSITORY, Digits, open_learner
from csk_sdk import Learner
from csk_sdk.runtime import telemetry
from csk_sdk.state.tensorfile import decode
from field import no_telemetry

FIRST_IMPORT = re.compile(r"^\s*(import onnxruntime|from onnxruntime)\b", re.MULTILINE)


def test_the_state_holds_no_picture(learner: Learner, digits: Digits) -> None:
    task = digits.task("01", (4, 5), test=0)
    learner.learn(task)
    assert task.train is not None
    stored = b"".join(path.read_bytes() for path in learner.state.folder.rglob("*") if path.is_file())
    for index in range(len(task.train)):
        picture = task.train.images.read(index)
        normal = learner.bundle.preprocessing([picture])
        for form in (picture.tobytes(), normal.tobytes(), normal.astype(np.float64).tobytes()):
            assert form not in stored
        # Nor its features: only sums over many images.
        assert learner.features([picture])[0].tobytes() not in stored


def test_a_progress_checkpoint_holds_none_either(digits_bundle: Path, tmp_path: Path, digits: Digits) -> None:
    learner = open_learner(digits_bundle, tmp_path / "state", checkpoint_seconds=0.0)
    task = digits.task("01", (4, 5), test=0)
    seen = []

    def keep(progress: object) -> None:
        path = tmp_path / "state" / "progress.safetensors"
        if path.exists():
            seen.append(path.read_bytes())

    learner.learn(task, on_progress=keep)
    assert seen
    assert task.train is not None
    for index in range(len(task.train)):
        picture = task.train.images.read(index)
        assert not any(picture.tobytes() in one for one in seen)
        assert not any(learner.bundle.preprocessing([picture]).tobytes() in one for one in seen)


@pytest.fixture
def without(digits_bundle: Path, tmp_path: Path, digits: Digits) -> Learner:
    """Two tasks learned without class statistics."""
    learner = open_learner(digits_bundle, tmp_path / "without", class_statistics=False)
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        learner.learn(digits.task(name, chosen))
    return learner


def test_without_class_statistics_nothing_of_them_is_kept(without: Learner) -> None:
    base = without.bundle.checkpoint()
    tensors = without.generation.tensors
    counted = "statistics.counts"
    assert tensors[counted].tolist() == base[counted].tolist(), "only those that came with the bundle"
    assert tensors["statistics.means"].shape == base["statistics.means"].shape
    for path in without.state.folder.rglob("*.safetensors"):
        names = decode(path)[0]["statistics.classes"].tobytes().decode()
        assert "four" not in names
        assert "six" not in names


def test_without_class_statistics_the_tasks_own_heads_decide_together(
    without: Learner, digits: Digits, tmp_path: Path, digits_bundle: Path
) -> None:
    assert without.classes == NAMES[:8]
    images, truth = digits.arrays(tuple(range(8)), 100, 140)
    pictures, names = images[..., None], np.array(NAMES)[truth]
    head, features = without.head(), without.features(pictures)
    # By hand: every task's logits side by side, the largest wins.
    parts = [without.head(task) for task in ("base", "01", "02")]
    logits = np.concatenate([features @ part.weight.T + part.bias for part in parts], axis=1)
    expected = np.array(NAMES)[logits.argmax(axis=1)]
    np.testing.assert_array_equal(without.predict(pictures).labels, expected)
    assert head.weight.shape == (8, without.bundle.manifest.head.features)
    # A task's own decision is what it is with statistics; the one over all classes is worse, and better than chance.
    with_them = open_learner(digits_bundle, tmp_path / "with")
    for name, chosen in (("01", (4, 5)), ("02", (6, 7))):
        with_them.learn(digits.task(name, chosen))
    for task, chosen in (("01", (4, 5)), ("02", (6, 7))):
        images, _ = digits.arrays(chosen, 100, 140)
        same = (
            without.predict(images[..., None], task).labels
            == with_them.predict(images[..., None], task).labels
        )
        assert same.mean() > 0.97
    all_together = np.mean(with_them.predict(pictures).labels == names)
    fallen_back = np.mean(without.predict(pictures).labels == names)
    assert 0.3 < fallen_back < all_together


def test_a_task_with_statistics_among_others_without(without: Learner, digits: Digits) -> None:
    from dataclasses import replace

    without.learn(digits.task("03", (8, 9)), replace(without.config, class_statistics=True))
    assert without.classes == NAMES
    assert without.generation.tensors["statistics.counts"].shape == (6,)


def test_the_exported_model_decides_alike(without: Learner, digits: Digits, tmp_path: Path) -> None:
    import onnxruntime as ort

    without.export(tmp_path / "out.onnx")
    pictures = digits.images[:32, :, :, None]
    session = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: without.bundle.preprocessing(pictures)})
    found = np.array(without.classes)[logits.argmax(axis=1)]
    np.testing.assert_array_equal(found, without.predict(pictures).labels)


def test_the_command_says_so(tmp_path: Path, digits_bundle: Path, digits: Digits) -> None:
    (tmp_path / "bundle").symlink_to(digits_bundle)
    digits.save(digits.task("01", (4, 5), train=10, test=5), tmp_path / "tasks")
    done = csk_sdk(
        "train", "--no-class-statistics", "--epochs", "1", "--few-shot", "0", "--workspace", tmp_path
    )
    assert done.status == 0
    assert done.err == (
        "Warning: no class statistics of 01 are kept: decisions over all classes now come from the tasks' own "
        "heads together, which is much less accurate. With --task they are as good as ever.\n"
    )
    assert csk_sdk("evaluate", "--workspace", tmp_path).status == 0


def test_a_prediction_leaves_nothing_in_the_users_home(digits_bundle: Path) -> None:
    files, _ = no_telemetry.left_behind(digits_bundle)
    assert files == []


@pytest.mark.slow
def test_so_does_the_builder(tmp_path: Path) -> None:
    model = REPOSITORY / "examples" / "digits" / "digits-base4.onnx"
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != telemetry.VARIABLE}
    subprocess.run(
        [sys.executable, "-m", "csk_sdk", "build-artifacts", str(model), "--out", str(tmp_path / "bundle")],
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        check=True,
        capture_output=True,
    )
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    "script",
    [
        path.relative_to(REPOSITORY)
        for folder in ("benchmarks", "examples", "device_runners", "tests/sweep", "findings")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if "node_modules" not in path.parts and FIRST_IMPORT.search(path.read_text(encoding="utf-8"))
    ],
    ids=str,
)
def test_scripts_that_import_the_runtime_themselves_leave_telemetry_off(script: Path) -> None:
    """Imports are sorted, and onnxruntime comes in front of csk_sdk: the package or the script must say so before."""
    text = (REPOSITORY / script).read_text(encoding="utf-8")
    before = text[: FIRST_IMPORT.search(text).start()]  # type: ignore[union-attr] # as chosen above
    package = REPOSITORY / script.parts[0] / script.parts[1] / "__init__.py"
    if package.is_file():
        before += package.read_text(encoding="utf-8")
    assert re.search(r'environ.*"ORT_DISABLE_TELEMETRY"|^\s*(import|from) csk_sdk\b', before, re.MULTILINE)


def test_an_application_may_ask_for_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(telemetry.VARIABLE, "0")
    reload(telemetry)
    assert os.environ[telemetry.VARIABLE] == "0"
    assert not telemetry.is_off()
    monkeypatch.delenv(telemetry.VARIABLE)
    reload(telemetry)
    assert os.environ[telemetry.VARIABLE] == "1"
    assert telemetry.is_off()
