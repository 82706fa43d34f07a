"""Files of devices that arrive one by one: of each device the newest is kept, in a folder that `merge` reads."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import FleetError
from csk_sdk.fleet.files import FleetFile
from csk_sdk.fleet.statement import Statement
from csk_sdk.fleet.trusting import UntrustedError, require_signed, trusted_keys
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import exists, make_folder, replace_file

LARGEST_FILE = 1 << 30
SENT = "What was sent"


@dataclass(frozen=True)
class Receipt:
    """What became of a device's file. Immutable.

    - `device`: its number; `name`: what people call it; `sequence`: which of its statements it is
    - `classes`: the images of each class
    - `status`: "new" for a device's first, "newer" where it took the place of an older one, "same" for one that is
      here already, "older" for one that a newer one of the same device had come before; only the first two change the
      folder
    """

    device: str
    name: str
    sequence: int
    classes: dict[str, float]
    status: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Receiver:
    """Takes files of devices into `folder`, `DEVICE.cskc` each.

    Only what is signed by a key of `trust` (PEM files, or folders of them) is taken, and, where `bundle` is given, of
    that bundle (its id) only. One for each folder; threads may share it.
    """

    def __init__(self, folder: Path, trust: Iterable[Path | str], bundle: str | None = None) -> None:
        """Raises ConfigError for what is no key, StorageError where the folder cannot be made."""
        self.folder, self._bundle = folder, bundle
        self._keys = trusted_keys(trust)
        make_folder(folder)
        self._one_at_a_time = threading.Lock()

    def take(self, file: Path) -> Receipt:
        """Check every byte of `file`, which is the caller's, and keep a copy of it where it is its device's newest.

        Raises FleetError where it is no file of one device, damaged, or of another bundle; UntrustedError where nobody
        who is trusted signed it; StorageError where it cannot be kept.
        """
        try:
            statement = self._statement(FleetFile.open(file))
        except FleetError as error:
            raise type(error)(str(error).replace(str(file), SENT)) from None
        kept = self.folder / f"{statement.device}.cskc"
        with self._one_at_a_time:
            before = _statement_in(kept)
            status = _status(statement, before)
            if status in ("new", "newer"):
                replace_file(kept, read_file(file, LARGEST_FILE))
        return Receipt(statement.device, statement.name, statement.sequence, statement.images, status)

    def _statement(self, file: FleetFile) -> Statement:
        content = file.content
        if content.merged is not None or len(content.statements) != 1:
            raise FleetError(f"{SENT} is not the file of one device: send what `csk-sdk fleet export` wrote.")
        if self._bundle is not None and content.bundle != self._bundle:
            raise FleetError(
                f"{SENT} is of bundle {content.bundle[:8]}…, and this fleet learns on {self._bundle[:8]}…: upgrade the "
                "device, and export again."
            )
        try:
            require_signed(file, self._keys)
        except UntrustedError:
            how = "by a key that this fleet does not know" if content.statements[0].key else "by nobody"
            raise UntrustedError(
                f"{SENT} is signed {how}: export it with `--sign`, and give the public key to whoever merges."
            ) from None
        for name in content.blobs:
            file.blob(name)
        return content.statements[0]


def _statement_in(kept: Path) -> Statement | None:
    """What is kept of a device; None where nothing is, or it is damaged: the next one takes its place."""
    if exists(kept):
        with suppress(FleetError):
            statements = FleetFile.open(kept).content.statements
            return statements[0] if statements else None
    return None


def _status(statement: Statement, before: Statement | None) -> str:
    if before is None:
        return "new"
    if statement.rank == before.rank:
        return "same"
    return "newer" if statement.rank > before.rank else "older"
