"""What a device and the server do in a round, with files and bytes, whatever carries these."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from csk_sdk.errors import CskError, StateLockedError
from csk_sdk.fleet.applying import ApplyReport, apply
from csk_sdk.fleet.engine.sites import DeviceSite, ServerSite
from csk_sdk.fleet.exporting import export
from csk_sdk.fleet.merging import MergeReport, merge
from csk_sdk.fleet.receiving import LARGEST_FILE, Receipt, Receiver
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import make_folder, replace_file, storage_error
from csk_sdk.workspace.folder import Workspace

_LOOK_AGAIN_SECONDS = 0.5
T = TypeVar("T")
BUSY = "Something learns on this device: waiting until it is done."


class Stopped(CskError):
    """The round ended while a device was still learning."""


class Device:
    """A device's part: what it has learned, and what it takes.

    While something learns on the device, both wait until it is done, or `stopped` tells that the round is over; `say`
    is told so.
    """

    def __init__(
        self, site: DeviceSite, name: str, stopped: Callable[[], bool], say: Callable[[str], object]
    ) -> None:
        """`name` is what people call the device."""
        self._site, self._name, self._stopped, self._say = site, name, stopped, say

    def contribute(self) -> bytes:
        """What `fleet.export` writes. Raises what that raises, and Stopped."""
        with tempfile.TemporaryDirectory(prefix="csk-fleet-") as place:
            out = Path(place) / "own.cskc"
            self._when_free(lambda: self._export(out))
            return read_file(out, LARGEST_FILE)

    def take(self, merged: bytes) -> ApplyReport:
        """Apply the bytes that `fleet.merge` wrote. Raises what `fleet.apply` raises, and Stopped."""
        with tempfile.TemporaryDirectory(prefix="csk-fleet-") as place:
            path = Path(place) / "merged.cskc"
            replace_file(path, merged)
            return self._when_free(lambda: self._apply(path))

    def _export(self, out: Path) -> None:
        site = self._site
        key = None if site.sign is None else Path(site.sign)
        learner = Workspace.open(site.workspace).learner()
        export(learner, out, least=site.least, bits=site.bits, name=self._name, sign=key)

    def _apply(self, path: Path) -> ApplyReport:
        return apply(Workspace.open(self._site.workspace).learner(), path)

    def _when_free(self, do: Callable[[], T]) -> T:
        said = False
        while True:
            try:
                return do()
            except StateLockedError:
                if self._stopped():
                    raise Stopped("It was learning until the round was over.") from None
                if not said:
                    self._say(BUSY)
                said = True
                time.sleep(_LOOK_AGAIN_SECONDS)


class Server:
    """The server's part: the newest file of each device, in a folder, and what was made of them."""

    def __init__(self, site: ServerSite) -> None:
        """Raises ConfigError for what is no key, StorageError where the folder cannot be made."""
        self._site = site
        self._trust = tuple(map(Path, site.trust))
        self._receiver = Receiver(Path(site.inbox), self._trust, site.bundle)

    def receive(self, sent: bytes) -> Receipt:
        """Keep what a device sent, as `fleet serve` does. Raises what `Receiver.take` raises."""
        with self._receiver.upload() as path:
            try:
                path.write_bytes(sent)
            except OSError as error:
                raise storage_error(error, f"keep what was sent in {path.parent}") from error
            return self._receiver.take(path)

    def merge(self, same: Mapping[str, str], without: Iterable[str], accept: Iterable[str]) -> MergeReport:
        """Merge all that is kept, as `csk-sdk fleet merge INBOX/*.cskc --skip-broken` does. Raises what that raises."""
        site = self._site
        out = Path(site.merged)
        make_folder(out.absolute().parent)
        return merge(
            sorted(Path(site.inbox).glob("*.cskc")),
            out,
            same=same,
            without_devices=without,
            accept=accept,
            trust=self._trust,
            skip_broken=True,
            sign=None if site.sign is None else Path(site.sign),
        )

    def merged(self) -> bytes:
        """The bytes of what was merged last. Raises FileNotFoundError before anything was."""
        return read_file(Path(self._site.merged), LARGEST_FILE)
