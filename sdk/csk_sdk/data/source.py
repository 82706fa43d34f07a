"""Where a split's pictures or signals come from, one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from csk_sdk.errors import TaskError


class Source(Protocol):
    """Pictures or signals by index, from 0 to `len(source) - 1`."""

    @property
    def noun(self) -> str:
        """What messages call one of them: "picture" or "signal"."""
        ...

    def __len__(self) -> int:
        """Return their number."""
        ...

    def read(self, index: int) -> Any:
        """Return a picture, uint8 `(h, w, c)`, or a `csk_sdk.data.signals.Signal`.

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

    root: the folder that the files' names within the task are relative to; without it, the file's name alone
    is its name.
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
            require_file(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{name} {file.tell()} {digest}"
        except OSError as error:
            raise unreadable(path, error) from None


def undecodable(path: Path, reason: str) -> TaskError:
    """The error for a file whose content is no good."""
    return TaskError(
        f"{path} cannot be decoded ({reason}): remove or replace it, then run the command again."
    )


def unreadable(path: Path, error: OSError) -> TaskError:
    """The error for a file that cannot be opened."""
    return TaskError(
        f"{path} cannot be read ({error.strerror}): restore it or its permissions, "
        "then run the command again."
    )


def require_file(path: Path) -> None:
    """Raise TaskError for what is there but no file: opening a pipe would wait for somebody to write into it."""
    if path.exists() and not path.is_file():
        raise undecodable(path, "not a file")
