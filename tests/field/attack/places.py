"""File systems: a device's life on each that this machine can mount, and what is refused where something lacks."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from field.attack import judge
from field.attack.ground import MODEL, SETTINGS, TASKS, Ground, csk_sdk, save_task
from field.attack.promise import STATE, Tries, promise
from field.file_systems import FILE_SYSTEMS, CannotMount, mounted


def _on(name: str, tries: Tries, ground: Ground, place: Path) -> None:
    for _ in tries:
        try:
            with mounted(name, place, lambda lower: _workspace(ground, lower)) as disk:
                if not (disk / "bundle").exists():
                    _workspace(ground, disk)
                _life(disk, tries, ground)
        except CannotMount as error:
            tries.skip(str(error))
            return


def _workspace(ground: Ground, place: Path) -> None:
    """A whole workspace of real files, the first task learned; on overlayfs it lies in the lower layer."""
    shutil.copytree(ground.bundle, place / "bundle")
    for task, digits in TASKS.items():
        save_task(place / "tasks" / f"{task}.npz", ground, digits)
    (place / "csk.toml").write_text(SETTINGS)
    shutil.copytree(ground.state(1), place / "state")


def _life(disk: Path, tries: Tries, ground: Ground) -> None:
    expected = ground.expected()

    def done(*command: str) -> None:
        ended = csk_sdk(*command, "--workspace", str(disk))
        assert ended.status == 0, f"{command}: {ended.err[-400:]}"

    def head() -> judge.Look:
        look = judge.look(disk / "state")
        assert not list((disk / "state").rglob(".*.csk-tmp"))
        return look

    with tries.one("train"):
        done("train", "--no-evaluate")
        assert head().intact[2] == expected[2], "other bits"
    with tries.one("rollback, and train again"):
        done("rollback", "--to", "01")
        assert head().head == 1
        done("train")
        assert head().intact[3] == expected[2], "other bits"
    with tries.one("watch with nothing to do, evaluate, verify, report, tasks"):
        done("watch", "--once", "--settle", "0", "--nice", "0")
        done("evaluate")
        done("report", "--out", str(disk / "report.html"))
        done("tasks")
        done("verify")
    with tries.one("export twice"):
        for _ in range(2):
            done("export", "--out", str(disk / "model.onnx"), "--overwrite")
        assert (disk / "model.onnx").stat().st_size > 100_000
    with tries.one("verify --repair"):
        (disk / "state/HEAD").unlink()
        (disk / "state/generations/000009.safetensors").write_bytes(b"x")
        done("verify", "--repair")
        assert head().head == 3
    with tries.one("a second writer"):
        _one_writer(disk / "state")
    with (
        tries.one("a reader that has a file open while it is replaced"),
        (disk / "state/HEAD").open("rb") as file,
    ):
        begin = file.read()
        done("rollback", "--to", "base")
        done("train", "--no-evaluate")
        file.seek(0)
        assert file.read() == begin
    with tries.one("build-artifacts --overwrite"):
        options = ("--classes", str(ground.folder / "classes.json"), "--mean", "0.3056", "--std", "0.3776")
        # Of the workspace's own bundle, which on overlayfs lies in the lower layer, and of one just built.
        for name in ("bundle", "other", "other"):
            ended = csk_sdk("build-artifacts", str(MODEL), "--out", str(disk / name), *options, "--overwrite")
            if ended.status:  # a folder of a lower layer cannot be renamed
                judge.one_sentence(ended.err)
                assert name == "bundle"
                assert "lower layer" in ended.err, ended.err
            judge.bundle(disk / name)
        assert not [path.name for path in disk.iterdir() if path.name.startswith((".bundle", ".other"))]


def _one_writer(state: Path) -> None:
    """While this process holds the lock, a child is told so; after, the child gets it."""
    from csk_sdk.errors import StateLockedError
    from csk_sdk.state.lock import StateLock

    def child() -> int:
        process = os.fork()
        if process == 0:
            try:
                with StateLock(state):
                    os._exit(1)
            except StateLockedError:
                os._exit(2)
            except BaseException:
                os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    with StateLock(state):
        assert child() == 2, "two writers at once"
    assert child() == 1


def _attack(name: str) -> Callable[[Tries, Ground, Path], None]:
    def attack(tries: Tries, ground: Ground, place: Path) -> None:
        _on(name, tries, ground, place)

    attack.__name__ = f"on_{name.lower()}"
    attack.__doc__ = f"A device's life on {name}."
    return attack


for _name in FILE_SYSTEMS:
    promise(STATE, _name, tries=1)(_attack(_name))


@promise(STATE, "a read-only mount", tries=12, least=8)
def on_a_read_only_mount(tries: Tries, ground: Ground, place: Path) -> None:
    """What only reads works; what writes is refused in one sentence, and nothing changes."""
    reading = (
        ("predict", str(place / "x.png")),
        ("tasks",),
        ("verify",),
        ("export", "--out", str(place / "x.onnx"), "--overwrite"),
    )
    writing = (
        ("train",),
        ("rollback", "--to", "base"),
        ("export", "--out", "model.onnx"),
        ("verify", "--repair"),
    )
    from PIL import Image

    Image.fromarray(ground.of(4, 0, 1)[0]).save(place / "x.png")
    try:
        with mounted("tmpfs", place) as disk:
            _workspace(ground, disk)
            before = judge.tree(disk)
            _mount_again(disk, "ro")
            for number in tries:
                command: tuple[Any, ...] = (*reading, *writing)[number % 8]
                if command[-1] == "model.onnx":
                    command = (*command[:-1], str(disk / "model.onnx"))
                with tries.one(command[0]):
                    done = csk_sdk(*command, "--workspace", disk)
                    assert done.status == (0 if number % 8 < 4 else 1), done.err[-400:]
                    if done.status:
                        judge.one_sentence(done.err)
                        assert "read-only" in done.err, done.err
                    assert judge.tree(disk) == before
    except CannotMount as error:
        tries.skip(str(error))


def _mount_again(disk: Path, how: str) -> None:
    from field.file_systems import _run

    _run("mount", "-o", f"remount,{how}", disk)


@promise(STATE, "any without locks (NFS without a lock service, some FUSE)", tries=20, least=4)
def on_any_without_locks(tries: Tries, ground: Ground, place: Path) -> None:
    """flock as such systems answer it: who would write is refused in one sentence, and who reads is not."""
    from csk_sdk.state import lock

    workspace = ground.workspace(place / "workspace", 1)
    before = judge.tree(workspace / "state")
    codes = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
    for number in tries:
        code = codes[number % len(codes)]

        def refuse(descriptor: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with tries.one(errno.errorcode[code]), pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "_lock", refuse)
            done = csk_sdk("train", "--workspace", workspace)
            assert done.status == 1, done.out
            judge.one_sentence(done.err)
            assert "lock" in done.err
            assert "no locks" in done.err, done.err
            assert csk_sdk("tasks", "--workspace", workspace).status == 0
            assert (
                csk_sdk("export", "--out", place / "x.onnx", "--overwrite", "--workspace", workspace).status
                == 0
            )
            assert judge.tree(workspace / "state") == before
