"""Choosing what computes a step, and what is said where it cannot; no training package is needed here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Digits, build_digits_bundle
from csk_artifacts_builder.options import BACKEND_CHOICES
from csk_sdk import Bundle, BundleError, ConfigError, Learner, RuntimeMissingError
from csk_sdk.backends import choose_backend
from csk_sdk.cli.building import Backend as BuildBackend
from csk_sdk.cli.learning import Backend as LearnBackend
from csk_sdk.contract.manifest import BACKENDS, sealed
from csk_sdk.runtime import sessions as runtime_module
from csk_sdk.runtime.sessions import import_training, require_training_package

MISSING = (
    "The ort-training backend needs onnxruntime-training, which is not installed here{}: use an environment of its "
    "own with Python 3.11 or 3.12, and there pip install 'csk-sdk[ort-training]'."
)


def edited(bundle: Path, out: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """A copy with another manifest, sealed again."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(sealed(edit(manifest)))
    return out


@pytest.fixture
def claims_both(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose manifest says that it has both backends."""
    return edited(
        digits_bundle, tmp_path / "b", lambda raw: raw | {"backends": list(BACKENDS), "head_capacity": 6}
    )


def test_auto_is_the_first_that_the_bundle_was_built_for(digits_bundle: Path, claims_both: Path) -> None:
    assert choose_backend("auto", Bundle.open(digits_bundle)) == "portable"
    assert choose_backend("auto", Bundle.open(claims_both)) == "portable"
    assert choose_backend("ort-training", Bundle.open(claims_both)) == "ort-training"


def test_a_backend_that_the_bundle_was_built_without(digits_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        Learner.open(digits_bundle, tmp_path / "state", backend="ort-training")
    assert str(caught.value) == (
        f"{digits_bundle} was built for the portable backend only. Learn with --backend portable, or build the bundle "
        "again with --backend ort-training or both."
    )


def test_an_unknown_backend(digits_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Learner.open(digits_bundle, tmp_path / "state", backend="cuda")
    assert str(caught.value) == "backend is 'cuda'; it must be auto, portable or ort-training."


@pytest.mark.parametrize(
    ("installed", "here"),
    [
        ({}, ""),
        ({"onnxruntime": "1.31.1"}, ", and onnxruntime shares its folder: uninstall that first, or"),
    ],
    ids=["none", "the other"],
)
def test_learning_without_the_training_package(
    claims_both: Path,
    tmp_path: Path,
    digits: Digits,
    monkeypatch: pytest.MonkeyPatch,
    installed: dict[str, str],
    here: str,
) -> None:
    monkeypatch.setattr(runtime_module, "installed_runtimes", lambda: installed)
    expected = MISSING.format("") if not here else MISSING.format(here).replace("or: use", "or use")
    learner = Learner.open(claims_both, tmp_path / "state", backend="ort-training")
    for attempt in (
        lambda: learner.learn(digits.task("01", (4, 5))),
        lambda: learner.stream("01", ("four", "five")),
        lambda: import_training("api"),
    ):
        with pytest.raises(RuntimeMissingError) as caught:
            attempt()
        assert str(caught.value) == expected
    assert not (tmp_path / "state" / "HEAD").exists()


def test_predicting_needs_no_training_package(
    digits_bundle: Path, tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = edited(digits_bundle, tmp_path / "b", lambda raw: raw | {"backends": ["ort-training"]})
    learner = Learner.open(only, tmp_path / "state")
    assert learner.backend == "ort-training"
    assert learner.predict(digits.of(1, 100, 101)).labels.tolist() == ["one"]


@pytest.mark.parametrize("backend", ["ort-training", "both"])
def test_building_without_the_training_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(runtime_module, "installed_runtimes", dict)
    with pytest.raises(RuntimeMissingError) as caught:
        build_digits_bundle(tmp_path / "b", backend=backend)
    assert str(caught.value) == MISSING.format("")
    assert list(tmp_path.iterdir()) == []


def test_building_for_an_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build_digits_bundle(tmp_path / "b", backend="cuda")
    assert str(caught.value) == "--backend is 'cuda'; it must be portable, ort-training or both."


def test_the_two_packages_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two = {"onnxruntime": "1.31.1", "onnxruntime-training-cpu": "1.19.2"}
    monkeypatch.setattr(runtime_module, "installed_runtimes", lambda: two)
    require_training_package()
    with pytest.raises(
        RuntimeMissingError, match="onnxruntime and onnxruntime-training-cpu are both installed"
    ):
        import_training("api")


def test_the_command_line_offers_what_there_is() -> None:
    assert [choice.value for choice in LearnBackend] == ["auto", *BACKENDS]
    assert [choice.value for choice in BuildBackend] == list(BACKEND_CHOICES)


def test_a_capacity_for_no_artifacts_changes_nothing(tmp_path: Path) -> None:
    assert Bundle.open(build_digits_bundle(tmp_path / "b", head_capacity=99)).manifest.head_capacity == 0


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "ort/../../outside",
        "a//b",
        "./a",
        "a/.",
        "a/",
        "..",
        ".",
        "",
        "a\\b",
        "C:/a",
        "a\0b",
    ],
)
def test_files_of_a_bundle_lie_below_it(digits_bundle: Path, tmp_path: Path, name: str) -> None:
    out = edited(
        digits_bundle, tmp_path / "b", lambda raw: raw | {"files": {name: {"sha256": "0" * 64, "size": 0}}}
    )
    with pytest.raises(BundleError) as caught:
        Bundle.open(out)
    assert (
        str(caught.value)
        == f"{out / 'manifest.json'}: it lists a file outside the bundle: {json.dumps(name)}. Do not use this bundle."
    )


def test_a_file_in_a_folder_of_the_bundle_is_verified(digits_bundle: Path, tmp_path: Path) -> None:
    out = edited(
        digits_bundle,
        tmp_path / "b",
        lambda raw: raw | {"files": raw["files"] | {"ort/a": {"sha256": "0" * 64, "size": 1}}},
    )
    with pytest.raises(BundleError, match=r"b/ort/a is missing\. Copy the bundle again\."):
        Bundle.open(out)
    (out / "ort").mkdir()
    (out / "ort" / "a").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not the file that was built"):
        Bundle.open(out)


def test_the_source_of_a_build_is_not_changed() -> None:
    """The forward graph with zeroed centers is made from the same prepared model as the portable graphs."""
    import csk_artifacts_builder.ort.artifacts as ort_training
    from csk_artifacts_builder.prepare.model import prepare
    from csk_artifacts_builder.sites import find_sites
    from csk_sdk.contract.manifest import Head

    model = Path(__file__).parents[2] / "examples" / "digits" / "digits-base4.onnx"
    prepared = prepare(model).model
    kernels = {name: value.const_value.numpy().copy() for name, value in prepared.graph.initializers.items()}
    ort_training.forward_model(prepared, find_sites(prepared, "m"), Head(features=64), 8, "m")
    for name, value in prepared.graph.initializers.items():
        assert (value.const_value.numpy() == kernels[name]).all()
