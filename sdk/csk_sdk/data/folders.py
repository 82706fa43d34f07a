"""What a task's folder holds: one sub-folder for each class, and nothing from outside."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from csk_sdk.data.files import READ, SUFFIXES
from csk_sdk.errors import TaskError

# What systems put into folders by themselves.
_NOBODYS = frozenset({"thumbs.db", "desktop.ini"})


class Unread:
    """What lies where a task's files are looked for, and is none of them; hidden files do not count."""

    def __init__(self) -> None:
        self._suffixes: Counter[str] = Counter()
        self._folders: list[Path] = []
        self._first: Path | None = None

    def add(self, path: Path) -> None:
        """A file, or a folder where there should be none."""
        if path.is_dir():
            self._folders.append(path)
        elif path.name.lower() not in _NOBODYS:
            self._suffixes[path.suffix.lower() or "without suffix"] += 1
            self._first = self._first or path

    def sentences(self, folder: Path) -> tuple[str, ...]:
        """What to tell of it, for the folder that was read; nothing where there is nothing."""
        said = []
        if (count := self._suffixes.total()) and self._first is not None:
            kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(self._suffixes.items()))
            heif = {
                ".heic",
                ".heif",
            } & self._suffixes.keys() and " (HEIC is read where pillow-heif is installed)"
            said.append(
                f"{count} {'file' if count == 1 else 'files'} in {folder} {'was' if count == 1 else 'were'} not read: "
                f"{kinds}, such as {self._first.relative_to(folder)}. Read are {READ}{heif or ''}."
            )
        if self._folders:
            named = ", ".join(str(path.relative_to(folder)) for path in self._folders[:3])
            more = ", ..." if len(self._folders) > 3 else ""
            said.append(
                f"Folders inside a class are not read: {named}{more} in {folder}. Move their files up into the class."
            )
        return tuple(said)


def files_by_class(folder: Path, unread: Unread | None = None) -> dict[str, list[Path]]:
    """Class name -> its images or signals, for `NAME/train` or `NAME/test`, all in the order of their names.

    Hidden files are ignored, and those with other suffixes are put into `unread`. Raises TaskError where there is no
    class, a class has no file, something is neither file nor folder, cannot be read, or is a link that leads out of
    `NAME`.
    """
    root, unread = folder.parent, unread or Unread()
    _require_inside(folder, root)
    classes = {}
    for class_folder in _visible(folder, root):
        if not class_folder.is_dir():
            unread.add(class_folder)
            continue
        files, others = [], Unread()
        for path in _visible(class_folder, root):
            if path.suffix.lower() in SUFFIXES and not path.is_dir():
                files.append(path)
            else:
                unread.add(path)
                others.add(path)
        if not files:
            beside = " ".join(("", *others.sentences(class_folder)))
            raise TaskError(
                f"{class_folder} holds no image and no signal ({READ}): put some of '{class_folder.name}' into it, "
                f"or remove the folder.{beside}"
            )
        classes[class_folder.name] = files
    if not classes:
        raise TaskError(f"{folder} has no class folders: put the task's images into {folder}/<class>/.")
    return classes


def is_folder(path: Path) -> bool:
    """`Path.is_dir`, which takes what may not be looked at for a no. Raises OSError for that."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _visible(folder: Path, root: Path) -> list[Path]:
    """What is in `folder`, by name, without what is hidden; all of it is inside `root`, also where it is a link.

    A task that came from outside must not reach what else is on the device, or wait for a pipe or a device file.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
        for one in found:
            path = Path(one.path)
            if one.is_symlink():
                _require_inside(path, root)
            if not (one.is_file() or one.is_dir()) and path.exists():
                raise TaskError(f"{path} is neither a file nor a folder: remove it.")
    except OSError as error:
        raise TaskError(f"{folder} cannot be read ({error.strerror}): check its permissions.") from None
    return [Path(one.path) for one in found]


def _require_inside(path: Path, root: Path) -> None:
    if path.exists() and not path.resolve().is_relative_to(root.resolve()):
        raise TaskError(f"{path} is a link that leads out of {root}: put the file or folder itself there.")
