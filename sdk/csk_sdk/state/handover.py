"""A bundle and its state exchanged together for another bundle with its state, and back: both, or neither.

Two folders cannot be renamed in one step. So the new ones are written beside the old ones, whole, and then a journal
says that they count: its rename is the moment. Whoever opens the device afterwards first finishes what the journal
says (`finish`), which can be begun again wherever it was interrupted. Without a journal, what lies beside is debris.

    bundle/  state/                   what counts
    .bundle.next/  .state.next/       what is being made
    .state.upgrade/journal.json       they are to take the old ones' places
    bundle.before/  state.before/     the old ones, for the way back
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csk_sdk.contract.manifest import MANIFEST
from csk_sdk.errors import StateError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.state import swap
from csk_sdk.state.atomic import (
    exists,
    remove_file,
    rename,
    replace_file,
    storage_error,
    sync_folder,
)
from csk_sdk.state.lock import StateLock
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.store import IDENTITY
from csk_sdk.state.swap import remove_folder, sync_tree


@dataclass(frozen=True)
class Places:
    """Where the two folders of a device are, and what lies beside them during a handover, and after."""

    bundle: Path
    state: Path

    @property
    def journal(self) -> Path:
        """What says that the next ones count."""
        return self.lock / "journal.json"

    @property
    def lock(self) -> Path:
        """The folder whose lock is held by whoever changes any of this."""
        return _beside(self.state, ".{}.upgrade")

    def next(self) -> tuple[Path, Path]:
        """The bundle and the state that are being made."""
        return _beside(self.bundle, ".{}.next"), _beside(self.state, ".{}.next")

    def before(self) -> tuple[Path, Path]:
        """Those that were replaced last."""
        return _beside(self.bundle, "{}.before"), _beside(self.state, "{}.before")

    def undone(self) -> tuple[Path, Path]:
        """Those that the way back has replaced, which are removed."""
        return _beside(self.bundle, ".{}.undone"), _beside(self.state, ".{}.undone")


def _beside(folder: Path, name: str) -> Path:
    # The top may be a link: what counts is beside the name, since that is what is renamed.
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - `resolve` would follow it
    # Nothing lies beside a root.
    return folder.with_name(name.format(folder.name)) if folder.name else folder / name.format("root")


@contextmanager
def handing_over(places: Places) -> Iterator[None]:
    """Within the block nobody else hands over here; debris of those that died is gone.

    Raises StateLockedError where somebody is at it.
    """
    with StateLock(places.lock):
        _go_on(places)
        _clear(places)
        try:
            yield
        finally:
            if not exists(places.journal):
                _clear(places)
            else:
                _go_on(places)


def finish(bundle: Path, state: Path) -> None:
    """Finish a handover that was committed, and interrupted: call it before the two are opened.

    Nothing happens, and nothing is written, where there is none. Raises StorageError, and StateLockedError where
    another process is at it.
    """
    places = Places(bundle, state)
    if exists(places.journal):
        with StateLock(places.lock):
            _go_on(places)


def commit(places: Places, bundle_id: str) -> None:
    """What lies at `places.next()` counts from now on: durable first, then the journal. Within `handing_over`.

    A state need not be among them. Raises StorageError; what counted before counts then.
    """
    _write_journal(places, {"to": bundle_id, "back": False})


def commit_back(places: Places, bundle_id: str) -> None:
    """What lies at `places.before()`, a bundle of this id and its state, counts again from now on.

    Within `handing_over`. Raises StateError where nothing is there.
    """
    if not exists(places.before()[0]):
        raise StateError(f"There is no way back: {places.before()[0]} is not there.")
    _write_journal(places, {"to": bundle_id, "back": True})


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle's folder, following no links in it. Raises StorageError."""
    try:
        shutil.copytree(source, target, symlinks=True)
    except (OSError, shutil.Error) as error:
        raise storage_error(
            error if isinstance(error, OSError) and error.errno else OSError(5, str(error)[:200]),
            f"copy the bundle to {target}",
        ) from error


def bundle_id(folder: Path) -> str:
    """By which id a state knows the bundle in a folder; "" where there is none."""
    with suppress(OSError):
        return hashlib.sha256(read_file(folder / MANIFEST, LARGEST_TEXT)).hexdigest()
    return ""


def _write_journal(places: Places, content: dict[str, Any]) -> None:
    folders = places.before() if content["back"] else places.next()
    for folder in folders:
        if exists(folder):
            try:
                sync_tree(folder)
                sync_folder(folder.parent)
            except OSError as error:
                raise storage_error(error, f"write {folder}") from error
    replace_file(places.journal, seal({**content, "state": exists(folders[1])}))


def _go_on(places: Places) -> None:
    """Do what is left of what the journal says."""
    if not exists(places.journal):
        return
    content = unseal(places.journal)
    to, back = str(content["to"]), bool(content["back"])
    targets = Path(os.path.abspath(places.bundle)), Path(os.path.abspath(places.state))  # noqa: PTH100
    sources = places.before() if back else places.next()
    olds = places.undone() if back else places.before()
    try:
        _put(targets[0], sources[0], olds[0], bundle_id(targets[0]) == to)
        if content["state"]:
            _put(targets[1], sources[1], olds[1], _owner(targets[1]) == to)
        elif back and os.path.lexists(targets[1]):
            # Nothing had been learned, and nothing is learned then.
            rename(targets[1], olds[1])
        elif not back:
            # That of an earlier bundle is no way back from here.
            remove_folder(olds[1])
        sync_folder(targets[1].parent)
    except OSError as error:
        raise storage_error(error, f"put {sources[0].name} in the place of {places.bundle}") from error
    remove_file(places.journal)
    sync_folder(places.lock)
    if back:
        for folder in olds:
            remove_folder(folder)


def _put(target: Path, source: Path, old: Path, arrived: bool) -> None:
    """Make `source` the folder `target`, and what is there `old`; `arrived` says that they were exchanged before."""
    if not os.path.lexists(source):
        return
    if os.path.lexists(target):
        remove_folder(old)
        if arrived or swap.exchange(source, target):
            sync_folder(target.parent)
            rename(source, old)
            sync_folder(target.parent)
            return
        rename(target, old)
        sync_folder(target.parent)
    rename(source, target)
    sync_folder(target.parent)


def _owner(state: Path) -> str:
    try:
        return str(unseal(state / IDENTITY).get("bundle_id"))
    except StateError:
        return ""


def _clear(places: Places) -> None:
    for folder in (*places.next(), *places.undone()):
        remove_folder(folder)
