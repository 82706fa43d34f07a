"""Full disks: one clear sentence, and nothing that was learned is lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from csk_sdk import StorageError, fleet
from csk_sdk.learning.learn_run import Progress
from csk_sdk.state import atomic
from csk_sdk.state.room import commit_bytes
from learner.used_device import Device, refused
from small_disk import mounted


@pytest.fixture
def small_disk(device: Device) -> Iterator[Callable[[int], None]]:
    """The device's state on a tmpfs of its own; call with the number of bytes to leave free."""
    with mounted(device.folder / "disk", "4m") as disk:
        shutil.move(device.state, disk / "state")
        device.state.symlink_to(disk / "state")

        def leave(free: int) -> None:
            (disk / "filler").unlink(missing_ok=True)
            status = os.statvfs(disk)
            (disk / "filler").write_bytes(bytes(max(status.f_bavail * status.f_frsize - free, 0)))

        yield leave


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 8 << 10, 92 << 10, 96 << 10, 100 << 10])
def test_a_really_full_disk_at_the_commit(
    device: Device, small_disk: Callable[[int], None], free: int
) -> None:
    # The tensors take 96 KiB; a record and a HEAD more do not fit either.
    (device.state / "progress.safetensors").unlink()
    small_disk(free)
    task = device.named("03")
    words = ["The disk is full: ", "Free some space", "nothing that was learned is lost"]
    # A commit that fails halfway leaves its tensors, which no HEAD knows, until the next one.
    refused(device, StorageError, words, lambda: device.learn(task), "generations/000002.safetensors")
    small_disk(2 << 20)
    assert device.learner().learn(task).generation == 2


def test_a_disk_without_room_for_the_commit_is_noticed_before_the_first_step(
    device: Device, small_disk: Callable[[int], None]
) -> None:
    (device.state / "progress.safetensors").unlink()
    small_disk(64 << 10)
    task, phases = device.named("03"), []
    learner = device.learner()
    words = ["The disk is full: learning 03 needs ", " kB are free. Free some space"]
    refused(
        device, StorageError, words, lambda: learner.learn(task, on_progress=lambda p: phases.append(p.phase))
    )
    assert set(phases) == {"check"}
    small_disk(2 << 20)
    assert learner.learn(task).generation == 2


def test_a_commit_takes_no_less_than_was_asked_for(device: Device) -> None:
    learner = device.learner()
    parent = learner.state.load()
    task = device.named("03")
    assert task.train is not None
    features = learner.bundle.manifest.head.features
    asked = commit_bytes(parent, ("eight", "nine"), features, len(task.train), trained=True)
    before = {path.name for path in (device.state / "ledger").iterdir()}
    learner.learn(task)
    record = learner.state.records()[-1]
    new = [path for path in (device.state / "ledger").iterdir() if path.name not in before]
    written = record.size + len(record.to_bytes()) + sum(path.stat().st_size for path in new)
    assert 0.8 * asked < written <= 1.05 * asked


def test_a_really_full_disk_at_a_checkpoint(device: Device, small_disk: Callable[[int], None]) -> None:
    task = device.digits.task("02", (6, 7))
    words = ["The disk is full: could not write", "progress.safetensors", "nothing that was learned is lost"]

    def fill(progress: Progress) -> None:
        if progress.phase == "train":
            small_disk(4 << 10)

    learner = device.learner(checkpoint_seconds=0.0)
    refused(device, StorageError, words, lambda: learner.learn(task, on_progress=fill))
    small_disk(2 << 20)
    # The older checkpoint is still good.
    assert device.learner(checkpoint_seconds=0.0).learn(task).resumed_at_step == 2


def test_a_really_full_disk_at_an_export(device: Device, small_disk: Callable[[int], None]) -> None:
    small_disk(16 << 10)
    path = device.folder / "disk" / "exported.onnx"
    refused(
        device, StorageError, ["The disk is full", "exported.onnx"], lambda: device.learner().export(path)
    )
    assert not path.exists()


@pytest.mark.parametrize("name", ["known.onnx", "kitchen.cskc"])
def test_what_killed_writers_of_a_file_left_is_removed_by_the_next(device: Device, name: str) -> None:
    """Once they are old: those of a living process are not."""
    folder = device.folder / "out"
    folder.mkdir()
    old, young, other = (
        folder / f".{one}.csk-tmp" for one in (f"{name}.1-ab", f"{name}.2-cd", "another.3-ef")
    )
    for path in (old, young, other):
        path.write_bytes(b"half of it")
    for path in (old, other):
        os.utime(path, (0, 0))
    if name.endswith(".onnx"):
        device.learner().export(folder / name)
    else:
        fleet.export(device.learner(), folder / name, least=1)
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, young.name, other.name])


class Full:
    """`os` for the module `atomic`, on a disk that is full from the n-th write on."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, *arguments: Any) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(6))
def test_a_disk_that_is_full_at_any_write(
    device: Device, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    task = device.digits.task("02", (6, 7))
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "os", Full(writes))
        # Checkpoints that were written before the disk was full may stay.
        act = lambda: device.learn(task, checkpoint_seconds=0.0)  # noqa: E731
        refused(device, StorageError, ["The disk is full"], act, "progress.safetensors")
    assert device.learner(checkpoint_seconds=0.0).learn(task).resumed_at_step == 2 + writes
