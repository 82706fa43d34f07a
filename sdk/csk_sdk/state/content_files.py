"""A folder of files that never change, each named by the sha256 of its bytes; those that are kept again have a copy.

Generations list those that they need, and a commit writes only new ones. One that no stored generation lists is
removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import RefusedError, open_file
from csk_sdk.state.atomic import (
    UnreadableError,
    file_identity,
    is_temporary,
    make_folder,
    names_in,
    remove_file,
    replace_file,
    unreadable,
)

_NAME = re.compile(r"[0-9a-f]{64}")
ENDING = ".safetensors"


class ContentFiles:
    """The files of `folder`; a name says what `kind` of thing it is.

    It has a file with the first of `endings`, and those with the others once it was kept a second time.

    Locking is the business of `State`.
    """

    def __init__(self, folder: Path, kind: str, endings: Sequence[str] = (ENDING,)) -> None:
        self.folder = folder
        self._kind = kind
        self._endings = tuple(endings)
        # What files were when they were last seen to be what their names say.
        self._seen: dict[Path, tuple[int, ...] | None] = {}

    def put(self, data: bytes) -> str:
        """Keep `data`; the name that it has now. Raises StorageError.

        What is there and intact is not written again; where that is the first file, the others follow.
        """
        name = hashlib.sha256(data).hexdigest()
        for path in self.paths(name):
            if self._was_intact(path) or self._can_be_read(path, name):
                continue
            make_folder(self.folder)
            replace_file(path, data)
            self._seen[path] = file_identity(path)
            if path == self.path(name):
                break
        return name

    def sound(self, name: str, again: bool = True) -> Path | None:
        """A file of this name that is there, and what its name says; None where there is none.

        Not `again`: where it was that before, and nothing has been written since, it is not read. Raises
        UnreadableError where the disk leaves that open.
        """
        unsure: UnreadableError | None = None
        for path in self.paths(name):
            try:
                if (not again and self._was_intact(path)) or self.is_sound(path, name):
                    return path
            except UnreadableError as error:
                unsure = unsure or error
        if unsure is not None:
            raise unsure
        return None

    def is_sound(self, path: Path, name: str) -> bool:
        """Whether a file is there, and what its name says. Raises UnreadableError where the disk leaves that open."""
        before = file_identity(path)
        try:
            with open_file(path) as file:
                sound = hashlib.file_digest(file, "sha256").hexdigest() == name
        except (FileNotFoundError, NotADirectoryError, RefusedError):
            return False
        except OSError as error:
            raise unreadable(path, error) from error
        self._seen[path] = before if sound else None
        return sound

    def mend(self, name: str) -> None:
        """Write those files of a name again that are lost, from one that is not. Raises StateError, StorageError."""
        if all(map(self._was_intact, self.paths(name))):
            return
        path = self.sound(name)
        if path is None:
            raise StateError(f"{self.path(name)} is missing or damaged.")
        with open_file(path) as file:
            self.put(file.read())

    def names(self) -> set[str]:
        """All names that have a file."""
        return {one[:64] for one in names_in(self.folder) if self._is_ours(one)}

    def keep(self, wanted: Iterable[str]) -> list[Path]:
        """Remove all others, and what crashed commits left; those that could not be removed.

        Call it only with the lock held.
        """
        kept = frozenset(wanted)
        others = [
            self.folder / one
            for one in names_in(self.folder)
            if one[:64] not in kept and (self._is_ours(one) or is_temporary(one))
        ]
        for path in others:
            self._seen.pop(path, None)
        return [path for path in others if not remove_file(path)]

    def paths(self, name: str) -> list[Path]:
        """Where the files of this name lie. Raises StateError for what is no such name."""
        if not _NAME.fullmatch(name):
            raise StateError(f"{name[:80]!r} names no {self._kind}.")
        return [self.folder / f"{name}{ending}" for ending in self._endings]

    def path(self, name: str) -> Path:
        """Where the first of them lies."""
        return self.paths(name)[0]

    def _was_intact(self, path: Path) -> bool:
        identity = file_identity(path)
        return identity is not None and self._seen.get(path) == identity

    def _can_be_read(self, path: Path, name: str) -> bool:
        try:
            return self.is_sound(path, name)
        except UnreadableError:
            # What is to be there is at hand, and better than what the disk does not give back.
            return False

    def _is_ours(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name[:64])) and name[64:] in self._endings
