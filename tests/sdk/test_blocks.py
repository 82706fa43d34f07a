"""Blocks: a commit writes what changed, and a state with blocks knows what one without would."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from csk_sdk import StateError, StorageError
from csk_sdk.formats.stored_tensors import JoinedTensors, StoredTensors, several
from csk_sdk.state import LearnedTask, State, atomic, blocks, versions
from csk_sdk.state.blocks import layout
from csk_sdk.state.repair import Finding, StateCheck
from csk_sdk.state.room import commit_bytes
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.tensorfile import packed
from sdk.stored_states import BUNDLE, flip, same, state_at

WIDTH = 6
Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of two classes fill a block."""
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)


def task(number: int, ledger: str = "", classes: int = 2) -> LearnedTask:
    names = tuple(f"c{number}-{index}" for index in range(classes))
    return LearnedTask(
        f"t{number}", names, 4, 8, 1.5, 0.25, 10**8, {"lr": 0.01}, contributions={names[0]: ledger}
    )


def rows(numbers: Sequence[int], width: int, seed: int) -> NDArray[np.float32]:
    """Two for each task."""
    found = [np.random.default_rng((seed, number)).normal(size=(2, width)) for number in numbers]
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, width), np.float32)


def tensors_of(numbers: Sequence[int], width: int = WIDTH, seed: int = 0) -> Tensors:
    """As a learner has them, of tasks of these numbers: heads, rows for each class, what changes with each lesson."""
    rng = np.random.default_rng((len(numbers), seed))
    found: Tensors = {
        "statistics.means": rows(numbers, width, seed + 1),
        "statistics.counts": np.full(2 * len(numbers), 4.0),
        "statistics.classes": np.frombuffer(
            json.dumps([f"c{number}-{index}" for number in numbers for index in (0, 1)]).encode(), np.uint8
        ),
        "statistics.scatter": rng.normal(size=(width, width)),
        "familiarity.margins": rows(numbers, 3, seed + 2),
        "familiarity.oddness": rows(numbers, 3, seed + 3),
        "center/site": np.ones((2, 2), np.float32),
        "of a newer one": np.arange(3),
        "head/base/weight": np.ones((3, width), np.float32),
    }
    for number in numbers:
        found[f"head/t{number}/weight"] = rows([number], width, seed + 4)
        found[f"head/t{number}/bias"] = rows([number], 1, seed + 5)[:, 0]
    return found


def learn(state: State, first: int, last: int, width: int = WIDTH) -> None:
    """Tasks of these numbers, one generation each, on what is known."""
    with state.lock():
        for number in range(first, last + 1):
            known = state.load()
            numbers = [int(one.name[1:]) for one in known.tasks] + [number]
            file = state.keep_contribution({"count": np.array([float(number)])})
            state.commit(known.number, (*known.tasks, task(number, file)), tensors_of(numbers, width))


def block_files(state: State) -> dict[str, Path]:
    return {path.name: path for path in sorted((state.folder / "blocks").glob("*"))}


def names_of(state: State, number: int | None = None) -> list[str]:
    path = state.folder / "generations" / f"{number or state.head():06d}.json"
    found: list[str] = unseal(path).get("blocks", [])
    return found


def check(state: State, repair: bool = False) -> list[Finding]:
    return [
        one for one in StateCheck(state.folder, BUNDLE).run(repair) if one.status not in ("intact", "pruned")
    ]


def names_and_files(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (status.st_ino, status.st_size) for path, status in found.items()}


@pytest.mark.parametrize(
    ("classes", "count", "before", "expected"),
    [
        ([], 0, [], []),
        ([2], 2, [], []),
        ([2, 1], 3, [], []),
        ([2, 2], 4, [], [(2, 4)]),
        ([2, 2, 2], 6, [], [(2, 4)]),
        ([2, 2, 2, 2], 8, [], [(2, 4), (2, 4)]),
        ([3, 3, 3], 9, [], [(2, 4)]),
        ([1, 9, 1], 11, [], [(2, 4)]),
        # Rows of the base fill blocks without tasks.
        ([], 8, [], []),
        ([], 9, [], [(0, 4)]),
        ([2], 15, [], [(0, 4), (0, 4)]),
        ([2, 2], 15, [], [(2, 4), (0, 4)]),
        # Tasks without rows, and with fewer rows than classes.
        ([2, 2, 2], 0, [], [(2, 0)]),
        ([2, 2, 2], 3, [], [(2, 3)]),
        # As it was, as long as it fits; what is too large for a block stays one.
        ([2, 2, 2, 2], 8, [(3, 6)], [(3, 6)]),
        ([2, 2, 2, 2, 2], 10, [(3, 6)], [(3, 6), (2, 4)]),
        ([2, 2], 4, [(3, 6)], [(2, 4)]),
        ([2, 2, 2], 4, [(2, 4), (2, 4)], [(2, 4)]),
        ([2, 2, 2, 2], 5, [(2, 4), (2, 4)], [(2, 4), (2, 1)]),
        ([2], 2, [(2, 4)], []),
    ],
)
def test_what_goes_into_blocks(
    small: None,
    classes: list[int],
    count: int,
    before: list[tuple[int, int]],
    expected: list[tuple[int, int]],
) -> None:
    assert layout(classes, count, [blocks.Extent(*one) for one in before]) == expected


def test_a_state_of_few_classes_is_as_it_always_was(tmp_path: Path) -> None:
    """The very files, and nothing that asks for another reader."""
    state = state_at(tmp_path)
    learn(state, 1, 63)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state.json",
        "HEAD",
        "generations",
        "ledger",
        "lock",
    }
    written = (tmp_path / "generations" / "000063.safetensors").read_bytes()
    assert written == packed(tensors_of(range(1, 64)))
    record = json.loads((tmp_path / "generations" / "000063.json").read_bytes())
    assert list(record) == ["number", "parent", "created", "sha256", "size", "tasks", "check"]
    assert len(record["tasks"]) == 63
    assert unseal(tmp_path / "state.json") == {"schema_version": 1, "bundle_id": BUNDLE}
    learn(state, 64, 64)
    record = json.loads((tmp_path / "generations" / "000064.json").read_bytes())
    assert (len(record["blocks"]), record["tasks"]) == (1, [])
    assert (record["min_reader"], record["min_writer"]) == (2, 2)
    assert unseal(tmp_path / "state.json")["schema_version"] == 1


def test_a_commit_writes_what_changed(tmp_path: Path) -> None:
    """The 65th to 128th task and the 193rd to 256th: as many bytes, but for what has a few bytes for each class."""
    state, written = state_at(tmp_path), [0]
    for number in range(1, 257):
        before = names_and_files(tmp_path)
        learn(state, number, number, 64)
        after = names_and_files(tmp_path)
        written.append(sum(one[1] for path, one in after.items() if before.get(path) != one))
    early, late = sum(written[65:129]), sum(written[193:])
    # Names and counts of 256 classes more, of less than 20 bytes, in each of 64 commits.
    assert early < late < early + 64 * 256 * 20
    assert late < 1.2 * early
    assert len(names_of(state)) == 4
    assert same(dict(state_at(tmp_path).load().tensors), tensors_of(range(1, 257), 64))


def test_it_is_known_as_without_blocks(tmp_path: Path, small: None) -> None:
    """By whoever wrote it and whoever opens it, all at once and one by one; and so is each generation that is kept."""
    state = state_at(tmp_path, keep=5)
    for number in range(1, 16):
        learn(state, number, number)
        for one in (state, state_at(tmp_path)):
            found = one.load()
            assert [task.name for task in found.tasks] == [f"t{index}" for index in range(1, number + 1)]
            assert same(dict(found.tensors), tensors_of(range(1, number + 1)))
            with one.opened() as opened:
                assert set(opened.tensors) == set(found.tensors)
                assert all(
                    np.array_equal(opened.tensors[name], found.tensors[name]) for name in found.tensors
                )
        for back in range(max(1, number - 4), number + 1):
            assert same(dict(state_at(tmp_path).load(back).tensors), tensors_of(range(1, back + 1)))
    assert found.tasks == tuple(state.load().tasks)
    assert found.tasks[2].config == {"lr": 0.01}
    assert len(names_of(state)) == 7
    assert not check(state)


def test_unchanged_blocks_are_not_written_again(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 6)
    before = {name: path.stat().st_ino for name, path in block_files(state).items()}
    # The newest is in no other generation yet, and has no copy.
    copies = {name for name in before if ".copy" in name}
    assert (len(before), len(copies)) == (5, 2)
    assert {name[:64] for name in copies} == set(names_of(state)[:2])
    assert not check(state)
    learn(state_at(tmp_path), 7, 8)
    after = {name: path.stat().st_ino for name, path in block_files(state).items()}
    assert before.items() <= after.items()
    for name, path in block_files(state).items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name[:64]
        assert set(load_file(path)) > {"tasks", "statistics.means"}


def test_a_correction_changes_the_block_of_its_task(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 8)
    before = names_of(state)
    known = state.load()
    tensors = dict(known.tensors)
    tensors["head/t4/bias"] = tensors["head/t4/bias"] + 1
    with state.lock():
        state.commit(known.number, known.tasks, tensors)
    after = names_of(state)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    renamed = [replace(one, name="t5 again") if one.name == "t5" else one for one in known.tasks]
    tensors |= {f"head/t5 again/{kind}": tensors.pop(f"head/t5/{kind}") for kind in ("weight", "bias")}
    with state.lock():
        state.commit(state.head(), renamed, tensors)
    assert [one == other for one, other in zip(after, names_of(state), strict=True)] == [
        *(True, True),
        *(False, True),
    ]
    again = state_at(tmp_path).load()
    assert same(dict(again.tensors), tensors)
    assert list(again.tasks) == [one.as_written() for one in renamed]


def test_what_an_older_csk_sdk_learned_goes_into_blocks_with_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 10**9)
    learn(state_at(tmp_path), 1, 11)
    assert not block_files(state_at(tmp_path))
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)
    learn(state_at(tmp_path), 12, 12)
    state = state_at(tmp_path)
    assert len(names_of(state)) == 6
    assert same(dict(state.load().tensors), tensors_of(range(1, 13)))
    assert same(dict(state.load(11).tensors), tensors_of(range(1, 12)))
    with state.lock():
        state.rollback(11)
    learn(state_at(tmp_path), 12, 25)
    assert same(dict(state_at(tmp_path).load().tensors), tensors_of(range(1, 26)))
    assert not check(state)


def test_tensors_of_rows_may_differ_or_be_lacking(tmp_path: Path, small: None) -> None:
    """Rows are parted as far as all have them; a base may have some without a task."""
    state = state_at(tmp_path)
    every = tensors_of(range(1, 20))
    cases: list[Tensors] = [
        {**every, "familiarity.margins": every["familiarity.margins"][:7]},
        {name: one for name, one in every.items() if not name.startswith("familiarity.")},
        {name: one for name, one in every.items() if name not in blocks.ROWS},
        {**every, "familiarity.oddness": every["familiarity.oddness"][:0]},
        {name: one for name, one in every.items() if name != "head/t3/bias"},
        every,
    ]
    for tasks in ([], [task(number) for number in range(1, 6)]):
        for tensors in cases:
            with state.lock():
                state.commit(state.head(), tasks, tensors)
            found = state_at(tmp_path).load()
            assert same(dict(found.tensors), tensors)
            assert len(found.tasks) == len(tasks)
            assert bool(names_of(state)) == bool(tasks or blocks.rows_of(tensors) > 8)


def test_contributions_of_tasks_in_blocks_stay(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=1)
    learn(state, 1, 12)
    learn(state_at(tmp_path, keep=1), 13, 14)
    assert len(list((tmp_path / "ledger").iterdir())) == 14
    for one in state_at(tmp_path).load().tasks:
        assert state.contribution(one.contributions[one.classes[0]])["count"] == [float(one.name[1:])]


def test_a_pruned_generation_lists_no_blocks_and_its_last_task(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=2)
    learn(state, 1, 9)
    for number in range(1, 10):
        record = unseal(tmp_path / "generations" / f"{number:06d}.json")
        if number < 8:
            assert [one["name"] for one in record["tasks"]] == [f"t{number}"]
            assert "blocks" not in record
    # Of the eighth, whose last task has just gone into a block, too.
    assert [one.task for one in state.history()] == [f"t{number}" for number in range(9, 0, -1)]
    assert [one.tasks for one in state_at(tmp_path).history()][:3] == [9, 8, 1]
    assert state_at(tmp_path).generation_of("t8") == 8


def test_blocks_that_nothing_lists_go(tmp_path: Path, small: None) -> None:
    folder, mended = tmp_path / "state", tmp_path / "mended"
    state = state_at(folder, keep=1)
    learn(state, 1, 4)
    debris = [folder / "blocks" / f"{'0' * 64}{ending}.safetensors" for ending in ("", ".copy")]
    for path in (*debris, folder / "blocks" / f".{debris[0].name}.1-abcdef12.csk-tmp"):
        path.write_bytes(b"of a commit that never ended")
    (folder / "blocks" / "notes.txt").write_text("somebody's")
    assert {(one.name, one.status) for one in check(state)} == {
        ("blocks", "leftover"),
        ("temporary files", "leftover"),
    }
    shutil.copytree(folder, mended)
    assert {one.status for one in check(state_at(mended), repair=True)} == {"repaired"}
    assert not check(state_at(mended))
    # All heads change: nothing keeps the old blocks but the generations that are kept.
    known = state.load()
    for seed in (1, 2):
        with state.lock():
            state.commit(state.head(), known.tasks, tensors_of(range(1, 5), seed=seed))
    listed = {name for number in (5, 6) for name in names_of(state, number)}
    assert {name[:64] for name in block_files(state)} == listed | {"notes.txt"}


@pytest.mark.parametrize("lost", ["first", "copy"])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "folder"])
def test_one_damaged_file_of_a_block_costs_nothing(tmp_path: Path, small: None, lost: str, how: str) -> None:
    folder = tmp_path / "state"
    state = state_at(folder)
    learn(state, 1, 5)
    path = state._store.blocks.paths(names_of(state)[0])[lost == "copy"]
    if how == "flipped":
        flip(path, 300)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
    for one in (state, state_at(folder)):
        assert same(dict(one.load().tensors), tensors_of(range(1, 6)))
        assert len(one.load().tasks) == 5
    found = check(state)
    assert [(one.name, one.status) for one in found] == [(f"blocks/{path.name[:8]}…", "damaged")]
    assert found[0].detail == f"{path} is missing or damaged."
    if how == "folder":
        path.rmdir()
    mended = tmp_path / "mended"
    shutil.copytree(folder, mended)
    repaired = check(state_at(mended), repair=True)
    assert [one.status for one in repaired] == ["repaired"]
    assert repaired[0].detail.endswith("Written again from the other file of its name.")
    assert not check(state_at(mended))
    # The next commit writes it again, too.
    learn(state_at(folder), 6, 6)
    assert not check(state_at(folder))


def test_a_block_of_which_both_files_are_lost_is_named(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 5)
    # Generations 4 and 5 have it; 3, 2 and 1 were before it.
    first, copy = state._store.blocks.paths(names_of(state)[-1])
    flip(first)
    copy.unlink()
    for one in (state, state_at(tmp_path)):
        with pytest.raises(StateError) as caught:
            one.load()
        assert str(caught.value).startswith(f"{first} is missing or damaged, and so is its copy. ")
        assert "`csk-sdk rollback --to t3` returns to generation 3, which is intact." in str(caught.value)
        with pytest.raises(StateError, match="is missing or damaged, and so is its copy"), one.lock():
            one.rollback(5)
        with suppress(StateError):
            one.history()
    before = names_and_files(tmp_path)
    again = state_at(tmp_path)
    with again.lock(), pytest.raises(StateError, match="and so is its copy"):
        again.commit(5, [], tensors_of([]))
    assert set(names_and_files(tmp_path)) == set(before)
    found = {one.name: one for one in check(state)}
    assert set(found) == {f"blocks/{first.name[:8]}…", "generation 4", "generation 5", "HEAD"}
    assert found["generation 5"].detail == f"{first} is missing or damaged, and so is its copy."
    repaired = {one.name: one for one in check(state, repair=True)}
    assert {one.status for one in repaired.values()} == {"repaired"}
    assert repaired["HEAD"].detail.endswith("Generation 3 is now current: t1, t2, t3.")
    assert not check(state)
    again = state_at(tmp_path)
    assert same(dict(again.load().tensors), tensors_of(range(1, 4)))
    assert unseal(tmp_path / "generations" / "000005.json")["tasks"][-1]["name"] == "t5"
    learn(again, 6, 9)
    assert not check(again)


def test_a_disk_that_does_not_give_back_the_first_file_gives_the_copy(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(state_at(tmp_path), 1, 5)
    state = state_at(tmp_path)
    first = state._store.blocks.path(names_of(state)[0])
    real = os.open

    def broken(path: Any, *arguments: Any, **more: Any) -> int:
        if os.fspath(path) == os.fspath(first):
            raise OSError(errno.EIO, "broken")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", broken)
    assert same(dict(state.load().tensors), tensors_of(range(1, 6)))
    learn(state, 6, 6)
    found = {one.name: one for one in check(state)}
    assert set(found) == {f"blocks/{first.name[:8]}…"}
    assert "cannot be read (broken)" in found[f"blocks/{first.name[:8]}…"].detail
    monkeypatch.undo()
    assert not check(state)


def test_a_block_that_is_what_its_name_says_and_no_block_is_refused(tmp_path: Path, small: None) -> None:
    """Whoever can write a state may write that, too: one sentence, and nothing else."""
    state = state_at(tmp_path)
    learn(state, 1, 4)
    record = tmp_path / "generations" / "000004.json"
    said = unseal(record)
    head = packed({"head/t1/weight": np.ones(1)})
    contents = [
        b"",
        b"no safetensors",
        packed({"tasks": np.frombuffer(b"{", np.uint8)}),
        packed({"tasks": np.frombuffer(b'[{"name": 5}]', np.uint8)}),
        packed({"tasks": np.frombuffer(b"[[", np.uint8).astype(np.float32)}),
        packed({"tasks": np.frombuffer(b"[" * 10**5, np.uint8)}),
        packed({"tasks": np.frombuffer(b"[]", np.uint8), "statistics.means": np.ones(7)}),
        packed({"tasks": np.frombuffer(b"[]", np.uint8), "statistics.means": np.array(7.0)}),
        head,
    ]
    for content in contents:
        name = hashlib.sha256(content).hexdigest()
        state._store.blocks.path(name).write_bytes(content)
        record.write_bytes(seal({**said, "blocks": [*said["blocks"], name]}))
        with pytest.raises(StateError):
            state_at(tmp_path).load()
        assert any(one.status == "damaged" for one in check(state_at(tmp_path)))
    for name in ("../../../etc/passwd", "0" * 63, f"{'0' * 64}\n", "A" * 64):
        record.write_bytes(seal({**said, "blocks": [name]}))
        with pytest.raises(StateError, match=r"blocks\[0\] must be the sha256 of a block|names no block"):
            state_at(tmp_path).load()


def test_an_older_csk_sdk_says_that_a_newer_one_wrote_it(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(state_at(tmp_path), 1, 4)
    monkeypatch.setattr(versions, "STATE_SCHEMA_VERSION", 1)
    with pytest.raises(StateError, match="takes one that knows schema 2 of states") as caught:
        state_at(tmp_path).load()
    assert "rollback" not in str(caught.value)
    state = state_at(tmp_path)
    with state.lock(), pytest.raises(StateError, match="takes one that knows schema 2 of states"):
        state.commit(3, [task(1)], {})


def test_what_is_forgotten_is_in_no_file(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 9)
    known, gone = state.load(), task(3)
    mean = tensors_of([3])["statistics.means"].tobytes()
    kept = [one for one in known.tasks if one.name != gone.name]
    with state.lock():
        purged = state.numbers_with({gone.name: set(gone.classes)})
        assert purged == list(range(3, 10))
        state.commit(9, kept, tensors_of([number for number in range(1, 10) if number != 3]), purged=purged)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"c3-0" not in left
    assert mean[:24] not in left
    assert tensors_of([4])["statistics.means"].tobytes()[:24] in left
    found = state_at(tmp_path).load()
    assert same(dict(found.tensors), tensors_of([1, 2, *range(4, 10)]))
    assert list(found.tasks) == kept
    assert not check(state)


def test_a_block_that_cannot_be_removed_is_no_silence(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 5)
    real, stuck = os.unlink, state._store.blocks.paths(names_of(state)[0])[1]

    def refused(path: Any, **more: Any) -> None:
        if os.fspath(path) == os.fspath(stuck):
            raise PermissionError(errno.EACCES, "no")
        real(path, **more)

    with monkeypatch.context() as patch, state.lock():
        patch.setattr(os, "unlink", refused)
        with pytest.raises(StorageError) as caught:
            state.commit(5, [], tensors_of([]), purged=range(1, 6))
    assert str(caught.value).startswith(f"{stuck} holds what is to be forgotten, and could not be removed")
    # Before anything else is written it is tried again.
    with state.lock():
        state.save_progress({}, {})
    assert not block_files(state)


def test_a_crash_before_the_blocks_are_removed_is_made_up_for(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 5)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, state.lock():
        patch.setattr("csk_sdk.state.folder.forget_blocks", killed)
        with pytest.raises(KeyboardInterrupt):
            state.commit(5, [], tensors_of([]), purged=range(1, 6))
    assert block_files(state)
    with state_at(tmp_path).lock():
        pass
    again = state_at(tmp_path)
    with again.lock():
        again.save_progress({}, {})
    assert not block_files(state)


def test_a_lesson_asks_for_room_for_what_it_writes(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path)
    learn(state, 1, 40)

    def asked(trained: bool) -> int:
        with state.opened() as generation:
            assert isinstance(generation.tensors, JoinedTensors)
            return commit_bytes(generation, ["x", "y"], WIDTH, 4, trained)

    whole = sum(one.nbytes for one in state.load().tensors.values())
    before = names_and_files(tmp_path)
    lesson, trained = asked(False), asked(True)
    learn(state, 41, 42)
    written = sum(one[1] for path, one in names_and_files(tmp_path).items() if before.get(path) != one)
    assert written < 2 * lesson
    assert trained > lesson + whole


def test_a_reader_is_not_disturbed_by_a_writer_that_prunes(tmp_path: Path, small: None) -> None:
    state = state_at(tmp_path, keep=1)
    learn(state, 1, 5)
    with state_at(tmp_path).opened() as opened:
        known = state.load()
        for seed in (1, 2, 3):
            with state.lock():
                state.commit(state.head(), known.tasks, tensors_of(range(1, 6), seed=seed))
        expected = tensors_of(range(1, 6))
        assert all(np.array_equal(opened.tensors[name], expected[name]) for name in opened.tensors)


def test_a_commit_interrupted_anywhere_is_all_or_nothing(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call that changes the disk, with a commit that closes a block."""
    learn(state_at(tmp_path / "before", keep=2), 1, 5)
    last = 0
    for calls in range(1, 200):
        place = tmp_path / str(calls)
        shutil.copytree(tmp_path / "before", place)
        left = [calls]
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "os", _Interrupted(os, left))
            with suppress(KeyboardInterrupt):
                learn(state_at(place, keep=2), 6, 6)
        found = state_at(place, keep=2)
        assert found.head() in (5, 6)
        assert same(dict(found.load().tensors), tensors_of(range(1, found.head() + 1)))
        assert same(dict(found.load(5).tensors), tensors_of(range(1, 6)))
        assert not [one for one in check(found) if one.status != "leftover"]
        if found.head() == 5:
            learn(found, 6, 6)
        learn(found, 7, 7)
        assert same(dict(found.load().tensors), tensors_of(range(1, 8)))
        assert not check(found)
        last = calls
        if left[0] > 0:
            break
    assert 20 < last < 199


class _Interrupted:
    """`os` in which a call that changes the disk is the last."""

    def __init__(self, real: Any, left: list[int]) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ("replace", "unlink", "write", "fsync", "mkdir"):
            return real

        def call(*arguments: Any, **more: Any) -> Any:
            self._left[0] -= 1
            if self._left[0] <= 0:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return call


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    parts: list[Mapping[str, NDArray[Any]]] = [
        {"rows": np.arange(4.0).reshape(2, 2), "a": np.ones(2), "b": np.zeros(3), "hidden": np.ones(1)},
        {"rows": np.arange(6.0).reshape(3, 2), "c": np.array(5.0), "hidden": np.ones(1)},
        {"rows": np.arange(2.0).reshape(1, 2), "d": np.zeros((0, 4), np.float32)},
    ]
    for index, part in enumerate(parts):
        (tmp_path / str(index)).write_bytes(packed(part))
    *behind, last = [StoredTensors(tmp_path / str(index)) for index in range(3)]
    joined = JoinedTensors(behind, last, "hidden")
    assert set(joined) == {"rows", "a", "b", "c", "d"}
    assert len(joined) == 5
    expected = {**parts[0], **parts[1], **parts[2], "rows": np.concatenate([one["rows"] for one in parts])}
    del expected["hidden"]
    assert same({name: joined[name] for name in joined}, dict(expected))
    assert same(several(joined, ["d", "rows", "a"]), {name: expected[name] for name in ("a", "d", "rows")})
    with pytest.raises(KeyError):
        several(joined, ["hidden"])
    assert same(joined.resident(), dict(expected))
    with pytest.raises((StateError, ValueError)):
        joined["rows"]
    (tmp_path / "2").write_bytes(packed({"rows": np.ones((1, 3))}))
    *behind, last = [StoredTensors(tmp_path / str(index)) for index in range(3)]
    with pytest.raises(StateError, match="tensor 'rows' does not fit those in other files"):
        JoinedTensors(behind, last, "hidden")["rows"]
