"""The files of contributions, `ledger/SHA256.safetensors`: never changed, and named by what is in them.

A generation lists those that it needs, and a commit writes only new ones. One that no stored generation lists is
removed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import RefusedError, open_file
from csk_sdk.state.atomic import (
    exists,
    is_temporary,
    make_folder,
    names_in,
    remove_file,
    replace_file,
    unreadable,
)
from csk_sdk.state.tensorfile import decode, encode

_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")


class LedgerFiles:
    """`ledger/` in the state folder `folder`. Locking is the business of `State`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"

    def write(self, tensors: Mapping[str, np.ndarray]) -> str:
        """Keep `tensors`; the name that they have now. Raises StorageError."""
        data = encode(tensors)
        name = hashlib.sha256(data).hexdigest()
        if not exists(self.path(name)) or not self.is_intact(name):
            make_folder(self.folder)
            replace_file(self.path(name), data)
        return name

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of this name. Raises StateError where they are missing or damaged."""
        if not self.is_intact(name):
            raise StateError(f"{self.path(name)} is missing or damaged.")
        return decode(self.path(name))[0]

    def is_intact(self, name: str) -> bool:
        """Whether the file is there, and what its name says. Raises UnreadableError where the disk leaves that open."""
        try:
            with open_file(self.path(name)) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == name
        except (FileNotFoundError, NotADirectoryError, RefusedError):
            return False
        except OSError as error:
            raise unreadable(self.path(name), error) from error

    def names(self) -> set[str]:
        """All files that are there, by their names."""
        return {one[:64] for one in names_in(self.folder) if _NAME.fullmatch(one)}

    def keep(self, wanted: Iterable[str]) -> None:
        """Remove all others, and what crashed commits left. Call it only with the lock held."""
        kept = frozenset(wanted)
        for name in names_in(self.folder):
            if name[:64] not in kept and (_NAME.fullmatch(name) or is_temporary(name)):
                remove_file(self.folder / name)

    def path(self, name: str) -> Path:
        """Where a file of this name lies. Raises StateError for what is no such name."""
        if not _NAME.fullmatch(f"{name}.safetensors"):
            raise StateError(f"{name[:80]!r} names no contribution.")
        return self.folder / f"{name}.safetensors"
