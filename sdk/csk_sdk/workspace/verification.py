"""`verify`: is every byte of a bundle and of a state what it was, and can what is not be repaired?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csk_sdk.bundle.accepted import accept, check_age
from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import BundleError, StateError
from csk_sdk.formats.given import flag_of, path_of
from csk_sdk.state.atomic import exists
from csk_sdk.state.handover import finish
from csk_sdk.state.identity import require_own_folder
from csk_sdk.state.lock import StateLock
from csk_sdk.state.repair import DAMAGED, INTACT, REPAIRED, Finding, StateCheck

__all__ = ["Finding", "Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What was found, part by part: of the `bundle`, and of the `state`. Immutable.

    A finding has the `name` of a file or a generation, a `detail`, and a `status`: "intact", "pruned", "leftover",
    "damaged", "repaired", "newer" or "lost".
    """

    bundle: tuple[Finding, ...]
    state: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged, or no longer."""
        return not any(finding.status == DAMAGED for finding in (*self.bundle, *self.state))

    @property
    def repaired(self) -> int:
        """How many findings were repaired."""
        return sum(finding.status == REPAIRED for finding in self.state)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `verify --json`."""
        return {"ok": self.ok, "repaired": self.repaired, **asdict(self)}


def verify(
    bundle: Path | str = "bundle",
    state: Path | str = "state",
    *,
    repair: bool = False,
    trust: Path | str | None = None,
    allow_older: bool = False,
) -> Verification:
    """Read every byte of a bundle and of the state learned on it, and compare it with its checksum.

    With `repair`, the state's lock is held, and what can be repaired is: see csk_sdk/state/repair.py. An intact
    generation is never dropped. A bundle is never written to: a damaged one must be copied again, and while its
    manifest is damaged the state cannot be verified. With `allow_older`, a bundle signed by the key `trust` is accepted
    from now on although the device has seen a newer one.

    Nothing is kept between calls, so threads may call it. What is damaged is a finding, and raises nothing. Raises
    ConfigError where `trust` is no key, StateError for the state of another bundle, for what is plainly no state, or
    where only a newer csk-sdk may read what is current, or write what is to be repaired; StateLockedError when another
    process writes to a state that is to be repaired, StorageError when a repair cannot be written.
    """
    folder = path_of(state, "state", StateError)
    repair, allow_older = flag_of(repair, "repair"), flag_of(allow_older, "allow_older")
    where = path_of(bundle, "bundle", BundleError)
    finish(where, folder)
    opened, findings = _bundle(where, trust, folder, allow_older)
    if opened is None or not exists(folder):
        return Verification(findings, ())
    check = StateCheck(folder, opened.id)
    if check.is_empty():
        require_own_folder(folder)
        # And no lock is left where nothing is to be mended.
        return Verification(findings, ())
    if not repair:
        return Verification(findings, tuple(check.run()))
    # Before the lock is written.
    check.require_writable()
    with StateLock(folder):
        return Verification(findings, tuple(check.run(repair=True)))


def _bundle(
    folder: Path, trust: Path | str | None, state: Path, allow_older: bool
) -> tuple[Bundle | None, tuple[Finding, ...]]:
    try:
        bundle = Bundle.read_manifest(folder, trust)
        if trust is not None and allow_older:
            if not exists(state / "HEAD"):
                require_own_folder(state)
            accept(bundle, trust, state, allow_older=True)
        elif trust is not None:
            check_age(bundle, trust, state)
    except BundleError as error:
        return None, (Finding("manifest.json", DAMAGED, str(error)),)
    return bundle, (Finding("manifest.json", INTACT, bundle.origin), *_files(bundle))


def _files(bundle: Bundle) -> Iterator[Finding]:
    for name, entry in bundle.manifest.files.items():
        try:
            bundle.verify_file(name)
        except BundleError as error:
            yield Finding(name, DAMAGED, str(error))
        else:
            yield Finding(name, INTACT, f"{entry.size:,} bytes")
