"""Opening files that others may have put there: the one way in which csk-sdk opens a file by its name to read it.

Pipes and device files are refused before they are opened: a pipe would wait for somebody to write into it, some devices
act on being opened, and others never end. What takes an ordinary file's place in between is opened without waiting, and
refused then. With `within`, links may lead anywhere inside that folder and nowhere else, and none is followed that was
put there between the look and the opening. With `most`, larger files are refused before memory is asked for.
`tests/field/test_openings.py` walks the code for files that are opened in another way.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

# Windows has none of these but O_BINARY, and there a pipe or a device is not a name in a folder.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# A folder that may be entered need not be one that may be listed.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
# The largest text file, in bytes, that is read as a whole: a record of tens of thousands of tasks, a table of a million
# images.
LARGEST_TEXT = 64 << 20

_PIECE = 1 << 20
_BY_FOLDER = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd


class RefusedError(OSError):
    """What is there is not opened: no ordinary file, too large, or outside its folder. `strerror` says which."""


def open_file(path: Path, within: Path | None = None, most: int | None = None) -> io.BufferedReader:
    """Open an ordinary file to read its bytes; `most` is the largest size in bytes.

    Raises RefusedError, an OSError, for what is no ordinary file, is larger, or lies outside the folder `within`;
    OSError where there is none, or it cannot be opened.
    """
    try:
        descriptor = _open(os.fspath(path)) if within is None else _open_within(path, within)
    except ValueError:  # a zero, or what the file system cannot encode
        raise RefusedError(errno.EINVAL, "its name is none that a file can have", str(path)) from None
    try:
        status = os.fstat(descriptor)
        _require_ordinary(status, path)
        if most is not None and status.st_size > most:
            reason = f"{status.st_size:,} bytes, and {most:,} are the most that it may have"
            raise RefusedError(errno.EFBIG, reason, str(path))
        return io.open(descriptor, "rb")  # noqa: UP020 - what the tests of broken disks replace
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, most: int, within: Path | None = None) -> bytes:
    """The bytes of an ordinary file of at most `most` bytes, also where it grows meanwhile. Raises as `open_file`."""
    pieces, left = [], most
    with open_file(path, within, most) as file:
        # Piece by piece: to read as much as there may be, Python first asks for as much memory.
        while piece := file.read(_PIECE):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise RefusedError(errno.EFBIG, f"more than the {most:,} bytes that it may have", str(path))
    return b"".join(pieces)


def _open(name: str, folder: int | None = None, flags: int = _READ) -> int:
    """Open what is an ordinary file; with `folder`, a descriptor, `name` lies in it and is no link."""
    _require_ordinary(os.stat(name, dir_fd=folder, follow_symlinks=folder is None), name)
    return os.open(name, flags if folder is None else flags | _NO_LINK, dir_fd=folder)


def _open_within(path: Path, within: Path) -> int:
    root, target = Path(os.path.realpath(within)), Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise RefusedError(errno.EXDEV, f"it is a link that leads out of {within}", str(path))
    parts = target.relative_to(root).parts
    if not parts:
        raise RefusedError(errno.EISDIR, "not an ordinary file", str(path))
    if not _BY_FOLDER:
        return _open(str(target))
    # From folder to folder, following no link: `target` has none, unless one was put there just now.
    folder = os.open(root, _FOLDER & ~_NO_LINK)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open(parts[-1], folder)
    finally:
        os.close(folder)


def _require_ordinary(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(errno.EINVAL, "not an ordinary file", str(path))
