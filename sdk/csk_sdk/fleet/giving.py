"""What was merged, as it is given out: only a whole merged file, looked at again when it has changed."""

from __future__ import annotations

from pathlib import Path

from csk_sdk.errors import FleetError
from csk_sdk.fleet.files import FleetFile
from csk_sdk.fleet.receiving import LARGEST_FILE
from csk_sdk.formats.opening import read_file
from csk_sdk.state.atomic import exists, file_identity

# Whoever merges replaces the file in one step: a second look finds it whole.
_LOOKS = 3


class MergedFile:
    """The file `path` that `fleet.merge` writes, of `bundle` (its id), if that is given. Threads may share it."""

    def __init__(self, path: Path, bundle: str | None) -> None:
        self._path, self._bundle = path, bundle
        self._known: tuple[int, ...] | None = None

    def require_whole(self) -> tuple[int, ...] | None:
        """Check every byte of it, unless that was done since it changed; what it is known by.

        Raises FileNotFoundError where there is none, FleetError where it is not what devices apply, StateError where
        the disk does not tell.
        """
        if not exists(self._path):
            raise FileNotFoundError(self._path)
        now = file_identity(self._path)
        if now is None or now != self._known:
            self._check(FleetFile.open(self._path))
            self._known = now
        return now

    def read(self) -> bytes:
        """The bytes of the whole file. Raises what `require_whole` raises."""
        for _ in range(_LOOKS):
            before = self.require_whole()
            try:
                content = read_file(self._path, LARGEST_FILE)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise FleetError(f"{self._path} cannot be read ({reason}).") from None
            if file_identity(self._path) == before:
                return content
        raise FleetError(f"{self._path} changes while it is read: write it with `csk-sdk fleet merge`.")

    def _check(self, file: FleetFile) -> None:
        content = file.content
        if content.merged is None:
            raise FleetError(
                f"{self._path} has what single devices say, which is not for all: give out what `csk-sdk fleet merge` "
                "writes without `--keep-apart`."
            )
        if self._bundle is not None and content.bundle != self._bundle:
            raise FleetError(
                f"{self._path} is of bundle {content.bundle[:8]}…, and this fleet learns on {self._bundle[:8]}…: merge "
                "what was learned on that."
            )
        for name in content.blobs:
            file.blob(name)
