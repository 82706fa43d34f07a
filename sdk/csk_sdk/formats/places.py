"""Which kind of folder is this? A wrong one is recognised, and the right one beside it named.

A bundle given as workspace, a state as tasks, the folder above or one inside: each would be "empty" to whoever
looks for something else in it, and a state would be written into it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from csk_sdk.errors import ConfigError
from csk_sdk.formats.opening import open_file

WORKSPACE, BUNDLE, STATE, INBOX, TASK = "workspace", "bundle", "state", "inbox", "task"
_A = {
    WORKSPACE: "a workspace",
    BUNDLE: "a bundle",
    STATE: "a state",
    INBOX: "a folder of tasks",
    TASK: "a task",
}
# How each is given, where nothing of the wanted kind is near.
_GIVEN = {
    WORKSPACE: "as --workspace",
    BUNDLE: "as --bundle",
    STATE: "as --state",
    INBOX: "as --tasks",
    TASK: "by its name with --task, and the folder that it is in as --tasks",
}
_PARTS = {BUNDLE: "bundle", STATE: "state", INBOX: "tasks"}
_OURS = {BUNDLE: "checkpoint.safetensors", STATE: "generations"}
_STATE_PARTS = ("generations", "scores")
_MOST_LOOKED_AT = 100
# From a class's folder up to the workspace: class, train, task, tasks.
_LEVELS = 4


def kind_of(folder: Path) -> str | None:
    """What a folder is to csk-sdk, or None; looks at names only."""
    kind = _by_files(folder)
    if kind is not None:
        return kind
    if _is_task(folder):
        return TASK
    return INBOX if any(_is_task(child) for child in _folders(folder)) else None


def _by_files(folder: Path) -> str | None:
    """The same of what names of its own files say: of images, folders in it would have to be looked at."""
    if os.path.lexists(folder / "manifest.json"):
        return BUNDLE
    if os.path.lexists(folder / "state.json") or (
        os.path.lexists(folder / "HEAD") and (folder / "generations").is_dir()
    ):
        return STATE
    if os.path.lexists(folder / "csk.toml") or os.path.lexists(folder / "bundle" / "manifest.json"):
        return WORKSPACE
    return None


def mistaken(folder: Path, wanted: str) -> str | None:
    """The sentence for a folder that is not of the `wanted` kind but plainly another; None where nothing is plain."""
    here = Path(os.path.normpath(folder.absolute()))
    if os.path.isfile(here):  # noqa: PTH113 - a disk that does not answer is no reason to say so
        return f"{here} is a file, not {_A[wanted]}: give a folder."
    kind = kind_of(here)
    if kind == wanted or not here.is_dir():
        return None
    near = _near(here, kind, wanted)
    if near is None:
        return kind and f"{here} is {_A[kind]}, not {_A[wanted]}: give it {_GIVEN[kind]}."
    if kind is not None:
        return f"{here} is {_A[kind]}, not {_A[wanted]}: give {near}."
    if wanted == STATE and here.name not in _STATE_PARTS:
        return None  # a new state may lie anywhere, beside another, too
    where = f"is inside {_A[wanted]}" if here.is_relative_to(near) else f"is not {_A[wanted]}"
    return f"{here} {where}: give {near}."


def kept_whole(path: Path) -> str | None:
    """The sentence for a file that would be written into a bundle or a state; None for any other place."""
    here = Path(os.path.realpath(path))
    for parent in islice(here.parents, _LEVELS):
        kind = kind_of(parent)
        # Other programs have a manifest.json or a state.json, too; these have more of what is ours.
        if kind in _OURS and os.path.lexists(parent / _OURS[kind]):
            return (
                f"{path} would lie in {_A[kind]}, {parent}, where only csk-sdk's own files are: "
                "choose another --out."
            )
    return None


def require_place(path: Path, what: str, is_one: Callable[[BinaryIO], bool]) -> None:
    """Raise ConfigError where `what` must not be written: in a bundle or a state, over something else or a folder.

    `is_one` is that of `would_be_lost`.
    """
    said = kept_whole(path) or would_be_lost(path, what, is_one)
    if said is not None:
        raise ConfigError(said)


def would_be_lost(path: Path, what: str, is_one: Callable[[BinaryIO], bool]) -> str | None:
    """The sentence for what is at `path` and is none of `what`, which alone may be replaced, or an empty file.

    `is_one` tells of an open file whether it is; raising ValueError is a no. None where nothing would be lost.
    """
    try:
        if path.is_dir():
            return (
                f"{path} is a folder, and {what} is a file: give a file's name, in that folder or elsewhere."
            )
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size == 0 or is_one(file):
                return None
        reason = ""
    except FileNotFoundError:
        return None
    except ValueError:
        reason = ""
    except OSError as error:
        reason = f" ({error.strerror})"
    return f"{path} is there and is not {what}{reason}: it would be lost. Choose another --out, or remove it first."


def _near(here: Path, kind: str | None, wanted: str) -> Path | None:
    """What is of the wanted kind around a folder: in front of it, below it, or in the same workspace."""
    above = list(islice(here.parents, _LEVELS))
    around = kind_of if wanted in (TASK, INBOX) else _by_files
    for parent in above:
        if around(parent) == wanted:
            return parent
    if wanted in _PARTS:
        for place in (here, *above):
            if _by_files(place) == WORKSPACE and (place == here or kind is not None):
                return place / _PARTS[wanted]
    return next((child for child in _folders(here) if around(child) == wanted), None)


def _is_task(folder: Path) -> bool:
    """Whether there is a train/ or test/ that holds no tasks itself: an inbox may have a task of that name."""
    splits = [folder / split for split in ("train", "test") if (folder / split).is_dir()]
    return bool(splits) and not any((one / split).is_dir() for one in splits for split in ("train", "test"))


def _folders(folder: Path) -> Iterator[Path]:
    """The first folders in it that are not hidden, in no order."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _MOST_LOOKED_AT):
            if not entry.name.startswith(".") and entry.is_dir():
                yield Path(entry.path)
