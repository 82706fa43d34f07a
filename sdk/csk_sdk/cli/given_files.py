"""Files and folders that a command is given."""

from __future__ import annotations

from pathlib import Path

from csk_sdk.data.files import READ, SUFFIXES
from csk_sdk.errors import ConfigError


def files_at(path: Path) -> list[Path]:
    """A file as it is; of a folder the images and signals in it, by name. Raises ConfigError where it has none."""
    if not path.is_dir():
        return [path]
    found = _read_in(path)
    if not found:
        raise ConfigError(f"{path} holds no image and no signal ({READ}).{_below(path)}")
    return found


def images_below(path: Path) -> list[Path]:
    """The same without labels: of a folder of folders, such as a task's classes, what is in all of these."""
    if not path.is_dir() or _read_in(path):
        return files_at(path)
    return [inner for one in _folders_in(path) for inner in _read_in(one)] or files_at(path)


def _read_in(folder: Path) -> list[Path]:
    """The images and signals that lie directly in a folder, by name."""
    return sorted(
        one
        for one in folder.iterdir()
        if one.suffix.lower() in SUFFIXES and one.name[0] != "." and not one.is_dir()
    )


def _folders_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.name[0] != "." and one.is_dir())


def _below(folder: Path) -> str:
    """What there is to predict in a folder's own folders, such as those of classes."""
    counts = {one.name: len(files) for one in _folders_in(folder) if (files := _read_in(one))}
    if not counts:
        return ""
    count, first = sum(counts.values()), folder / next(iter(counts))
    lie = "1 lies" if count == 1 else f"{count} lie"
    if len(counts) == 1:
        return f" {lie} in its folder {first.name}: give {first}."
    named = ", ".join(list(counts)[:3]) + (", ..." if len(counts) > 3 else "")
    return f" {lie} in its folders ({named}): give one or more of them, such as {first}."
