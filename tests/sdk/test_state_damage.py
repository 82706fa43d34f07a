"""Damaged files, crashes at any moment, and full disks: what was committed stays, or its damage is named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_states import BASE, BUNDLE, flip, learned, record_of, same, state_at, tasks, tensors, tensors_of

from csk_sdk.errors import StateError, StorageError
from csk_sdk.state import State, atomic
from csk_sdk.state.store import GenerationStore
from small_disk import mounted

# Damage


DAMAGE = [
    (lambda path: flip(path), r"000003\.safetensors is damaged: its checksum does not match\."),
    (lambda path: flip(path, 3), r"000003\.safetensors is damaged: its checksum does not match\."),
    (lambda path: os.truncate(path, 40), r"000003\.safetensors is damaged: it has 40 bytes instead of \d+\."),
    (lambda path: path.unlink(), r"000003\.safetensors is missing \(old generations are pruned\)\."),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=["flip", "flip header", "truncate", "remove"])
def test_damage_to_the_current_tensors_names_the_file_and_the_way_back(
    tmp_path: Path, damage: Any, message: str
) -> None:
    state = learned(tmp_path, "ABC")
    damage(tensors_of(state, 3))
    back = r" `csk-sdk rollback --to B` returns to generation 2, which is intact\."
    with pytest.raises(StateError, match=message + back):
        state.load()
    with state.lock():
        state.rollback(state.generation_of("B"))
    assert same(state_at(tmp_path).load().tensors, tensors(2))


@pytest.mark.slow
def test_every_flipped_byte_of_a_record_or_head_is_noticed(tmp_path: Path) -> None:
    state = learned(tmp_path, "AB")
    for path in (record_of(state, 2), tmp_path / "HEAD"):
        original = path.read_bytes()
        for position in range(len(original)):
            flip(path, position)
            with pytest.raises(StateError, match=r"csk-sdk rollback --to (A|B)`"):
                state.load()
            path.write_bytes(original)
    assert same(state.load().tensors, tensors(2))


def test_a_history_that_cannot_be_told_names_the_way_back(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABC")
    record_of(state, 3).unlink()
    back = r"000003\.json is missing\. `csk-sdk rollback --to B` returns to generation 2, which is intact\."
    with pytest.raises(StateError, match=back):
        state.history()
    state = learned(tmp_path / "older", "ABC")
    flip(record_of(state, 1))
    mend = r"Generation 3 stays the current one\. `csk-sdk verify --repair` writes it again\."
    with pytest.raises(StateError, match=rf"000001\.json .*\. {mend}"):
        state.history()


def test_the_way_back_skips_damaged_generations(tmp_path: Path) -> None:
    state = learned(tmp_path, "ABC")
    flip(tensors_of(state, 3))
    flip(tensors_of(state, 2))
    with pytest.raises(StateError, match="`csk-sdk rollback --to A` returns to generation 1"):
        state.load()
    record_of(state, 3).unlink()
    with pytest.raises(StateError, match=r"000003\.json is missing\. `csk-sdk rollback --to A` returns to"):
        state.load()
    assert state.generation_of("A") == 1
    tensors_of(state, 1).unlink()
    with pytest.raises(
        StateError, match="`csk-sdk rollback --to base` returns to the bundle's own checkpoint"
    ):
        state.load()
    with state.lock():
        state.rollback(state.generation_of("base"))
    assert same(state.load().tensors, BASE)


@pytest.mark.parametrize("content", [None, b"", b"3\n", b"{}"])
def test_a_lost_head_is_not_taken_for_a_fresh_state(tmp_path: Path, content: bytes | None) -> None:
    state = learned(tmp_path, "ABC")
    head = tmp_path / "HEAD"
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    back = "`csk-sdk rollback --to C` returns to generation 3, which is intact"
    with pytest.raises(StateError, match=rf"HEAD (is missing although|is damaged|cannot be read).*{back}"):
        state.load()
    with state.lock():
        with pytest.raises(StateError, match=back):
            state.commit(0, tasks("D"), tensors(4))
        state.rollback(state.generation_of("C"))
        assert state.commit(3, tasks("ABCD"), tensors(4)).number == 4
    assert same(state.load(3).tensors, tensors(3))


# Crashes: every change to the disk goes through `os` functions of csk_sdk.state.atomic


class Killed(BaseException):
    """Stands for SIGKILL: nothing of csk-sdk catches it, and no clean-up reaches the disk after it."""


class Saboteur:
    """Lets `calls - 1` changing calls of `os` pass; the next fails by `error`, or kills what comes after it.

    A killed write has written half its bytes; `after` makes the killed call take effect before the death.
    """

    CHANGING = ("open", "write", "fsync", "replace", "unlink", "mkdir")

    def __init__(self, calls: int, error: OSError | None = None, after: bool = False) -> None:
        self.left = calls
        self.error = error
        self.after = after

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.CHANGING:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left > 0 or (self.error and self.left < 0):
                return real(*args, **kwargs)
            if self.error:
                raise self.error
            if self.left == 0 and name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            elif self.left == 0 and self.after:
                real(*args, **kwargs)
            raise Killed

        return call


def interrupted(
    folder: Path, names: str, monkeypatch: pytest.MonkeyPatch, **how: Any
) -> Iterator[tuple[State, Path]]:
    """Commit the last of `names`, interrupted at its 1st, 2nd, ... changing call, until none is left."""
    for calls in range(1, 200):
        place = folder / str(calls)
        state = learned(place, names[:-1], keep=2)
        saboteur = Saboteur(calls, **how)
        with monkeypatch.context() as patch, state.lock():
            patch.setattr(atomic, "os", saboteur)
            with suppress(Killed, StorageError):
                state.commit(len(names) - 1, tasks(names), tensors(len(names)))
            if saboteur.left > 0:
                assert calls > 10
                return
        yield state_at(place, keep=2), place
    raise AssertionError("the commit never ended")


HOW: list[Any] = [
    pytest.param({}, id="killed"),
    pytest.param({"after": True}, id="killed after the call"),
    pytest.param({"error": OSError(errno.ENOSPC, "full")}, id="disk full"),
    pytest.param({"error": OSError(errno.EIO, "broken")}, id="disk broken"),
]


@pytest.mark.slow
@pytest.mark.parametrize("names", ["A", "ABC"])
@pytest.mark.parametrize("how", HOW)
def test_a_commit_interrupted_anywhere_is_all_or_nothing_and_can_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], names: str
) -> None:
    before, after = len(names) - 1, len(names)
    heads = []
    for state, place in interrupted(tmp_path, names, monkeypatch, **how):
        heads.append(state.head())
        assert same(state.load(before).tensors, tensors(before) if before else BASE)
        if state.head() == after:
            assert same(state.load().tensors, tensors(after))
            assert state.load().tasks == tasks(names)
        else:
            assert state.head() == before
            with state.lock():
                assert state.commit(before, tasks(names), tensors(after)).number == after
            # Leftovers of the first attempt are gone, whatever it died of.
            left = {path.name for path in (place / "generations").iterdir()}
            stored = {f"{n:06d}.safetensors" for n in range(max(1, after - 1), after + 1)}
            assert left == {f"{n:06d}.json" for n in range(1, after + 1)} | stored
            assert {path.name for path in place.iterdir()} == {"state.json", "HEAD", "generations", "lock"}
        assert same(state.load().tensors, tensors(after))
        assert state.load().tasks == tasks(names)
        assert same(state.load(before).tensors, tensors(before) if before else BASE)
    assert {before, after} == set(heads)
    assert heads == sorted(heads)


def test_debris_larger_than_the_new_generation_does_not_shine_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any) -> None:
        raise Killed

    state = learned(tmp_path, "A")
    with state.lock():
        with monkeypatch.context() as patch:
            patch.setattr(GenerationStore, "write_head", die)
            with pytest.raises(Killed):
                state.commit(1, tasks("AZ"), tensors(5, rows=500))
        assert record_of(state, 2).exists()
        assert [record.number for record in state.records()] == [1]
        with pytest.raises(StateError, match=r"has no generation 2; the last one is 1\."):
            state.load(2)
        state.commit(1, tasks("AB"), tensors(2))
    assert same(state.load().tensors, tensors(2))


KILL = """
import os, sys
from pathlib import Path
import numpy as np
from csk_sdk.state import atomic
from csk_sdk.state import State
state = State.open(sys.argv[1], sys.argv[2], {})
real, left = os.replace, int(sys.argv[3])
def replace(*args):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    real(*args)
with state.lock():
    atomic.os.replace = replace
    state.commit(1, state.load().tasks, {"delta": np.ones(3, np.float32)})
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
@pytest.mark.parametrize("rename", [1, 2, 3])
def test_a_real_process_killed_before_each_rename(tmp_path: Path, rename: int) -> None:
    state = learned(tmp_path, "A")
    environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[1])}
    command = [sys.executable, "-c", KILL, str(tmp_path), BUNDLE, str(rename)]
    assert subprocess.run(command, env=environment, timeout=600, check=False).returncode == -9
    assert list(tmp_path.rglob(".*.csk-tmp"))
    assert state.head() == 1
    assert same(state.load().tensors, tensors(1))
    with state.lock():
        assert state.commit(1, tasks("AB"), tensors(2)).number == 2
    assert not list(tmp_path.rglob(".*.csk-tmp"))
    assert same(state.load().tensors, tensors(2))


# Full disks


def test_a_full_disk_keeps_the_current_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = learned(tmp_path, "A")
    files = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"
    }
    with state.lock():
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "os", Saboteur(2, OSError(errno.ENOSPC, "No space left on device")))
            with pytest.raises(StorageError) as caught:
                state.commit(1, tasks("AB"), tensors(2))
        size = tensors_of(learned(tmp_path / "twin", "AB"), 2).stat().st_size
        assert str(caught.value) == (
            f"The disk is full: could not write {size} "
            f"bytes to {tensors_of(state, 2)}. Free some space and run the command again; "
            "nothing that was learned is lost."
        )
        assert {path: path.read_bytes() for path in files} == files
        state.commit(1, tasks("AB"), tensors(2))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limits per process")
def test_a_real_file_size_limit_is_told_as_a_full_disk(tmp_path: Path) -> None:
    import resource

    state = learned(tmp_path, "A")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with state.lock():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(StorageError, match="The disk is full"):
                state.commit(1, tasks("AB"), tensors(2, rows=1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.rglob(".*.csk-tmp"))
        state.commit(1, tasks("AB"), tensors(2, rows=1000))
    assert same(state.load().tensors, tensors(2, rows=1000))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "64k") as disk:
        yield disk


def test_a_really_full_disk(small_disk: Path) -> None:
    state = learned(small_disk / "state", "A")
    with state.lock():
        with pytest.raises(
            StorageError, match=r"The disk is full: could not write \d+ bytes to .*000002\.safet"
        ):
            state.commit(1, tasks("AB"), tensors(2, rows=8000))
        with pytest.raises(StorageError, match=r"The disk is full: .*progress\.safetensors"):
            state.save_progress(tensors(2, rows=8000), {})
        assert not list(small_disk.rglob(".*.csk-tmp"))
        assert same(state.load().tensors, tensors(1))
        state.commit(1, tasks("AB"), tensors(2))
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(512)):
            pass
    assert same(state_at(small_disk / "state").load().tensors, tensors(2))
    with state.lock():
        with pytest.raises(StorageError, match="The disk is full"):
            state.commit(2, tasks("ABC"), tensors(3))
        (small_disk / "filler").unlink()
        assert state.commit(2, tasks("ABC"), tensors(3)).number == 3
    assert same(state.load().tensors, tensors(3))


def test_every_torn_progress_is_noticed(tmp_path: Path) -> None:
    state = state_at(tmp_path)
    path = tmp_path / "progress.safetensors"
    small = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    with state.lock():
        state.save_progress(small, {"epoch": 1})
    whole = path.read_bytes()
    torn = [whole[:length] for length in range(len(whole))]
    zeroed = [whole[:length].ljust(len(whole), b"\0") for length in range(len(whole) - 8)]
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    for damaged in [*torn, *zeroed, *flipped]:
        path.write_bytes(damaged)
        loaded = state.load_progress()
        # A flip between equivalent spellings of the header is no damage.
        assert loaded is None or (same(loaded[0], small) and loaded[1] == {"epoch": 1}), damaged
    for damaged in [*torn[::16], whole[:-1] + b"\1"]:
        path.write_bytes(damaged)
        assert state.load_progress() is None
        assert path.exists()
        with state.lock():
            assert state.load_progress() is None
            assert not path.exists()


def test_a_crash_while_saving_progress_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for calls in range(1, 5):
        for how in ({}, {"after": True}, {"error": OSError(errno.ENOSPC, "full")}):
            state = state_at(tmp_path / f"{calls}{sorted(how)}")
            with state.lock():
                state.save_progress(tensors(1), {"epoch": 1})
                with monkeypatch.context() as patch:
                    patch.setattr(atomic, "os", Saboteur(calls, **how))
                    with pytest.raises((Killed, StorageError)):
                        state.save_progress(tensors(2), {"epoch": 2})
                loaded = state.load_progress()
                assert loaded is not None
                assert loaded[1]["epoch"] == (2 if (calls, "after" in how) == (4, True) else 1)
                assert same(loaded[0], tensors(loaded[1]["epoch"]))
