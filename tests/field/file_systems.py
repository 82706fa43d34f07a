"""File systems that gateways have, mounted for a test where this machine can; skipped by name elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Large enough for a state, a bundle and a task.
_SIZE = 96 << 20


class CannotMount(Exception):
    """Why a file system cannot be had here."""


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        raise CannotMount(f"there is no {command[0]}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CannotMount(f"{command[0]} says {said[0] if said else done.returncode!r}")
    return done.stdout.strip()


def _image(stack: ExitStack, folder: Path, *make: str) -> str:
    """A loop device over a new file, formatted with `make`."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    _run(*make, image)
    device = _run("losetup", "-f", "--show", image)
    stack.callback(_run, "losetup", "-d", device)
    return device


def _unmounted(stack: ExitStack, at: Path) -> None:
    def unmount() -> None:
        # Whoever looked at it last may hold it for a moment.
        for _ in range(50):
            try:
                _run("umount", at)
            except CannotMount:
                time.sleep(0.1)
            else:
                return
        with suppress(CannotMount):
            _run("umount", "-l", at)

    stack.callback(unmount)


def _tmpfs(stack: ExitStack, folder: Path, at: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", at)


def _by_kernel(kind: str, *make: str) -> Callable[[ExitStack, Path, Path], None]:
    def mount(stack: ExitStack, folder: Path, at: Path) -> None:
        if kind not in Path("/proc/filesystems").read_text().split():
            raise CannotMount(f"this kernel has no {kind}")
        _run("mount", "-t", kind, _image(stack, folder, *make), at)

    return mount


def _exfat_fuse(stack: ExitStack, folder: Path, at: Path) -> None:
    _run("mount.exfat-fuse", _image(stack, folder, "mkfs.exfat"), at)


def _bindfs(stack: ExitStack, folder: Path, at: Path) -> None:
    (folder / "source").mkdir()
    _run("bindfs", folder / "source", at)


def _overlay(stack: ExitStack, folder: Path, at: Path) -> None:
    for name in ("lower", "upper", "work"):
        (folder / name).mkdir(exist_ok=True)
    layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    _run("mount", "-t", "overlay", "-o", layers, "overlay", at)


Mount = Callable[[ExitStack, Path, Path], None]
# By name: the ways to get one, tried in turn.
FILE_SYSTEMS: dict[str, list[Mount]] = {
    "ext4": [_by_kernel("ext4", "mkfs.ext4", "-q", "-F")],
    "tmpfs": [_tmpfs],
    "overlayfs": [_overlay],
    "FUSE": [_bindfs],
    "exFAT": [_by_kernel("exfat", "mkfs.exfat"), _exfat_fuse],
    "vfat": [_by_kernel("vfat", "mkfs.vfat")],
}


@contextmanager
def mounted(name: str, folder: Path, before: Callable[[Path], object] = lambda _: None) -> Iterator[Path]:
    """A new file system, empty, below `folder`; `before` may fill overlayfs's `folder/lower`.

    Raises CannotMount, with the reason. Nothing stays mounted behind the block.
    """
    reasons = []
    for number, mount in enumerate(FILE_SYSTEMS[name]):
        place = folder / f"{name}-{number}"
        at = place / "mounted"
        at.mkdir(parents=True)
        with ExitStack() as stack:
            if name == "overlayfs":
                (place / "lower").mkdir()
                before(place / "lower")
            try:
                mount(stack, place, at)
            except CannotMount as error:
                reasons.append(str(error))
                continue
            _unmounted(stack, at)
            yield at
        shutil.rmtree(place, ignore_errors=True)
        return
    raise CannotMount(f"{name}: {'; '.join(reasons)}")
