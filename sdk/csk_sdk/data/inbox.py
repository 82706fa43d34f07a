"""The inbox: a folder of tasks that wait to be learned, `tasks/` of a workspace."""

from __future__ import annotations

import os
from pathlib import Path

from csk_sdk.data.tasks import Task
from csk_sdk.errors import TaskError
from csk_sdk.formats.given import path_of, text_of
from csk_sdk.formats.places import INBOX, mistaken

# Names that other folders of csk-sdk have; tasks may have some of them, too.
_SUSPICIOUS = frozenset({"manifest.json", "state.json", "HEAD", "csk.toml", "bundle", "train", "test"})


class Inbox:
    """Tasks by name, in `folder`. A task is a sub-folder or a `.npz` file; hidden ones are ignored.

    bit_depth: how many bits of their images' 16-bit values count, as in `Task.open`. Nothing is kept: each call looks
    at the folder as it is, so threads may share an inbox, and tasks may arrive meanwhile.
    """

    def __init__(self, folder: Path | str, bit_depth: int | None = None) -> None:
        self.folder = path_of(folder, "The folder of tasks", TaskError)
        self._bit_depth = bit_depth

    def names(self) -> list[str]:
        """Return the tasks' names in plain string order, in which they are learned; empty without a folder.

        Raises TaskError when two tasks have one name, or the folder cannot be listed.
        """
        return sorted(self.paths())

    def open(self, name: str) -> Task:
        """Open a task by its name. Raises TaskError when there is none of this name, or it is no good."""
        text_of(name, "name", TaskError)
        found = self.found()
        if name not in found:
            there = f"it has {', '.join(sorted(found))}" if found else "it has no tasks at all"
            there = there if os.path.lexists(self.folder) else "there is no such folder"
            raise TaskError(f"There is no task '{name}' in {self.folder}: {there}.")
        return Task.open(self._only(name, found[name]), self._bit_depth)

    def require_folder(self) -> None:
        """Raise TaskError where there is no such folder, for what cannot do without: an inbox may come later."""
        self.require_no_file()
        if not os.path.lexists(self.folder):
            raise TaskError(
                f"There is no folder {self.folder}, where tasks are looked for: make it, or name another with --tasks."
            )

    def require_no_file(self) -> None:
        """Raise TaskError where a file has the folder's name: no task will ever come there."""
        if self.folder.is_file():
            raise TaskError(mistaken(self.folder, INBOX))

    def paths(self) -> dict[str, Path]:
        """Where each task lies, by its name; empty without a folder. Raises TaskError as `names` does."""
        return {name: self._only(name, paths) for name, paths in self.found().items()}

    def found(self) -> dict[str, list[Path]]:
        """What is there under each task's name, which `open` may refuse; empty without a folder.

        Raises TaskError when the folder cannot be listed.
        """
        found: dict[str, list[Path]] = {}
        names: set[str] = set()
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    names.add(entry.name)
                    if (name := _task_name(entry)) is not None:
                        found.setdefault(name, []).append(Path(entry.path))
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            said = mistaken(self.folder, INBOX)
            raise TaskError(said or f"{self.folder} is not a folder of tasks: give a folder.") from None
        except OSError as error:
            raise TaskError(
                f"{self.folder} cannot be listed ({error.strerror}): check its permissions."
            ) from None
        if not _SUSPICIOUS.isdisjoint(names) and (said := mistaken(self.folder, INBOX)) is not None:
            raise TaskError(said)
        return found

    def _only(self, name: str, paths: list[Path]) -> Path:
        if len(paths) > 1:
            raise TaskError(
                f"{self.folder} holds both {name}/ and {name}.npz, and a task's name must be its "
                "own: rename or remove one of them."
            )
        return paths[0]


def _task_name(entry: os.DirEntry[str]) -> str | None:
    """The name of the task that a folder's entry is, None for what is none."""
    if entry.name.startswith("."):
        return None
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link to what may not be seen: opening it says why
        is_folder = not entry.name.endswith(".npz")
    if is_folder:
        return entry.name
    return Path(entry.name).stem if entry.name.endswith(".npz") else None
