"""A whole folder put in the place of another, so that a crash leaves the old one there or the new one.

Two names are exchanged in one step where the system can do that (Linux, on most file systems). Elsewhere the old folder
is first renamed aside, and for a moment there is none of its name: `restore_folder` brings it back after a crash then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from csk_sdk.state.atomic import rename, sync_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What systems and file systems answer that cannot exchange.
# EXDEV: overlayfs, of a folder in its lower layer.
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EXDEV})


def aside(folder: Path) -> Path:
    """Where a folder is kept while another one takes its place."""
    return folder.with_name(f".{folder.name}.replaced")


def replace_folder(source: Path, target: Path) -> None:
    """Make `source` the folder `target`, beside it, durably; what was there is removed last.

    Whatever moment the process is killed or power fails at, one of the two is there, whole: under the name `target`,
    or, where names cannot be exchanged, for a moment under `aside(target)`. Raises OSError; the old one is there then.
    """
    sync_tree(source)
    if not os.path.lexists(target):
        rename(source, target)
        sync_folder(target.parent)
        return
    old = source
    if not exchange(source, target):
        old = aside(target)
        remove_folder(old)
        _put_aside(target, old)
        try:
            rename(source, target)
        except OSError:
            rename(old, target)
            raise
    sync_folder(target.parent)
    remove_folder(old)


def _put_aside(folder: Path, old: Path) -> None:
    try:
        rename(folder, old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        reason = "it lies in the lower layer of an overlay, as in a container's image, where folders cannot be renamed"
        raise OSError(
            errno.EXDEV, f"{reason}: remove it first, or choose another place", str(folder)
        ) from error


def restore_folder(target: Path) -> None:
    """After a crash in the middle of `replace_folder`: put the old folder back, or remove what is left of it."""
    old = aside(target)
    if not os.path.lexists(target) and os.path.lexists(old):
        rename(old, target)
        sync_folder(target.parent)
    remove_folder(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it, where that is possible: it is in nobody's way. Links are removed, not followed."""
    with suppress(OSError):
        if os.path.islink(folder):  # noqa: PTH114
            os.unlink(folder)  # noqa: PTH108
            return
        for inner, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(os.path.join(inner, name))  # noqa: PTH108, PTH118 - through `os`, so that tests see it
            for name in folders:
                path = os.path.join(inner, name)  # noqa: PTH118
                (os.unlink if os.path.islink(path) else os.rmdir)(path)  # noqa: PTH114
        os.rmdir(folder)  # noqa: PTH106


def sync_tree(folder: Path) -> None:
    """Make a folder and all in it durable. Raises OSError."""
    for inner, _, files in os.walk(folder, topdown=False):
        for name in files:
            # Windows syncs only what is open to be written.
            descriptor = os.open(os.path.join(inner, name), os.O_RDWR | getattr(os, "O_BINARY", 0))  # noqa: PTH118
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(inner))


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that cannot be done here."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(one))
