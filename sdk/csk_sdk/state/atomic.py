"""Changing files so that a crash, a power cut or a full disk never leaves half of one.

Every change that csk-sdk makes to a state folder goes through this module, which is what lets the tests
interrupt each of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from csk_sdk.errors import StateError, StorageError

# Leading dot and suffix together: no file that a user or csk-sdk keeps is ever named so.
TEMPORARY = ".csk-tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
# What file systems answer that cannot fsync a folder (FUSE, some network shares), or may not open it.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, *_FORBIDDEN})


class UnreadableError(StateError):
    """The disk did not give back what is there. That is no damage: the next try may succeed, so nothing is mended."""


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Make `data` the content of `path`: a reader, now or after a crash, sees the old or the new whole.

    Writes a temporary file in the same folder, fsyncs it, renames it over `path`, and fsyncs the folder.
    Without `durable` a power cut may bring the old content back; it still never tears the file.

    Raises StorageError when the disk is full, read-only or refuses; the temporary file is removed, and
    `path` is as it was (only if the folder's own fsync failed may it already be the new content).
    """
    replace_by_parts(path, (data,), len(data), durable=durable)


def replace_by_parts(path: Path, parts: Iterable[bytes], size: int, *, durable: bool = True) -> None:
    """`replace_file` by what `parts` give one after another, `size` bytes in all: they need not be in memory at once.

    What `parts` raises ends it, and changes nothing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        _write_synced(temporary, parts)
        rename(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        remove_file(temporary)
        raise storage_error(error, f"write {size} bytes to {path}", path.parent) from error
    except BaseException:
        remove_file(temporary)
        raise


def make_folder(path: Path) -> None:
    """Create the folder `path` and its parents, durably; nothing happens when it exists.

    Raises StorageError when the disk is full, read-only or refuses.
    """
    try:
        if path.is_dir():
            return
        if path.parent != path:
            make_folder(path.parent)
        with suppress(FileExistsError):
            os.mkdir(path)  # noqa: PTH102 - through `os`, like every change, so that tests can interrupt it
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file of that name is in the way")
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, f"create the folder {path}") from error


def require_room(folder: Path, count: int, action: str) -> None:
    """Raise StorageError where `count` bytes do not fit on the disk of `folder`, which need not exist yet.

    `action` is what they are needed for. Where the system does not tell how much is free, nothing is refused.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return
    if free < count:
        raise StorageError(
            f"The disk is full: {action} needs {_size(count)} in {folder}, and {_size(free)} are free. Free some space "
            "and run the command again; nothing that was learned is lost."
        )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 10**6 else f"{count / 1e3:.0f} kB"


def exists(path: Path) -> bool:
    """Whether there is a file or folder `path`; links are followed.

    Unlike `Path.exists`, which on some Pythons takes a disk that cannot answer for a no. Raises UnreadableError then.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def names_in(folder: Path) -> list[str]:
    """The names of what is in `folder`; none without a folder. Raises UnreadableError when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def unreadable(path: Path, error: OSError) -> UnreadableError:
    """The error that tells a user that the disk did not give back what is at `path`."""
    return UnreadableError(
        f"{path} cannot be read ({error.strerror or error}): check the disk and the permissions, "
        "and run the command again."
    )


def remove_file(path: Path) -> bool:
    """Remove `path` if possible; True when it is gone.

    Failing is not an error: what csk-sdk removes is never in the way, it only takes space.
    """
    try:
        os.unlink(path)  # noqa: PTH108 - see make_folder
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_or_raise(path: Path) -> None:
    """Remove `path`, whose being there means something; nothing happens where it is not. Raises StorageError."""
    if not remove_file(path):
        raise StorageError(f"{path} cannot be removed: check that this user may write to {path.parent}.")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `replace_file` was writing."""
    return name.startswith(".") and name.endswith(TEMPORARY)


def clear_temporaries(folder: Path, minimum_age: float = 0.0, of: str = "") -> None:
    """Remove what killed processes left behind in `folder`, if last written `minimum_age` seconds ago.

    With `of`, only what was to become the file of that name: other programs' files may lie in the folder.

    With the default age, call it only while holding the lock: a living writer's file would be removed too.
    """
    newest = time.time() - minimum_age
    begin = f".{of}." if of else "."
    for leftover in (
        folder / name for name in names_in(folder) if is_temporary(name) and name.startswith(begin)
    ):
        with suppress(OSError):
            if leftover.stat().st_mtime <= newest or minimum_age == 0:
                remove_file(leftover)


def storage_error(error: OSError, action: str, folder: Path | None = None) -> StorageError:
    """The StorageError that tells a user about `error`; `action` completes "could not ...", in `folder`."""
    if error.errno == errno.ENOSPC and folder is not None and _out_of_inodes(folder):
        return StorageError(
            f"The disk can hold no more files (all its inodes are used): could not {action}. Remove some files, "
            "however small, and run the command again; nothing that was learned is lost."
        )
    if error.errno in _FULL:
        return StorageError(
            f"The disk is full: could not {action}. Free some space and run the command again; "
            "nothing that was learned is lost."
        )
    if error.errno == errno.EROFS:
        return StorageError(
            f"The file system is read-only: could not {action}. Remount it writable, or choose another "
            "folder; nothing that was learned is lost."
        )
    if error.errno in _FORBIDDEN:
        return StorageError(
            f"Permission denied: could not {action}. Give this user the right to write there, or choose "
            "another folder; nothing that was learned is lost."
        )
    return StorageError(
        f"The disk refused: could not {action} ({error.strerror or error}). Check the disk and the path, "
        "and run the command again; nothing that was learned is lost."
    )


def _out_of_inodes(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):  # Windows has no such call
        return False
    # Some file systems have no fixed number of inodes, and say 0 of 0.
    return status.f_files > 0 and status.f_favail == 0


def _write_synced(path: Path, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file, or a folder, the name `target`, in place of a file that has it. Raises OSError."""
    # Windows refuses to replace a file that a reader or a virus scanner has open just now.
    attempts = 10 if sys.platform == "win32" else 1
    for attempt in range(1, attempts + 1):
        try:
            os.replace(source, target)  # noqa: PTH105 - see make_folder
            return
        except PermissionError:
            if attempt == attempts:
                raise
            time.sleep(0.02 * attempt)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system can do that. Raises OSError."""
    if sys.platform == "win32":
        return  # Windows has no such call; NTFS journals the rename itself
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def file_identity(path: Path) -> tuple[int, ...] | None:
    """What is another once a file is replaced; None where nobody can tell."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def ordinary_size(path: Path) -> int | None:
    """The bytes of an ordinary file; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_size if S_ISREG(status.st_mode) else None
