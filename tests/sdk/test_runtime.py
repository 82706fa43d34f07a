"""How sessions are opened: by which package, with threads that wait how, and where from."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Digits, open_learner
from csk_sdk import ConfigError, RuntimeMissingError, TaskError, TrainingConfig
from csk_sdk.backends import require_ready
from csk_sdk.bundle import folder as bundles
from csk_sdk.contract.manifest import ORT_TRAINING, PORTABLE
from csk_sdk.network.profiles import SMALL, MappedBundle
from csk_sdk.runtime import sessions as runtime

SLEEP, STOP = "session.intra_op.allow_spinning", "session.force_spinning_stop"


def test_threads_sleep_unless_they_are_to_spin_within_a_run() -> None:
    assert runtime.session_options().get_session_config_entry(SLEEP) == "0"
    assert runtime.session_options(spinning=True).get_session_config_entry(STOP) == "1"
    with pytest.raises(Exception, match=SLEEP):
        runtime.session_options(spinning=True).get_session_config_entry(SLEEP)


@pytest.mark.parametrize("spinning", [False, True])
def test_only_training_steps_spin_and_only_where_it_is_set(
    spinning: bool, digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []
    graph = bundles.Graph

    def watched(path: Path, *arguments: Any, **named: Any) -> Any:
        opened.append((path.name, named["spinning"]))
        return graph(path, *arguments, **named)

    monkeypatch.setattr(bundles, "Graph", watched)
    learner = open_learner(digits_bundle, tmp_path / "state", spinning=spinning)
    learner.learn(digits.task("01", (4, 5), test=0))
    learner.predict(digits.images[:1, :, :, None])
    assert ("training_model.onnx", spinning) in opened
    assert {spins for name, spins in opened if name != "training_model.onnx"} == {False}


def test_a_mapped_bundle_spins_as_the_bundle_does(digits_bundle: Path, tmp_path: Path) -> None:
    bundle = bundles.Bundle.open(digits_bundle).view(spinning=True)
    assert MappedBundle(bundle, tmp_path, SMALL).spinning


def installed(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Distributions by their names, with underscores."""
    names = {name.replace("_", "-"): version for name, version in found.items()}
    monkeypatch.setattr(runtime, "installed_runtimes", lambda: names)


def missing(name: str, reason: str) -> Any:
    def load(module: str) -> Any:
        if module == name:
            raise ImportError(reason)
        return import_module(module)

    return load


@pytest.mark.parametrize("reason", ["", "numpy.core.multiarray failed to import"])
def test_a_runtime_that_is_installed_and_cannot_be_imported(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, onnxruntime_gpu="1.18.0")
    monkeypatch.setattr(runtime, "import_module", missing("onnxruntime", reason))
    with pytest.raises(RuntimeMissingError) as caught:
        runtime.load_onnxruntime()
    said = (
        f"onnxruntime-gpu 1.18.0 is installed but cannot be imported ({reason or 'no reason given'}). Before "
    )
    assert str(caught.value).startswith(f"{said}1.19 it needs numpy<2;")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "which is not installed here: use an environment of its own with Python 3.11 or 3.12"),
        (
            {"onnxruntime": "1.22.0"},
            "here, and onnxruntime shares its folder: uninstall that first, or use an",
        ),
    ],
)
def test_the_training_package_where_it_is_not(
    found: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **found)
    assert not runtime.has_training_package()
    with pytest.raises(RuntimeMissingError, match=words):
        runtime.import_training("api")


def test_modules_of_the_training_package_are_imported_without_its_own_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`onnxruntime/training/__init__.py` imports torch; here it ends whoever runs it."""
    package = tmp_path / "onnxruntime"
    (package / "training").mkdir(parents=True)
    (package / "training" / "__init__.py").write_text("raise SystemExit")
    (package / "training" / "api.py").write_text("ANSWER = 42\n")
    monkeypatch.delitem(sys.modules, "onnxruntime.training", raising=False)
    monkeypatch.delitem(sys.modules, "onnxruntime.training.api", raising=False)
    installed(monkeypatch, onnxruntime_training_cpu="1.19.2")
    ort = SimpleNamespace(__file__=str(package / "__init__.py"), __version__="1.19.2")
    monkeypatch.setattr(runtime, "load_onnxruntime", lambda: ort)
    assert runtime.has_training_package()
    try:
        assert runtime.import_training("api").ANSWER == 42
        with pytest.raises(
            RuntimeMissingError, match=r"is installed but its artifacts module cannot be imported \("
        ):
            runtime.import_training("artifacts")
    finally:
        for name in ("onnxruntime.training", "onnxruntime.training.api"):
            sys.modules.pop(name, None)


def test_what_the_official_artifacts_cannot_learn(
    digits_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, onnxruntime_training_cpu="1.19.2")
    opened = bundles.Bundle.open(digits_bundle)
    manifest = replace(opened.manifest, head_capacity=6)
    bundle: Any = SimpleNamespace(manifest=manifest, folder=opened.folder)
    names = [str(number) for number in range(7)]
    with pytest.raises(
        TaskError, match=rf"'01' has {len(names)} classes, .* --head-capacity {len(names)}\.$"
    ):
        require_ready(ORT_TRAINING, bundle, "01", names, TrainingConfig())
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.1, and the ort-training backend has none"):
        require_ready(ORT_TRAINING, bundle, "01", names[:2], TrainingConfig(label_smoothing=0.1))
    require_ready(ORT_TRAINING, bundle, "01", names[:-1], TrainingConfig())
    require_ready(PORTABLE, bundle, "01", names, TrainingConfig(label_smoothing=0.1))
