"""Files of devices that arrive one by one: of each device the newest is kept, in a folder that `merge` reads."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.errors import CskError, FleetError, StateLockedError
from csk_sdk.fleet.files import FleetFile
from csk_sdk.fleet.statement import Statement
from csk_sdk.fleet.trusting import UntrustedError, require_signed, trusted_keys
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import (
    TEMPORARY,
    clear_temporaries,
    exists,
    make_folder,
    names_in,
    remove_file,
    replace_file,
)
from csk_sdk.state.lock import StateLock

LARGEST_FILE = 1 << 30
SENT = "What was sent"
LOCK_FILE = ".csk-lock"
"""In a receiver's folder: whoever holds it compares a file with the one that is kept, and replaces that."""
# Each holds it for as long as one file takes to be written.
_LOCK_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 0.02
# What is being sent lies beside what is kept, on the same disk, and with a lock that its receiver holds meanwhile.
_SENDING = ".sent."
_LOCK = f".lock{TEMPORARY}"
_ABANDONED_SECONDS = 3600.0


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
    that bundle (its id) only. Threads may share it, and processes the folder.
    """

    def __init__(self, folder: Path, trust: Iterable[Path | str], bundle: str | None = None) -> None:
        """Raises ConfigError for what is no key, StorageError where the folder cannot be made."""
        self.folder, self._bundle = folder, bundle
        self._keys = trusted_keys(trust)
        make_folder(folder)
        _clear(folder)
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """A place in the folder for what is being sent, which no reader of the folder takes for a file of a device.

        It is removed at the end; where the process is killed before, by the next receiver of the folder. Raises
        StorageError where nothing can be written.
        """
        name = f"{_SENDING}{secrets.token_hex(8)}"
        place, lock = self.folder / f"{name}{TEMPORARY}", f"{name}{_LOCK}"
        try:
            with StateLock(self.folder, lock):
                try:
                    yield place
                finally:
                    remove_file(place)
        finally:
            remove_file(self.folder / lock)

    def take(self, file: Path) -> Receipt:
        """Check every byte of `file`, which is the caller's, and keep a copy of it where it is its device's newest.

        Raises FleetError where it is no file of one device, damaged, or of another bundle; UntrustedError where nobody
        who is trusted signed it; StorageError where it cannot be kept, StateLockedError where another process that
        keeps files in the same folder holds it for half a minute.
        """
        try:
            statement = self._statement(FleetFile.open(file))
        except FleetError as error:
            raise type(error)(str(error).replace(str(file), SENT)) from None
        kept = self.folder / f"{statement.device}.cskc"
        with self._one_at_a_time, _held(self.folder):
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


def _clear(folder: Path) -> None:
    """Remove what receivers that were killed had been sent until then."""
    clear_temporaries(folder, _ABANDONED_SECONDS)
    for name in names_in(folder):
        if name.startswith(_SENDING) and name.endswith(TEMPORARY) and not name.endswith(_LOCK):
            lock = name.removesuffix(TEMPORARY) + _LOCK
            # Held: it is being sent just now.
            with suppress(CskError):
                with StateLock(folder, lock):
                    remove_file(folder / name)
                remove_file(folder / lock)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder's lock, which other receivers of the same folder take, too: for a moment each."""
    end = time.monotonic() + _LOCK_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(StateLock(folder, LOCK_FILE))
                break
            except StateLockedError:
                if time.monotonic() > end:
                    raise
                time.sleep(_LOOK_AGAIN_SECONDS)
        yield


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
