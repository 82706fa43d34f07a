"""After a firmware rollback a state is newer than its reader: what this one does not know stays, or it says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_deployed import SETTINGS, TASKS, picture_task
from newer import OF_HEAD, OF_RECORD, OF_TASK, TENSORS, bytes_in, hand_over, rewrite
from safetensors.numpy import load_file

from cli.conftest import csk_sdk
from csk_sdk import Learner, Progress, StateError, Task
from csk_sdk.state import State
from csk_sdk.state.sealing import unseal
from csk_sdk.version import __version__
from csk_sdk.workspace.verification import verify

EXACT = next(Path(__file__).parent.glob("*/exact"))
WRITER = f"and writing to it takes one that knows schema 4 of states (csk-sdk {__version__} knows 3): update csk-sdk"
READER = (
    f"and reading it takes one that knows schema 5 of states (csk-sdk {__version__} knows 3): update csk-sdk"
)
WRITING = (
    ["train"],
    ["watch", "--once", "--settle", "0"],
    ["rollback", "--to", "01"],
    ["rollback", "--to", "base"],
    ["verify", "--repair"],
)
# By command, its arguments; what is written goes beside the workspace.
READING = {
    "predict": ["{outside}/picture.png"],
    "evaluate": [],
    "export": ["--out", "{outside}/model.onnx", "--overwrite"],
    "tasks": [],
    "report": ["--out", "{outside}/report.html", "--overwrite"],
    "verify": [],
}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace whose state has learned 01 and 02, with the beginning of 03; all three are in its inbox."""
    folder = tmp_path / "space"
    for name, there in (("bundle", "bundle"), ("python", "state")):
        shutil.copytree(EXACT / name, folder / there)
    settings = {**SETTINGS, "checkpoint_seconds": 0.0}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (folder / "csk.toml").write_text("\n".join(["[training]", *lines]) + "\n")
    (folder / "tasks").mkdir()
    sets = load_file(EXACT.parent / "pictures.safetensors")
    for name, letters in TASKS.items():
        images, labels = sets[f"{name}/images"], sets[f"{name}/labels"]
        arrays = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
        np.savez(folder / "tasks" / f"{name}.npz", class_names=np.array(list(letters)), **arrays)
    return folder


def task() -> Task:
    return picture_task(EXACT, load_file(EXACT.parent / "pictures.safetensors"), "03")


def opened(space: Path, **settings: Any) -> Learner:
    return Learner.open(
        space / "bundle", space / "state", {**SETTINGS, "checkpoint_seconds": 0.0, **settings}
    )


def record(space: Path, number: int) -> dict[str, Any]:
    return unseal(space / "state" / "generations" / f"{number:06d}.json")


def has(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return {name: found.get(name, "missing") for name in wanted} == wanted


def command(space: Path, *arguments: str):  # type: ignore[no-untyped-def]
    outside = space.parent / "outside"
    if not outside.exists():
        outside.mkdir()
        from PIL import Image

        Image.new("RGB", (9, 9)).save(outside / "picture.png")
    given = [argument.format(outside=outside) for argument in arguments]
    return csk_sdk(given[0], "--workspace", space, *given[1:])


def test_what_it_does_not_know_is_carried_on(space: Path) -> None:
    hand_over(space / "state", min_reader=1, min_writer=1)
    before = opened(space).predict(list(load_file(EXACT.parent / "pictures.safetensors")["probe"]))
    learner = opened(space)
    assert learner.learn(task()).generation == 3
    written = record(space, 3)
    assert has(written, OF_RECORD)
    assert all(has(one, OF_TASK) for one in written["tasks"][:2])
    assert [one["name"] for one in written["tasks"]] == list(TASKS)
    assert not OF_TASK.keys() & written["tasks"][2].keys(), "they belong to the tasks that they were said of"
    assert not {"min_reader", "min_writer"} & written.keys(), "1 is what absence means"
    assert has(unseal(space / "state" / "HEAD"), OF_HEAD)
    for generation in (learner.generation, opened(space).generation):
        for name, tensor in TENSORS.items():
            assert generation.tensors[name].dtype == tensor.dtype
            np.testing.assert_array_equal(generation.tensors[name], tensor)
    assert verify(space / "bundle", space / "state").ok
    learner.rollback("02")
    np.testing.assert_array_equal(learner.predict(_probe()).probabilities, before.probabilities)
    assert has(unseal(space / "state" / "HEAD"), OF_HEAD)


def _probe() -> list[np.ndarray]:
    return list(load_file(EXACT.parent / "pictures.safetensors")["probe"])


def test_what_it_learns_is_the_same_to_the_bit(space: Path, tmp_path: Path) -> None:
    shutil.copytree(space, tmp_path / "older")
    hand_over(space / "state")
    newer, older = opened(space), opened(tmp_path / "older")
    for learner in (newer, older):
        learner.learn(task())
    kept = newer.generation.tensors
    assert kept.keys() == older.generation.tensors.keys() | TENSORS.keys()
    for name, tensor in older.generation.tensors.items():
        np.testing.assert_array_equal(kept[name], tensor)


def test_a_record_that_is_shortened_or_written_again_keeps_them(space: Path) -> None:
    hand_over(space / "state")
    learner = opened(space)
    learner.state = State.open(space / "state", learner.bundle.id, learner.bundle.stored_checkpoint, keep=1)
    learner.learn(task())
    with learner.state.lock():
        learner.state.commit(3, learner.tasks, learner.generation.tensors)
    assert len(record(space, 2)["tasks"]) == 1, "its tensors are pruned"
    assert has(record(space, 2), OF_RECORD)
    assert has(record(space, 2)["tasks"][0], OF_TASK)
    (space / "state" / "generations" / "000002.json").write_bytes(b"{")
    assert verify(space / "bundle", space / "state", repair=True).ok
    assert has(record(space, 2), OF_RECORD)
    assert all(has(one, OF_TASK) for one in record(space, 2)["tasks"])


def test_a_progress_checkpoint_carries_them(space: Path) -> None:
    learner = opened(space)
    with learner.state.lock():
        found = learner.state.load_progress()
        assert found is not None
        tensors, meta = found
        more = {"ledger/step": np.array([np.inf], np.float32)}
        learner.state.save_progress({**tensors, **more}, {**meta, "watched": {"by": [1, None]}})

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn(task(), on_progress=stop)
    found = learner.state.load_progress()
    assert found is not None
    assert found[1]["step"] == 4
    assert found[1]["watched"] == {"by": [1, None]}
    np.testing.assert_array_equal(found[0]["ledger/step"], more["ledger/step"])
    assert learner.learn(task()).resumed_at_step == 4


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_below_min_writer_nothing_is_written(space: Path, arguments: list[str]) -> None:
    hand_over(space / "state", min_writer=4)
    before = bytes_in(space)
    done = command(space, *arguments)
    assert done.status == 1
    assert f"{space / 'state'} was written by a newer csk-sdk, {WRITER}" in " ".join(done.err.split())
    assert "amaged" not in done.out + done.err
    assert bytes_in(space) == before


@pytest.mark.parametrize("name", READING)
def test_below_min_writer_everything_else_goes_on(space: Path, name: str) -> None:
    expected = command(space, name, *READING[name])
    shutil.rmtree(space / "state")
    shutil.copytree(EXACT / "python", space / "state")
    (space / "state" / "ledger.bin").write_bytes(b"a newer csk-sdk's")
    hand_over(space / "state", min_writer=4)
    before = bytes_in(space)
    done = command(space, name, *READING[name])
    assert (done.status, done.err) == (0, "")
    if name != "verify":  # which tells how large its files are
        assert done.out == expected.out
    assert bytes_in(space) == before


@pytest.mark.parametrize(
    "arguments", [*WRITING, *([name, *given] for name, given in READING.items())], ids=" ".join
)
def test_below_min_reader_it_says_what_it_needs(space: Path, arguments: list[str]) -> None:
    hand_over(space / "state", min_reader=5, min_writer=4)
    before = bytes_in(space)
    done = command(space, *arguments)
    said = " ".join(done.err.split())
    assert done.status == 1
    assert said.count(READER) == 1
    assert "was written by a newer csk-sdk" in said
    for word in ("amaged", "rollback", "epair", "lacks", "restore"):
        assert word not in done.out + said
    assert bytes_in(space) == before


@pytest.mark.parametrize(("needs", "check"), [({"min_writer": 4}, "Learning"), ({"min_reader": 5}, "State")])
def test_doctor_says_it_and_writes_nothing_there(space: Path, needs: dict[str, int], check: str) -> None:
    hand_over(space / "state", **needs)
    before = bytes_in(space / "state")
    done = command(space, "doctor", "--json")
    assert done.status == 1
    found = {one["name"]: one for one in json.loads(done.out)["checks"]}
    assert found[check]["status"] == "fail"
    assert (WRITER if check == "Learning" else READER) in found[check]["detail"]
    assert "amaged" not in done.out
    assert bytes_in(space / "state") == before


def test_python_refuses_before_it_looks_at_the_task(space: Path) -> None:
    hand_over(space / "state", min_writer=4)
    learner, before = opened(space), bytes_in(space)
    for write in (
        lambda: learner.learn("no such task"),
        lambda: learner.stream("03", ["h"]),
        lambda: learner.rollback("01"),
    ):
        with pytest.raises(StateError, match="takes one that knows schema 4"):
            write()
    assert bytes_in(space) == before
    with learner.state.lock(), pytest.raises(StateError, match="takes one that knows schema 4"):
        learner.state.save_progress({}, {})


def test_it_counts_after_a_rollback_by_the_newer_one(space: Path) -> None:
    """The newer one's ledger knows of all of its generations."""
    hand_over(space / "state", min_reader=5, min_writer=4)
    rewrite(space / "state" / "HEAD", {**unseal(space / "state" / "HEAD"), "head": 1})
    learner = opened(space)
    assert [one.name for one in learner.tasks] == ["01"]
    assert len(learner.predict(_probe()).labels) == len(_probe())
    with pytest.raises(StateError, match="takes one that knows schema 5"):
        learner.learn(task())
    found = command(space, "verify", "--json")
    assert found.status == 0
    status = {one["name"]: one["status"] for one in json.loads(found.out)["state"]}
    assert (status["generation 1, 01"], status["generation 2"], status["HEAD"]) == (
        "intact",
        "newer",
        "intact",
    )


def test_damage_to_a_newer_state_is_no_reason_to_roll_back(space: Path) -> None:
    hand_over(space / "state", min_writer=4)
    (space / "state" / "HEAD").write_bytes(b"{")
    done = command(space, "predict", "{outside}/picture.png")
    assert done.status == 1
    assert "HEAD cannot be read" in " ".join(done.err.split())
    assert WRITER in " ".join(done.err.split())
    assert "rollback" not in done.err
    before = bytes_in(space)
    for arguments in WRITING:
        assert command(space, *arguments).status == 1
    assert bytes_in(space) == before


@pytest.mark.parametrize(
    "arguments", [["predict", "{outside}/picture.png"], ["verify"], *WRITING], ids=" ".join
)
def test_another_schema_of_the_whole_state_is_said_in_the_same_sentence(
    space: Path, arguments: list[str]
) -> None:
    path = space / "state" / "state.json"
    rewrite(path, {**unseal(path), "schema_version": 5})
    before = bytes_in(space)
    done = command(space, *arguments)
    assert done.status == 1
    assert f"{space / 'state'} was written by a newer csk-sdk, {READER}" in " ".join(done.err.split())
    assert "amaged" not in done.out + done.err
    assert bytes_in(space) == before


@pytest.mark.parametrize("version", ["2", 1.0, True, 0, None])
def test_what_is_no_version_is_damage(space: Path, version: object) -> None:
    path = space / "state" / "generations" / "000002.json"
    rewrite(path, {**unseal(path), "min_reader": version})
    with pytest.raises(StateError, match=r"wrong type \(min_reader is .*rollback --to 01"):
        opened(space).predict(_probe())
