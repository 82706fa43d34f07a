"""Where a split's images or signals come from, one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import TaskError
from csk_sdk.formats.opening import RefusedError, open_file

# 64 Mi pixels or samples (csk_sdk.data.images, csk_sdk.data.signals) of 16 bytes, the largest kind, and a bit more.
LARGEST_FILE = (1 << 30) + (64 << 20)


class Source(Protocol):
    """Images or signals by index, from 0 to `len(source) - 1`."""

    @property
    def noun(self) -> str:
        """What messages call one of them: "image" or "signal"."""
        ...

    def __len__(self) -> int:
        """Return their number."""
        ...

    def read(self, index: int) -> Any:
        """Return an image, uint8 `(h, w, c)`, or a `csk_sdk.data.signals.Signal`.

        Raises TaskError when it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """Return what to call it in a message: its path, for a file."""
        ...

    def identity(self, index: int) -> str:
        """Return its name within the task, its byte size and the sha256 of its content.

        The same wherever the task's folder lies. Raises TaskError when it cannot be read.
        """
        ...


class Files:
    """Files, opened only while one of them is read.

    root: a task's train/ or test/: the folder that the files' names within the task are relative to. Nothing outside
    the task's folder is read then, links or not. Without it, the file's name alone is its name.
    """

    def __init__(self, paths: Sequence[Path | str], root: Path | None = None) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._root = root

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def name(self, index: int) -> str:
        """Return the file's path."""
        return str(self._paths[index])

    def identity(self, index: int) -> str:
        """Return path within the task, file size and sha256 of the file's bytes."""
        path = self._paths[index]
        name = path.relative_to(self._root).as_posix() if self._root else path.name
        try:
            with self._open(index) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{name} {file.tell()} {digest}"
        except OSError as error:
            raise unreadable(path, error) from None

    def _open(self, index: int) -> BufferedReader:
        """Open a file, one of at most LARGEST_FILE bytes in the task's folder. Raises OSError."""
        return open_file(self._paths[index], self._root.parent if self._root else None, LARGEST_FILE)


class Subset:
    """Some of a source's images or signals, by their `indices` in it."""

    def __init__(self, source: Source, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.noun = source.noun
        self._source, self._indices = source, [int(index) for index in indices]

    def __len__(self) -> int:
        """Return their number."""
        return len(self._indices)

    def read(self, index: int) -> Any:
        """Read one, as the source does."""
        return self._source.read(self._indices[index])

    def name(self, index: int) -> str:
        """Return the name that it has in the source."""
        return self._source.name(self._indices[index])

    def identity(self, index: int) -> str:
        """Return the identity that it has in the source."""
        return self._source.identity(self._indices[index])

    def require_bright(self) -> None:
        """As the source does: `csk_sdk.data.images.FileImages`."""
        require_bright(self._source)


def require_bright(source: Source) -> None:
    """Raise TaskError where all 16-bit images read so far are dark, and no bit depth was set."""
    check = getattr(source, "require_bright", None)
    if check is not None:
        check()


def undecodable(path: Path, reason: str) -> TaskError:
    """The error for a file whose content is no good."""
    return _broken(
        f"{path} cannot be decoded ({reason})", "remove or replace it, then run the command again."
    )


def unreadable(path: Path, error: OSError) -> TaskError:
    """The error for a file that cannot be opened, or is none that may be."""
    if isinstance(error, RefusedError):
        return undecodable(path, str(error.strerror))
    return _broken(
        f"{path} cannot be read ({error.strerror})",
        "restore it or its permissions, then run the command again.",
    )


def _broken(what: str, remedy: str) -> TaskError:
    error = TaskError(f"{what}: {remedy}")
    vars(error)["what"] = what  # for a list of several, which has one remedy
    return error


@contextmanager
def as_task_error(path: Path) -> Iterator[None]:
    """Within the block, whatever the files of the task `path` make the system or a library raise is a TaskError."""
    try:
        yield
    except (OSError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = reason.splitlines()[0][:200].rstrip(".")
        raise TaskError(
            f"{path} cannot be opened ({said}): check its files, their names and permissions."
        ) from error
