"""Disks that lose power, fill up, break, or may not be written: simulated call by call, judged by the files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from field.attack import judge
from field.attack.crashes import one_crash
from field.attack.ground import Done, Ground, csk_sdk
from field.attack.promise import GUARANTEES, STATE, Tries, promise
from field.simulated_disk import Names, Recorder, Sync, Tree, write_tree

Commands = dict[str, tuple[int, tuple[str, ...], int]]
# Learned before, what is run, and which generation is current then.
WRITING: Commands = {
    "first train": (0, ("train", "--no-evaluate"), 1),
    "second train": (1, ("train",), 2),
    "rollback": (2, ("rollback", "--to", "01"), 1),
    "evaluate": (2, ("evaluate",), 2),
}


@contextmanager
def recorded(disk: Path) -> Iterator[Recorder]:
    from csk_sdk.state import atomic, lock

    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(disk)
        patch.setattr(atomic, "os", recorder)
        patch.setattr(lock, "os", recorder)
        yield recorder


def acknowledged(recorder: Recorder) -> int:
    """From which moment on the last change of HEAD must survive: behind the sync of its folder."""
    moments = [
        recorder.log.index(Sync(operation.folder), index) + 1
        for index, operation in enumerate(recorder.log)
        if isinstance(operation, Names) and operation.entries.get("HEAD") is not None
    ]
    return moments[-1] if moments else len(recorder.log) + 1


@promise(
    GUARANTEES,
    "A task whose learn() returned, or whose csk-sdk train ended, is there after any power cut.",
    tries=600,
    least=8,
)
def power_may_fail(tries: Tries, ground: Ground, place: Path) -> None:
    """Contents that a disk can have after any operation, without mercy; the judge alone looks at most of them."""
    expected = ground.expected()
    workspace = ground.workspace(place / "workspace")
    share = max(1, tries.count // len(WRITING))
    for name, (learned, command, top) in WRITING.items():
        disk = place / name.replace(" ", "-")
        disk.mkdir()
        if learned:
            shutil.copytree(ground.state(learned), disk / "state")
        with recorded(disk) as recorder:
            done = csk_sdk(*command, "--workspace", workspace, "--state", disk / "state")
        assert done.status == 0, done.err
        survives_from = acknowledged(recorder)
        tries.notes.append(f"{name}: {len(recorder.log) + 1} crash points")
        for _ in range(share):
            moment, tree = one_crash(recorder, tries.rng)
            with tries.one(f"{name}, power lost before operation {moment}"):
                _survives(place / "after", tree, expected, (learned, top), moment >= survives_from)
        # Some of them are gone on with: the same command ends with the same bits.
        for _ in range(max(1, share // 20)):
            moment, tree = one_crash(recorder, tries.rng)
            with tries.one(f"{name}, and on after operation {moment}"):
                _goes_on(place / "after", tree, (workspace, command), expected[top], top)


def _put(folder: Path, tree: Tree) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_tree(folder, tree)


def _survives(
    folder: Path, tree: Tree, expected: dict[int, judge.Bits], may_be: tuple[int, int], must: bool
) -> None:
    _put(folder, tree)
    if not (folder / "state/HEAD").exists():
        assert may_be[0] == 0
        assert not must
        return
    look = judge.look(folder / "state") if (folder / "state/state.json").exists() else None
    assert look is not None
    assert look.head == may_be[1] if must else look.head in may_be
    for number in range(1, max(may_be[0], look.head) + 1):
        assert look.intact[number] == expected[number]


def _goes_on(
    folder: Path, tree: Tree, what: tuple[Path, tuple[str, ...]], bits: judge.Bits, top: int
) -> None:
    _put(folder, tree)
    workspace, command = what
    head = judge.look(folder / "state").head if (folder / "state/HEAD").exists() else 0
    done = csk_sdk(*command, "--workspace", workspace, "--state", folder / "state")
    assert done.status == 0, done.err
    if command[0] == "train" and head == top:
        return  # it learned the one after
    look = judge.look(folder / "state")
    assert (look.head, look.intact[top]) == (top, bits)


@promise(
    GUARANTEES,
    "A disk that is full (ENOSPC), read-only (EROFS) or broken (EIO) at any single call, or from then on, costs "
    "nothing: one sentence, exit status 1, and with the disk mended the command goes on.",
    "A full disk is the same as a crash before HEAD, except that the temporary file is removed at once",
    tries=300,
)
def the_disk_may_refuse(tries: Tries, ground: Ground, place: Path) -> None:
    """Any call of any command that writes, drawn by chance; what was intact stays, and the command goes on after."""
    from field.failing_disk import Disk

    calls: dict[tuple[str, int], int] = {}
    codes = (errno.ENOSPC, errno.EROFS, errno.EIO)
    commands = _refusable(ground, place)
    for _ in tries:
        name, (arm, command, end) = tries.rng.choice(sorted(commands.items()))
        code, for_good = tries.rng.choice(codes), tries.rng.random() < 0.5
        if (name, code) not in calls:
            arm()
            disk = Disk(place / "disk", 1 << 40, code)
            _on(disk, command)
            calls[name, code] = disk.calls.total()
        call = tries.rng.randint(1, calls[name, code])
        with tries.one(f"{name}: {errno.errorcode[code]} at call {call}{' and on' if for_good else ''}"):
            arm()
            before = judge.intact_generations(place / "disk/state")
            done = _on(Disk(place / "disk", call, code, for_good), command)
            assert done.status in (0, 1), done.err[-500:]
            if done.status == 1:
                _told(name, done)
            assert before.items() <= judge.intact_generations(place / "disk/state").items()
            if code == errno.ENOSPC and not for_good:
                assert not list((place / "disk").rglob(".*.csk-tmp")), "a temporary file takes the room"
            if done.status == 1:
                again = csk_sdk(*command)
                assert again.status == 0, again.err[-500:]
            end()


def _told(name: str, done: Done) -> None:
    if name.startswith("verify") and not done.err:
        # What it finds stands in its table.
        assert "cannot be read (Input/output error)" in done.out, done.out[-800:]
        assert "Traceback" not in done.out
    else:
        judge.one_sentence(done.err)


def _on(disk: object, command: tuple[str, ...]) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)  # type: ignore[attr-defined]
        return csk_sdk(*command)


Refusable = dict[str, tuple[Callable[[], None], tuple[str, ...], Callable[[], None]]]


def _refusable(ground: Ground, place: Path) -> Refusable:
    workspace = ground.workspace(place / "workspace")
    disk = place / "disk"
    expected = ground.expected()
    base = ("--workspace", str(workspace), "--state", str(disk / "state"))

    def arm(learned: int) -> Callable[[], None]:
        def act() -> None:
            shutil.rmtree(disk, ignore_errors=True)
            disk.mkdir()
            if learned:
                shutil.copytree(ground.state(learned), disk / "state")

        return act

    def hurt() -> None:
        arm(2)()
        (disk / "state/HEAD").unlink()
        (disk / "state/generations/000001.json").write_bytes(b"{}")

    def ends_at(head: int) -> Callable[[], None]:
        def act() -> None:
            look = judge.look(disk / "state")
            assert look.head == head
            assert look.intact[head] == expected[head]

        return act

    def written(name: str) -> Callable[[], None]:
        def act() -> None:
            assert (disk / name).stat().st_size > 1000

        return act

    out, page = ("--out", str(disk / "x.onnx")), ("--out", str(disk / "x.html"))
    return {
        "train": (arm(1), ("train", "--no-evaluate", *base), ends_at(2)),
        "rollback": (arm(2), ("rollback", "--to", "01", *base), ends_at(1)),
        "verify --repair": (hurt, ("verify", "--repair", *base), ends_at(2)),
        "export": (arm(2), ("export", *out, "--overwrite", *base), written("x.onnx")),
        "report": (arm(2), ("report", *page, "--overwrite", *base), written("x.html")),
    }


class AfterHead:
    """`os` on a disk that cannot fsync once HEAD has been renamed."""

    def __init__(self) -> None:
        self.renamed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)  # noqa: PTH105 - as it is called there
        self.renamed = Path(target).name == "HEAD"

    def fsync(self, descriptor: int) -> None:
        if self.renamed:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


@promise(
    GUARANTEES,
    "Where the fsync of a folder fails after the rename of HEAD, the command says that it could not write although "
    "the task is committed; the next command shows it as learned.",
    tries=10,
)
def the_last_fsync_may_fail(tries: Tries, ground: Ground, place: Path) -> None:
    """Only that call fails."""
    from csk_sdk.state import atomic

    workspace = ground.workspace(place / "workspace")
    for _ in tries:
        ground.reset(workspace, 1)
        with tries.one("the fsync behind HEAD"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(atomic, "os", AfterHead())
            done = csk_sdk("train", "--no-evaluate", "--workspace", workspace)
            assert done.status == 1
            judge.one_sentence(done.err)
            patch.undo()
            assert judge.look(workspace / "state").tasks == ("01", "02")
            shown = csk_sdk("tasks", "--json", "--workspace", workspace)
            assert shown.status == 0
            assert "02" in shown.out


@promise(
    STATE,
    "while training",
    "while a temporary file is written",
    "after 000004.safetensors, before its record",
    "after 000004.json, before HEAD",
    "after the rename of HEAD, before the folder's fsync",
    "after HEAD, before pruning or removing the progress checkpoint",
    tries=120,
)
def what_a_crash_leaves(tries: Tries, ground: Ground, place: Path) -> None:
    """A process that dies before any change: what it leaves is what the table says, and the next commit clears it."""
    workspace = ground.workspace(place / "workspace", 1)
    with recorded(workspace) as recorder:
        assert csk_sdk("train", "--no-evaluate", "--workspace", workspace).status == 0
    for _ in tries:
        moment, tree = one_crash(recorder, tries.rng, everything=True)
        with tries.one(f"killed before change {moment}"):
            shutil.rmtree(workspace / "state")
            (place / "x").mkdir()
            write_tree(place / "x", {n: c for n, c in tree.items() if n.startswith("state/")})
            (place / "x/state").rename(workspace / "state")
            (place / "x").rmdir()
            state = workspace / "state"
            names = {path.name for path in state.rglob("*")}
            look = judge.look(state)
            assert (look.head, look.last) in ((1, 1), (2, 2))
            if look.head == 1:
                above = {name for name in names if name.startswith("000002")}
                assert above in (set(), {"000002.safetensors"}, {"000002.safetensors", "000002.json"})
            assert csk_sdk("train", "--no-evaluate", "--workspace", workspace).status == 0
            assert judge.look(state).intact[2] == ground.expected()[2]
            if look.head == 1:
                assert not list(state.rglob(".*.csk-tmp"))
                assert not (state / "progress.safetensors").exists()
