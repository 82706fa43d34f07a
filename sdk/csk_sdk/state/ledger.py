"""The files of contributions, `ledger/SHA256.safetensors`: never changed, and named by what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.stored_tensors import StoredTensors
from csk_sdk.state.content_files import ContentFiles
from csk_sdk.state.tensorfile import decode, encode


class LedgerFiles(ContentFiles):
    """`ledger/` in the state folder `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "ledger", "contribution")

    def write(self, tensors: Mapping[str, np.ndarray]) -> str:
        """Keep `tensors`; the name that they have now. Raises StorageError."""
        return self.put(encode(tensors))

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The tensors of this name. Raises StateError where they are missing or damaged."""
        path = self.sound(name)
        if path is None:
            raise StateError(f"{self.path(name)} is missing or damaged.")
        return decode(path)[0]

    def images(self, name: str) -> float | None:
        """How many images a contribution is of; None where it cannot be read. Nothing else of its file is."""
        for path in self.paths(name):
            try:
                count = StoredTensors(path)["count"].reshape(-1)
            except (StateError, KeyError):
                continue
            if count.size == 1 and np.isfinite(count).all():
                return float(count[0])
        return None

    def is_intact(self, name: str) -> bool:
        """Whether the file is there, and what its name says. Raises UnreadableError where the disk leaves that open."""
        return self.sound(name) is not None
