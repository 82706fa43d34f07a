"""One writer at a time: an advisory lock that the operating system drops when its holder dies."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from csk_sdk.errors import StateError, StateLockedError, StorageError
from csk_sdk.state.atomic import make_folder, storage_error

LOCK_FILE = "lock"

# It is opened to write a process's name into it: never into what a link leads to, never waiting for a pipe's reader.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_BUSY = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK})
# What network shares answer without their lock service, and some FUSE file systems.
_NONE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})

if sys.platform == "win32":
    import msvcrt

    # Windows locks are mandatory: a byte far behind the text, so that others can still read who holds it.
    _LOCKED_BYTE = 1 << 30

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class StateLock:
    """`with StateLock(folder):` makes this process the only writer to a state folder.

    Creates the folder when missing. The file `lock` in it says which process holds it, for humans; what
    counts is the operating system's lock on that file, so a stale file never blocks anyone, and a killed
    process frees it. Not re-entrant. Child processes forked inside the block share it. `name` is another file's,
    for what may be written beside a lesson.

    Raises StateLockedError at once, without waiting, when it is held elsewhere, and StorageError when the
    file cannot be created or the file system has no locks, StateError when it is no ordinary file.
    """

    def __init__(self, folder: Path, name: str = LOCK_FILE) -> None:
        self.folder = folder
        self._name = name
        self._descriptor: int | None = None
        # How often it was taken.
        self.times = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._descriptor is not None

    def __enter__(self) -> StateLock:
        make_folder(self.folder)
        path = self.folder / self._name
        try:
            descriptor = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise _odd(path) from None
            raise storage_error(error, f"create {path}") from error
        try:
            ordinary = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError as error:
            os.close(descriptor)
            raise storage_error(error, f"lock {path}") from error
        if not ordinary:
            os.close(descriptor)
            raise _odd(path)
        try:
            _lock(descriptor)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in _NONE:
                raise StorageError(
                    f"The file system of {self.folder} has no locks ({error.strerror or error}), so that two processes "
                    "could write there at once. Put it on a local disk (a state: --state); nothing was changed."
                ) from error
            if error.errno not in _BUSY:
                raise storage_error(error, f"lock {path}") from error
            raise StateLockedError(
                f"{holder} is writing to {self.folder}. Wait for it to finish, or stop it; "
                "nothing was changed."
            ) from None
        self._descriptor = descriptor
        self.times += 1
        _sign(descriptor, f"pid {os.getpid()}\n{' '.join(sys.argv)}\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Emptied, never deleted: a process that has just opened the file would lock a name that is gone.
            _sign(descriptor, "")
            with suppress(OSError):
                _unlock(descriptor)
            # What was written under the lock is synced already; closing cannot undo it.
            with suppress(OSError):
                os.close(descriptor)


def _odd(path: Path) -> StateError:
    return StateError(f"{path} is not an ordinary file: remove it, and run the command again.")


def _sign(descriptor: int, text: str) -> None:
    # Only for humans: a full disk must not keep anyone from taking the lock.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text.encode("utf-8", "replace"))


def _holder(descriptor: int) -> str:
    with suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        if match := re.match(rb"pid (\d+)", os.read(descriptor, 64)):
            pid = int(match[1])
            return f"{'This' if pid == os.getpid() else 'Another'} process (pid {pid})"
    return "Another process"
