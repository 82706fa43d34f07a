"""What a task's folder holds: one sub-folder for each class, and nothing from outside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from csk_sdk.data.files import SUFFIXES
from csk_sdk.errors import TaskError


def files_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its pictures or signals, for `NAME/train` or `NAME/test`, all in the order of their names.

    Hidden files and those with other suffixes are ignored. Raises TaskError where there is no class, a class has no
    file, something is neither file nor folder, cannot be read, or is a link that leads out of `NAME`.
    """
    root = folder.parent
    _require_inside(folder, root)
    classes = {}
    for class_folder in _visible(folder, root):
        if class_folder.is_dir():
            files = [path for path in _visible(class_folder, root) if path.suffix.lower() in SUFFIXES]
            if not files:
                raise TaskError(
                    f"{class_folder} holds no picture (png, jpg, jpeg, bmp, webp) and no signal (wav, npy): put "
                    f"some of '{class_folder.name}' into it, or remove the folder."
                )
            classes[class_folder.name] = files
    if not classes:
        raise TaskError(f"{folder} has no class folders: put the task's pictures into {folder}/<class>/.")
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
