"""Small states without a network: commits, rollbacks, readers and locks by the hundred."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from field.attack import judge
from field.attack.ground import Ground
from field.attack.promise import GUARANTEES, STATE, Tries, promise

BUNDLE_ID = "b" * 64


def opened(folder: Path, keep: int = 8) -> object:
    from csk_sdk.state import State

    return State.open(folder, BUNDLE_ID, {"t": np.zeros(4, np.float32)}, keep=keep)


def commit(state: object, name: str, value: float) -> int:
    """One more task; all of the tensor's numbers are `value`."""
    from csk_sdk.state import LearnedTask

    with state.lock():  # type: ignore[attr-defined]
        before = state.load()  # type: ignore[attr-defined]
        tasks = (*before.tasks, LearnedTask(name, ("a", "b"), 1, 2, 0.1, 0.1, 1, {}))
        tensors = {"t": np.full(4000, value, np.float32)}
        return int(state.commit(before.number, tasks, tensors).number)  # type: ignore[attr-defined]


@promise(
    GUARANTEES,
    "Going back is possible: keep generations of what the device knows now stay, however often it went back and "
    "learned again; the current one and its parent always do.",
    "keep generations keep their tensors",
    "Disk space is keep + 1 generations at most, beside what a commit writes, and two files of each block that one of "
    "them needs.",
    tries=600,
)
def going_back_is_possible(tries: Tries, ground: Ground, place: Path) -> None:
    """Random lives of commits and rollbacks; the files are compared with a model that is a list of parents."""
    for _ in range(max(1, tries.count // 20)):
        keep = tries.rng.randint(1, 5)
        folder = place / "state"
        shutil.rmtree(folder, ignore_errors=True)
        parents: dict[int, int] = {}
        head = 0
        for _ in range(20):
            with tries.one(f"keep {keep} after {parents}"):
                state = opened(folder, keep)
                stored = judge.numbers(folder, "safetensors")
                way = _way(parents, head)
                if stored and tries.rng.random() < 0.4:
                    head = tries.rng.choice([*(number for number in way if number in stored), 0])
                    with state.lock():  # type: ignore[attr-defined]
                        state.rollback(head)  # type: ignore[attr-defined]
                before = len([number for number in _way(parents, head) if number in stored])
                made = commit(state, f"task {len(parents)}", len(parents) + 1)
                assert made == len(parents) + 1, "a number was used twice"
                parents[made], head = head, made
                _judge_life(folder, parents, head, keep, before)


def _way(parents: dict[int, int], head: int) -> list[int]:
    way = []
    while head:
        way.append(head)
        head = parents[head]
    return way


def _judge_life(folder: Path, parents: dict[int, int], head: int, keep: int, before: int) -> None:
    look = judge.look(folder)
    assert (look.head, look.last) == (head, len(parents))
    assert sorted(look.records) == sorted(parents), "a record is gone"
    assert {number: record["parent"] for number, record in look.records.items()} == parents
    way = _way(parents, head)
    kept = [number for number in way if number in look.intact]
    assert kept == way[: len(kept)]
    assert len(kept) >= min(keep, before + 1), "fewer generations of what it knows stay than were promised"
    assert parents[head] == 0 or parents[head] in look.intact, "the parent is gone"
    assert len(look.intact) <= keep + 1, "more than keep + 1 generations on the disk"
    for number, found in look.intact.items():
        assert found == judge.hashed({"t": np.full(4000, number, np.float32)})


@promise(STATE, "Numbers are never used twice: the next one is last + 1, also after a rollback.", tries=60)
def numbers_are_never_used_twice(tries: Tries, ground: Ground, place: Path) -> None:
    """Also where crashed commits left files of higher numbers."""
    state = opened(place / "state")
    used: list[int] = []
    for number in tries:
        with tries.one(f"after {number} commits"):
            if used and tries.rng.random() < 0.5:
                with state.lock():  # type: ignore[attr-defined]
                    state.rollback(0)  # type: ignore[attr-defined]
            if tries.rng.random() < 0.5:
                suffix = tries.rng.choice(["json", "safetensors"])
                (place / "state/generations").mkdir(parents=True, exist_ok=True) if used else None
                if used:
                    (place / f"state/generations/{len(used) + 1:06d}.{suffix}").write_bytes(b"debris")
            used.append(commit(state, f"{number}", number))
            assert used == list(range(1, len(used) + 1))
            assert judge.look(place / "state").last == len(used)


@promise(
    GUARANTEES,
    "Readers never see half of anything: a prediction comes from one whole generation while another process learns, "
    "commits and prunes.",
    tries=4000,
)
def readers_never_see_half(tries: Tries, ground: Ground, place: Path) -> None:
    """A process commits as fast as it can and prunes at once; whatever this one reads is of one generation."""
    from csk_sdk.errors import CskError

    writer = subprocess.Popen([sys.executable, "-c", _WRITER, place / "state"], stdin=subprocess.PIPE)
    seen: set[int] = set()
    newest = 0
    try:
        while not (place / "state/HEAD").exists():
            assert writer.poll() is None
            time.sleep(0.01)
        # Until something was raced, too: on a busy machine the writer may be slow.
        while tries.made < tries.count or (len(seen) < _RACED and not tries.broken):
            assert writer.poll() is None
            with tries.one(f"after generation {newest}"):
                try:
                    generation = opened(place / "state", 1).load()  # type: ignore[attr-defined]
                except CskError as error:
                    raise AssertionError(f"a reader was refused: {error}") from error
                values = set(generation.tensors["t"].tolist())
                assert values == {float(generation.number)}, f"generation {generation.number} holds {values}"
                assert generation.number >= newest, "a reader went back in time"
                newest = generation.number
                seen.add(newest)
    finally:
        writer.communicate()
    tries.notes.append(f"{len(seen)} generations seen while they came")


_RACED = 3
_WRITER = """
import select, sys
from pathlib import Path
from field.attack.commits import commit, opened
from csk_sdk.state import LearnedTask
import numpy as np
state = opened(Path(sys.argv[1]), 1)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    number += 1
    with state.lock():
        task = LearnedTask(str(number), ("a", "b"), 1, 2, 0.1, 0.1, 1, {})
        state.commit(max(number - 1, 0), (task,), {"t": np.full(4000, number, np.float32)})
"""


@promise(GUARANTEES, "A lock of a process that died blocks nobody.", tries=60)
def a_dead_process_blocks_nobody(tries: Tries, ground: Ground, place: Path) -> None:
    """A process takes the lock and is killed; the next one has it at once, whatever stands in the file."""
    _locks(tries, place, lambda pid, text: None)


@promise(STATE, "A second writer fails at once with a sentence that names the process id.", tries=60)
def a_second_writer_is_told(tries: Tries, ground: Ground, place: Path) -> None:
    from csk_sdk.errors import StateLockedError
    from csk_sdk.state.lock import StateLock

    def second(pid: int, text: str) -> None:
        try:
            with StateLock(place / "state"):
                raise AssertionError("two writers at once")
        except StateLockedError as error:
            assert f"(pid {pid})" in str(error), str(error)
            assert str(error).endswith(".")

    _locks(tries, place, second)


def _locks(tries: Tries, place: Path, while_held: object) -> None:
    from csk_sdk.state.lock import StateLock

    for _ in tries:
        with tries.one("a lock"):
            ready, told = os.pipe()
            child = os.fork()
            if child == 0:
                with StateLock(place / "state"):
                    os.write(told, b"x")
                    signal.pause()
                os._exit(0)
            try:
                os.close(told)
                assert os.read(ready, 1) == b"x"
                while_held(child, "")  # type: ignore[operator]
            finally:
                os.close(ready)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            with StateLock(place / "state"):
                pass
            junk = tries.rng.randbytes(tries.rng.randrange(100))
            (place / "state/lock").write_bytes(junk)
            with StateLock(place / "state"):
                pass
