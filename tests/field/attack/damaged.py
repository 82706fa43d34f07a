"""Damaged states: what is noticed, what is mended, and the way back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from field.attack import judge
from field.attack.ground import Ground, csk_sdk
from field.attack.promise import GUARANTEES, STATE, Tries, promise
from field.attack.victims import damage


@promise(
    GUARANTEES,
    "csk-sdk verify --repair never drops an intact generation.",
    "An intact generation is never removed.",
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
                look = judge.look(state, complete=False)
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
    "older tensors, or both files of a block",
    "scores, the progress checkpoint",
    "temporary files, generations of a crashed commit",
    "csk-sdk verify reads every byte of bundle and state and lists what is intact.",
    tries=150,
    least=8,
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


@promise(
    STATE,
    "What was damaged on the disk itself is noticed by its checksum and never believed. The error names the file and "
    "the newest intact generation to go back to",
    tries=80,
)
def damage_is_never_believed(tries: Tries, ground: Ground, place: Path) -> None:
    """HEAD or the current generation damaged: every command says so, and the way back that it names is one."""
    workspace = ground.workspace(place / "workspace")
    commands = (("tasks",), ("train",), ("evaluate",), ("export", "--out", str(place / "x.onnx")))
    for number in tries:
        shutil.rmtree(workspace / "state", ignore_errors=True)
        _aged(ground, place).rename(workspace / "state")
        name = tries.rng.choice(["HEAD", "generations/000003.safetensors", "generations/000003.json"])
        path = workspace / "state" / name
        whole = path.read_bytes()
        damage(path, tries.rng)
        if path.exists() and path.read_bytes().rstrip() == whole.rstrip():
            continue
        command = commands[number % len(commands)]
        with tries.one(f"{name}, {command[0]}"):
            done = csk_sdk(*command, "--workspace", workspace)
            assert done.status == 1, f"{command[0]} went on: {done.out[-300:]}"
            judge.one_sentence(done.err)
            assert path.name in done.err, done.err
            way = re.search(r"`csk-sdk rollback --to (\S+)`", done.err)
            assert way is not None, done.err
            back = csk_sdk("rollback", "--to", way[1], "--workspace", workspace)
            assert back.status == 0, back.err
            head = judge.sealed_json(workspace / "state/HEAD")["head"]
            assert head in judge.intact_generations(workspace / "state")
