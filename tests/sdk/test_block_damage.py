"""Damaged, lost and unlisted blocks, and commits that are interrupted."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csk_sdk import StateError, StorageError
from csk_sdk.state import atomic, blocks
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.tensorfile import packed
from sdk.block_states import (
    block_files,
    check,
    learn,
    names_and_files,
    names_of,
    tensors_of,
)
from sdk.interrupted import Interrupted
from sdk.stored_states import flip, same, state_at


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of two classes fill a block."""
    monkeypatch.setattr(blocks, "BLOCK_CLASSES", 4)


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
    assert repaired["HEAD"].detail.endswith(
        "Generation 3 is now current: t1, t2, t3. No longer known: task t5."
    )
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
        patch.setattr("csk_sdk.state.forgetting.forget_shared", killed)
        with pytest.raises(KeyboardInterrupt):
            state.commit(5, [], tensors_of([]), purged=range(1, 6))
    assert block_files(state)
    with state_at(tmp_path).lock():
        pass
    again = state_at(tmp_path)
    with again.lock():
        again.save_progress({}, {})
    assert not block_files(state)


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
            patch.setattr(atomic, "os", Interrupted(os, left))
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
