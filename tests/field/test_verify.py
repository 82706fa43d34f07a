"""`verify` and `verify --repair`: all damage is told, mended where it can be, and costs no whole generation."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import csk_sdk
from csk_sdk import StateError, StateLockedError, StorageError, verify
from csk_sdk.state import LearnedTask, State
from csk_sdk.state.field import Day, add_days, read_field, start_counting
from csk_sdk.state.lock import StateLock
from csk_sdk.workspace.folder import Workspace
from field.failing_disk import Disk


@pytest.fixture
def folder(tmp_path: Path, digits_bundle: Path) -> Path:
    """A workspace whose state has generations 1 (pruned), 2, 3 (rolled back from) and 4, scores and progress."""
    (tmp_path / "bundle").symlink_to(digits_bundle)
    state = state_of(tmp_path)
    with state.lock():
        for names in ("A", "AB", "ABC", "ABD"):
            state.commit(min(len(names), 3) - 1, [learned(name) for name in names], tensors(len(names)))
            if names == "ABC":
                state.rollback(2)
        state.save_progress(tensors(9), {"task": "E", "step": 3})
    for number in (2, 4):
        state.save_scores(number, {"A": {"task": 99.0, "class": 98.0, "images": 10}})
    (tmp_path / "state/generations/000001.safetensors").unlink()
    return tmp_path


def state_of(folder: Path) -> State:
    bundle = csk_sdk.Bundle.open(folder / "bundle")
    return State.open(folder / "state", bundle.id, bundle.checkpoint())


def learned(name: str) -> LearnedTask:
    return LearnedTask(name, ("a", "b"), 1, 2, 0.1, 0.1, 1, {})


def tensors(seed: int) -> dict[str, np.ndarray]:
    return {"t": np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)}


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "state").rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder / "state").as_posix(): path.read_bytes() for path in files}


def put(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder / "state")
    for name, content in files.items():
        (folder / "state" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "state" / name).write_bytes(content)


def check(folder: Path, repair: bool = False) -> csk_sdk.Verification:
    return verify(folder / "bundle", folder / "state", repair=repair)


def by_name(found: csk_sdk.Verification) -> dict[str, tuple[str, str]]:
    return {one.name: (one.status, one.detail) for one in found.state}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_everything_is_intact_and_stays_as_it_is(folder: Path) -> None:
    before = tree(folder)
    for repair in (False, True):
        found = check(folder, repair)
        assert found.ok
        assert {name: status for name, (status, _) in by_name(found).items()} == {
            "state.json": "intact",
            "generation 1, A": "pruned",
            "generation 2, B": "intact",
            "generation 3, C": "intact",
            "generation 4, D": "intact",
            "HEAD": "intact",
            "scores/000002.json": "intact",
            "scores/000004.json": "intact",
            "progress.safetensors": "intact",
        }
        assert {one.status for one in found.bundle} == {"intact"}
        files = json.loads((folder / "bundle" / "manifest.json").read_text())["files"]
        assert {one.name for one in found.bundle} == {"manifest.json", *files}
    assert tree(folder) == before


def test_nothing_learned_yet(folder: Path) -> None:
    shutil.rmtree(folder / "state")
    found = check(folder, repair=True)
    assert (found.ok, found.state) == (True, ())
    assert not (folder / "state").exists()


Damage = Callable[[Path], object]
# What is done to which file; the finding's name; its text; what repairing says; the current generation then.
DAMAGE: dict[str, tuple[str, Damage, str, str, str, int]] = {
    "HEAD flipped": (
        "HEAD",
        flip,
        "HEAD",
        "HEAD is damaged|cannot be read",
        "Generation 4 is now current: A, B, D.",
        4,
    ),
    "HEAD empty": (
        "HEAD",
        lambda p: p.write_bytes(b""),
        "HEAD",
        "HEAD cannot be read",
        "Generation 4 is now",
        4,
    ),
    "HEAD lost": ("HEAD", os.unlink, "HEAD", "HEAD is missing although", "Generation 4 is now current", 4),
    "the current tensors flipped": (
        "generations/000004.safetensors",
        flip,
        "HEAD",
        "The current generation 4 is damaged or lost",
        "Generation 2 is now current: A, B.",
        2,
    ),
    "the current tensors lost": (
        "generations/000004.safetensors",
        os.unlink,
        "HEAD",
        "The current generation 4 is damaged or lost",
        "Generation 2 is now current: A, B.",
        2,
    ),
    "older tensors cut": (
        "generations/000002.safetensors",
        lambda p: os.truncate(p, 50),
        "generation 2, B",
        "its checksum does not match",
        "Removed. Its record stays.",
        4,
    ),
    "an old record": (
        "generations/000001.json",
        flip,
        "generation 1",
        "000001.json is damaged|cannot be read|lacks",
        "Its record was written again",
        4,
    ),
    "state.json": ("state.json", flip, "state.json", "is damaged|cannot be read", "Written again.", 4),
    "state.json lost": ("state.json", os.unlink, "state.json", "is missing", "Written again.", 4),
    "scores": (
        "scores/000002.json",
        flip,
        "scores/000002.json",
        "damaged|read",
        "Removed. It is measured again.",
        4,
    ),
    "progress": (
        "progress.safetensors",
        flip,
        "progress.safetensors",
        "is damaged: its checksum does not match",
        "Removed. The task starts from its beginning.",
        4,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_and_mended(folder: Path, case: str) -> None:
    path, damage, name, text, mended, current = DAMAGE[case]
    intact = {1: None, 2: tensors(2), 3: tensors(3), 4: tensors(3)}
    damage(folder / "state" / path)
    damaged = tree(folder)
    found = check(folder)
    assert not found.ok
    assert by_name(found)[name][0] == "damaged"
    assert any(part in by_name(found)[name][1] for part in text.split("|"))
    assert tree(folder) == damaged, "without repair nothing changes"

    found = check(folder, repair=True)
    assert found.ok
    assert by_name(found)[name][0] == "repaired"
    assert mended in by_name(found)[name][1]
    again = check(folder, repair=True)
    assert (again.ok, again.repaired) == (True, 0)

    state = state_of(folder)
    assert state.head() == current
    assert [record.task for record in state.history()][-2:] == ["B", "A"]
    for number in (2, 3, 4):
        if f"{number:06d}.safetensors" not in path:
            assert state.load(number).tensors["t"].tobytes() == intact[number]["t"].tobytes()
    with state.lock():
        assert state.commit(current, [*state.load().tasks, learned("Z")], tensors(7)).number == 5


def test_what_was_counted_is_begun_anew(folder: Path) -> None:
    state = folder / "state"
    start_counting(state)
    add_days(state, [Day("2026-11-30", 4, answers=3)])
    assert by_name(check(folder))["field.json"][0] == "intact"
    os.truncate(state / "field.json", 20)
    with pytest.raises(StateError, match=r"`csk-sdk verify --repair` counts from nothing again"):
        read_field(state)
    assert by_name(check(folder))["field.json"][0] == "damaged"
    status, said = by_name(check(folder, repair=True))["field.json"]
    assert (status, said.endswith("Counted from nothing again.")) == ("repaired", True)
    assert (read_field(state), by_name(check(folder))["field.json"][0]) == ((), "intact")


def test_several_damages_at_once_end_at_the_newest_intact_generation(folder: Path) -> None:
    generations = folder / "state/generations"
    (folder / "state/HEAD").unlink()
    flip(generations / "000004.safetensors")
    flip(generations / "000003.json")
    (generations / ".000009.json.1-ab.csk-tmp").write_bytes(b"half")
    found = by_name(check(folder, repair=True))
    assert found["HEAD"][1].endswith("Generation 2 is now current: A, B.")
    assert found["temporary files"] == ("repaired", ".000009.json.1-ab.csk-tmp Removed.")
    assert state_of(folder).load().tensors["t"].tobytes() == tensors(2)["t"].tobytes()
    assert not list(generations.glob(".*"))


def test_a_record_that_nothing_else_tells_is_not_invented(folder: Path) -> None:
    flip(folder / "state/generations/000003.json")
    found = check(folder, repair=True)
    assert not found.ok
    assert by_name(found)["generation 3"][0] == "damaged"
    assert (folder / "state/generations/000003.safetensors").exists()


@pytest.mark.parametrize("number", [3, 4], ids=["of a branch", "current"])
def test_what_cannot_be_mended_has_a_way_out_that_is_said(folder: Path, number: int) -> None:
    record = folder / f"state/generations/{number:06d}.json"
    tensors_file = record.with_suffix(".safetensors")
    flip(record)
    found = check(folder, repair=True)
    assert not found.ok
    assert by_name(found)[f"generation {number}"][1].endswith(
        f"No other generation tells what it said: restore it from a backup, or remove {record} and {tensors_file}; all "
        "the others are as they are then."
    )
    others = {
        name: data for name, data in tree(folder).items() if not name.startswith(f"generations/{number:06d}")
    }
    record.unlink()
    tensors_file.unlink()
    for repair in (False, True):
        assert check(folder, repair).ok
    assert tree(folder) == others
    state = state_of(folder)
    # Where the way leads from a record that is lost, nobody knows: the newest intact one is current then.
    current = {3: 4, 4: 3}[number]
    assert state.head() == current
    assert [record.task for record in state.history()][-2:] == ["B", "A"]
    with state.lock():
        assert state.commit(current, [*state.load().tasks, learned("Z")], tensors(7)).number == 5
    assert check(folder).ok


@pytest.mark.parametrize("renamed", [False, True])
def test_a_record_on_the_way_is_written_again_whatever_was_done_next(folder: Path, renamed: bool) -> None:
    """Where the next generation has but one task, or none: then it tells no more than where the way goes on."""
    shutil.rmtree(folder / "state")
    state = state_of(folder)
    one = LearnedTask("A", ("x", "b"), 1, 2, 0.1, 0.1, 1, {})
    with state.lock():
        state.commit(0, [learned("A")], tensors(1))
        state.commit(1, [one] if renamed else [], tensors(2))
        state.commit(2, [one, learned("B")], tensors(3))
    flip(folder / "state/generations/000001.json")
    assert not check(folder).ok
    assert by_name(check(folder, repair=True))["generation 1"][0] == "repaired"
    assert check(folder).ok
    assert [record.number for record in state_of(folder).history()] == [3, 2, 1]


def test_what_goes_with_a_damaged_generation_is_said(folder: Path) -> None:
    """Its record is intact: so nobody has to find out that a class is no longer hidden."""
    state = state_of(folder)
    known = state.load(4)
    first, *rest = known.tasks
    with state.lock():
        state.commit(4, [replace(first, classes=("c", "b")), *rest], tensors(9), hidden=("one",))
    flip(folder / "state/generations/000005.safetensors")
    found = by_name(check(folder, repair=True))
    assert found["HEAD"][1].endswith(
        "Generation 4 is now current: A, B, D. No longer known: that one is hidden, that a is called c."
    )


def test_nothing_intact_is_left_but_the_bundle(folder: Path) -> None:
    for number in (2, 3, 4):
        flip(folder / f"state/generations/{number:06d}.safetensors")
    found = by_name(check(folder, repair=True))
    said = "Generation 0 is now current: what the bundle knows. No longer known: task A, task B, task D."
    assert found["HEAD"][1].endswith(said)
    assert Workspace.open(folder).learner().generation.number == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "cases",
    [
        ["HEAD lost", "scores"],
        ["the current tensors flipped", "state.json"],
        ["an old record", "older tensors cut", "progress"],
    ],
    ids=" and ".join,
)
def test_what_the_disk_did_not_give_back_is_not_mended(folder: Path, cases: list[str]) -> None:
    """EIO once, at each call of a repair: told, and the next repair ends where an undisturbed one does, to the byte."""
    for case in cases:
        path, damage, *_ = DAMAGE[case]
        damage(folder / "state" / path)
    damaged = tree(folder)
    assert check(folder, repair=True).ok
    expected = tree(folder)
    told = 0
    for call in range(1, 10_000):
        put(folder, damaged)
        disk = Disk(folder / "state", call, errno.EIO)
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                told += not check(folder, repair=True).ok
            except (StateError, StorageError):
                told += 1
        if not disk.failed:
            break
        assert check(folder, repair=True).ok, f"call {call}"
        assert tree(folder) == expected, f"call {call}"
    assert told > 20


def test_a_lost_identity_without_head_is_left_to_a_backup(folder: Path) -> None:
    (folder / "state/state.json").unlink()
    (folder / "state/HEAD").unlink()
    found = check(folder, repair=True)
    assert not found.ok
    assert by_name(found)["state.json"][1].endswith("restore it from a backup.")


def test_leftovers_of_a_crashed_commit_are_no_damage(folder: Path) -> None:
    (folder / "state/generations/000005.safetensors").write_bytes(b"x" * 100)
    found = check(folder)
    assert found.ok
    assert by_name(found)["generation 5"] == ("leftover", "Of a commit that never ended.")
    assert by_name(check(folder, repair=True))["generation 5"][0] == "repaired"
    assert not (folder / "state/generations/000005.safetensors").exists()


def test_repairing_waits_for_no_writer(folder: Path) -> None:
    with StateLock(folder / "state"):
        assert check(folder).ok
        with pytest.raises(StateLockedError, match=r"is writing to .*Wait for it to finish"):
            check(folder, repair=True)


def test_the_state_of_another_bundle_is_never_repaired(folder: Path) -> None:
    state = folder / "state"
    shutil.rmtree(state)
    State.open(state, "f" * 64, {}).save_scores(0, {})
    before = tree(folder)
    with pytest.raises(StateError, match=r"belongs to another bundle"):
        check(folder, repair=True)
    assert tree(folder) == before


def test_a_read_only_disk_cannot_be_repaired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csk_sdk.state import repair

    flip(folder / "state/progress.safetensors")
    monkeypatch.setattr(repair, "remove_file", lambda path: False)
    with pytest.raises(
        StorageError, match=r"progress\.safetensors is damaged and could not be removed: check that"
    ):
        check(folder, repair=True)


def test_a_damaged_bundle_is_told_file_by_file(folder: Path, digits_bundle: Path) -> None:
    (folder / "bundle").unlink()
    bundle = Path(shutil.copytree(digits_bundle, folder / "bundle"))
    flip(bundle / "eval_model.onnx")
    found = check(folder, repair=True)
    assert {one.name for one in found.bundle if one.status == "damaged"} == {"eval_model.onnx"}
    assert found.state
    flip(bundle / "manifest.json")
    found = check(folder, repair=True)
    assert [(one.name, one.status) for one in found.bundle] == [("manifest.json", "damaged")]
    assert found.state == (), "whose state it is cannot be known"


def test_the_command(folder: Path) -> None:
    from cli.conftest import csk_sdk as run

    done = run("verify", "--workspace", folder)
    assert (done.status, done.err) == (0, "")
    assert "generation 1, A" in done.out
    assert done.out.endswith("Everything is intact.\n")
    flip(folder / "state/HEAD")
    done = run("verify", "--workspace", folder, "--json")
    assert done.status == 1
    assert {one["name"] for one in done.json["state"] if one["status"] == "damaged"} == {"HEAD"}
    assert run("verify", "--workspace", folder).out.endswith(
        "`csk-sdk verify --repair` mends what it can of a state.\n"
    )
    done = run("verify", "--repair", "--workspace", folder)
    assert done.status == 0
    assert done.out.endswith("Mended: 1 finding.\n")
    assert json.loads((folder / "state/HEAD").read_text())["head"] == 4
