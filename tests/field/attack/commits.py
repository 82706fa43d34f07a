"""Small states without a network: commits, rollbacks and repairs by the hundred, and what the files say of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from field.attack import judge
from field.attack.ground import Ground
from field.attack.promise import GUARANTEES, STATE, Tries, promise
from field.attack.victims import damage

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
    """A process commits as fast as it can and prunes at once; this one reads: all numbers of a generation are its own."""
    from csk_sdk.errors import CskError

    writer = subprocess.Popen([sys.executable, "-c", _WRITER, place / "state"], stdin=subprocess.PIPE)
    seen: set[int] = set()
    newest = 0
    try:
        while not (place / "state/HEAD").exists():
            assert writer.poll() is None
        for _ in tries:
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
    if len(seen) < 3:
        tries.fault(f"only {len(seen)} generations were seen: nothing was raced")
    tries.notes.append(f"{len(seen)} generations seen while they came")


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


@promise(
    GUARANTEES,
    "csk-sdk verify --repair never drops an intact generation.",
    tries=500,
)
def repair_drops_nothing_intact(tries: Tries, ground: Ground, place: Path) -> None:
    """One to four damages at once, of every file; what was intact before is intact and reachable after."""
    from csk_sdk import verify

    for _ in tries:
        state = _aged(ground, place)
        files = sorted(path for path in state.rglob("*") if path.is_file() and path.name != "lock")
        hit = {
            path.relative_to(state).as_posix(): damage(path, tries.rng)
            for path in tries.rng.sample(files, tries.rng.randint(1, 4))
        }
        with tries.one(f"damaged: {hit}"):
            before = judge.intact_generations(state)
            found = verify(ground.bundle, state, repair=True)
            after = judge.intact_generations(state)
            assert before.items() <= after.items(), f"{sorted(before)} were intact, and {sorted(after)} are"
            again = verify(ground.bundle, state)
            assert again.ok == found.ok
            assert again.repaired == 0
            if found.ok:
                look = judge.look(state)
                assert look.head in (0, *before)
                assert (
                    look.head == max(before, default=0)
                    or "generations/000003.json" in hit
                    or set(hit) & _ON_WAY
                )


# Where the way back is broken, or the generation that is current was never the newest.
_ON_WAY = {"HEAD", "generations/000001.json", "generations/000002.json"}


def _aged(ground: Ground, place: Path) -> Path:
    """The state after two tasks, with a third generation that has the tensors of the second, scores and progress."""
    kept = place / "kept"
    if not kept.exists():
        from csk_sdk import Bundle
        from csk_sdk.state import LearnedTask, State

        shutil.copytree(ground.state(2), kept)
        bundle = Bundle.open(ground.bundle)
        state = State.open(kept, bundle.id, bundle.checkpoint())
        with state.lock():
            current = state.load()
            more = LearnedTask("03", ("x", "y"), 1, 2, 0.1, 0.1, 1, {})
            state.commit(2, (*current.tasks, more), current.tensors)
            state.save_progress({"t": np.zeros(3, np.float32)}, {"task": "04", "step": 1})
        state.save_scores(2, {"01": {"task": 99.0}})
    shutil.rmtree(place / "state", ignore_errors=True)
    return Path(shutil.copytree(kept, place / "state"))


@promise(
    STATE,
    "state.json",
    "HEAD, or the tensors of the current generation",
    "the record of an older generation",
    "older tensors",
    "scores, the progress checkpoint",
    "temporary files, generations of a crashed commit",
    tries=150,
)
def each_damage_is_mended(tries: Tries, ground: Ground, place: Path) -> None:
    """One damage at a time, of the kinds in the table: `verify` sees it and changes nothing, `--repair` mends it."""
    from csk_sdk import verify

    heads = {"generations/000003.safetensors": 2}
    kinds = [
        *("state.json", "HEAD", "generations/000003.safetensors", "generations/000001.json"),
        *(
            "generations/000002.json",
            "generations/000001.safetensors",
            "scores/000002.json",
            "progress.safetensors",
        ),
    ]
    for number in tries:
        state = _aged(ground, place)
        chosen = kinds[number % len(kinds)]
        with tries.one(chosen):
            whole = (state / chosen).read_bytes()
            kind = damage(state / chosen, tries.rng)
            (state / ".HEAD.9-ab.csk-tmp").write_bytes(b"x")
            (state / "generations/000004.safetensors").write_bytes(b"x")
            hurt = not (state / chosen).exists() or (state / chosen).read_bytes().rstrip() != whole.rstrip()
            lost_on_purpose = kind == "lost" and chosen in _MAY_BE_LOST
            before = judge.tree(state)
            assert verify(ground.bundle, state).ok == (not hurt or lost_on_purpose), f"{kind} was not noticed"
            assert judge.tree(state) == before, "verify without --repair changed something"
            assert verify(ground.bundle, state, repair=True).ok
            look = judge.look(state)
            assert look.head == heads.get(chosen if hurt else "", 3)
            assert [record["tasks"][-1]["name"] for record in look.records.values()] == ["01", "02", "03"]
            assert not list(state.rglob(".*.csk-tmp"))
            assert not (state / "generations/000004.safetensors").exists()


# As if they had been pruned, or never been: not there is no damage.
_MAY_BE_LOST = {"generations/000001.safetensors", "scores/000002.json", "progress.safetensors"}


@promise(STATE, "csk-sdk rollback --to base always works", tries=60)
def rollback_to_base_always_works(tries: Tries, ground: Ground, place: Path) -> None:
    """Whatever happened to generations, HEAD, scores or progress."""
    from field.attack.ground import csk_sdk

    workspace = ground.workspace(place / "workspace")
    for _ in tries:
        aged = _aged(ground, place)
        shutil.rmtree(workspace / "state", ignore_errors=True)
        aged.rename(workspace / "state")
        files = sorted(
            path
            for path in (workspace / "state").rglob("*")
            if path.is_file() and path.name not in ("lock", "state.json")
        )
        hit = [
            path.name for path in tries.rng.sample(files, tries.rng.randint(1, 4)) if damage(path, tries.rng)
        ]
        with tries.one(f"damaged: {hit}"):
            done = csk_sdk("rollback", "--to", "base", "--workspace", workspace)
            assert done.status == 0, done.err
            assert judge.sealed_json(workspace / "state/HEAD")["head"] == 0
            assert csk_sdk("tasks", "--workspace", workspace).status == 0
