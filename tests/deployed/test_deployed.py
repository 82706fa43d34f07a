"""What was ever deployed opens for ever: bundles and states that the csk-sdk of some day made (make_deployed.py)."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_deployed import SETTINGS, TABULAR, TASKS, picture_task, settings_of, signal_task
from safetensors.numpy import load_file

from csk_sdk import Learner, Task
from csk_sdk.contract.manifest import SCHEMA_VERSION
from csk_sdk.state import STATE_SCHEMA_VERSION, GenerationRecord, LearnedTask
from csk_sdk.workspace.verification import verify

STATES = sorted(
    state
    for writer in ("python", "javascript")
    for state in Path(__file__).parent.glob(f"*/*/{writer}")
    if state.is_dir()
)
# Each with a lesson that was interrupted.
INTERRUPTED = [state for state in STATES if (state / "progress.safetensors").exists()]
# Sums in another order, on other CPUs; int8 rounds to other levels there.
CLOSE = {"int8": 0.02}


@pytest.fixture(params=STATES, ids=lambda state: "-".join(state.parts[-3:]))
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one state, beside it its bundle and what its writer predicted."""
    state: Path = request.param
    for name in ("bundle", state.name):
        shutil.copytree(state.parent / name, tmp_path / state.parent.name / name)
    shutil.copy(state.with_suffix(".json"), tmp_path / state.parent.name)
    for name in ("pictures", "signals"):
        shutil.copy(state.parents[1] / f"{name}.safetensors", tmp_path)
    return tmp_path / state.parent.name / state.name


def sets_of(state: Path) -> dict[str, np.ndarray]:
    name = "signals" if state.parent.name == "signals" else "pictures"
    return load_file(state.parents[1] / f"{name}.safetensors")


def task_of(state: Path, name: str) -> Task:
    sets = sets_of(state)
    return (
        signal_task(sets, name) if state.parent.name == "signals" else picture_task(state.parent, sets, name)
    )


def opened(state: Path) -> Learner:
    return Learner.open(state.parent / "bundle", state, settings_of(state.parent.name))


def told(state: Path) -> dict[str, Any]:
    return _json(state.with_suffix(".json"))


def test_all_kinds_of_both_writers_are_there() -> None:
    kinds = {(state.parent.name, state.name) for state in STATES}
    both = {"exact", "int8", "wide", "ledger", "blocks", "domains", "kernels", "ort-training"}
    assert kinds >= {(kind, writer) for kind in both for writer in ("python", "javascript")}
    assert kinds >= {("signals", "python"), ("multi-label", "python")}


def test_each_schema_is_there() -> None:
    """Whoever raises one adds what it writes: make_deployed.py."""
    bundles = {_json(state.parent / "bundle" / "manifest.json")["schema_version"] for state in STATES}
    states = {_json(state / "state.json")["schema_version"] for state in STATES}
    records = {
        _json(path).get("min_reader", 1) for state in STATES for path in state.glob("generations/*.json")
    }
    assert SCHEMA_VERSION in bundles
    # What takes a later one is said by the records that take it.
    assert states == {1}
    assert records == set(range(1, STATE_SCHEMA_VERSION + 1))


def test_every_field_of_a_record_is_there() -> None:
    """Whoever adds one adds a state that has it, for those who may drop it."""
    records = [_json(path) for state in STATES for path in state.glob("generations/*.json")]
    tasks = {name for record in records for task in record["tasks"] for name in task}
    assert tasks == {one.name for one in fields(LearnedTask)} - {"more"}
    of_record = {name for record in records for name in record} - {"min_reader", "min_writer"}
    assert of_record == {one.name for one in fields(GenerationRecord)} - {
        "more",
        "needs",
        "stored",
        "blocked",
    } | {"check"}


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_byte_of_it_is_intact(deployed: Path) -> None:
    assert verify(deployed.parent / "bundle", deployed).ok


def test_it_predicts_what_its_writer_predicted(deployed: Path) -> None:
    predicted, expected = opened(deployed).predict(sets_of(deployed)["probe"]), told(deployed)
    assert list(predicted.classes) == expected["classes"]
    np.testing.assert_allclose(
        predicted.probabilities, expected["probabilities"], atol=CLOSE.get(deployed.parent.name, 1e-3)
    )


@pytest.mark.slow
def test_it_learns_one_more_task_and_keeps_the_others(deployed: Path) -> None:
    learner, task, probe = opened(deployed), task_of(deployed, "03"), sets_of(deployed)["probe"]
    before = learner.predict(probe, "01")
    last, names = learner.generation.number, [one.name for one in learner.tasks]
    report = learner.learn(task)
    assert [one.name for one in learner.tasks] == [*names, "03"]
    assert set(TASKS) <= {*names, "03"}
    assert report.generation == last + 1
    assert task.train is not None
    pictures = [task.train.images.read(index) for index in range(len(task.train))]
    if deployed.parent.name == TABULAR:
        right = (learner.predict(pictures, "03").probabilities > 0.5) == task.train.labels
    else:
        right = learner.predict(pictures, "03").labels == np.array(task.classes)[task.train.labels]
    assert right.mean() > 0.9
    np.testing.assert_allclose(learner.predict(probe, "01").probabilities, before.probabilities, atol=0.2)
    assert verify(deployed.parent / "bundle", deployed).ok


def test_what_has_a_ledger_is_forgotten_from(deployed: Path) -> None:
    learner = opened(deployed)
    if not learner.tasks[0].contributions:
        pytest.skip("of before the ledger")
    forgotten = learner.forget("d")
    assert forgotten.classes == ("d",)
    assert not any(one.startswith("the spread") for one in forgotten.remains)
    assert "d" not in learner.predict(sets_of(deployed)["probe"]).labels
    assert verify(deployed.parent / "bundle", deployed).ok


def test_it_goes_back(deployed: Path) -> None:
    learner = opened(deployed)
    assert [task.name for task in learner.rollback("01").tasks] == ["01"]
    assert learner.rollback("base").tasks == ()


@pytest.mark.parametrize("state", INTERRUPTED, ids=lambda state: state.parts[-3])
def test_what_a_build_began_that_trained_by_default_goes_on_so(state: Path, tmp_path: Path) -> None:
    """Its checkpoint knows of no setting `train`, and today's default is another."""
    for name in ("bundle", state.name):
        shutil.copytree(state.parent / name, tmp_path / name)
    task = picture_task(state.parent, load_file(state.parents[1] / "pictures.safetensors"), "03")
    settings = {name: value for name, value in SETTINGS.items() if name != "train"}
    learner = Learner.open(tmp_path / "bundle", tmp_path / state.name, settings)
    assert learner.config.train == "auto"
    report = learner.learn(task)
    assert (report.resumed_at_step, report.heads_only, report.gain) == (2, False, {})
    assert report.choice.startswith("an earlier build of csk-sdk began this lesson")
    assert learner.tasks[-1].config["train"] == "centers"
