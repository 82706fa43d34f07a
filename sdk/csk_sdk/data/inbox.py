"""The inbox: a folder of tasks that wait to be learned, `tasks/` of a workspace."""

from __future__ import annotations

from pathlib import Path

from csk_sdk.data.tasks import Task
from csk_sdk.errors import TaskError


class Inbox:
    """Tasks by name. A task is a sub-folder or a `.npz` file; hidden ones are ignored.

    bit_depth: how many bits of their pictures' 16-bit values count, as in `Task.open`.
    """

    def __init__(self, folder: Path | str, bit_depth: int | None = None) -> None:
        self.folder = Path(folder)
        self._bit_depth = bit_depth

    def names(self) -> list[str]:
        """Return the tasks' names in plain string order, in which they are learned; empty without a folder.

        Raises TaskError when two tasks have one name, or the folder cannot be listed.
        """
        return sorted(self.paths())

    def open(self, name: str) -> Task:
        """Open a task by its name. Raises TaskError when there is none of this name, or it is no good."""
        paths = self.paths()
        if name not in paths:
            there = f"it has {', '.join(sorted(paths))}" if paths else "it has no tasks at all"
            raise TaskError(f"There is no task '{name}' in {self.folder}: {there}.")
        return Task.open(paths[name], self._bit_depth)

    def paths(self) -> dict[str, Path]:
        """Where each task lies, by its name; empty without a folder. Raises TaskError as `names` does."""
        if not self.folder.exists():
            return {}
        paths: dict[str, Path] = {}
        try:
            for path in self.folder.iterdir():
                is_folder = path.is_dir()
                if path.name.startswith(".") or not (is_folder or path.suffix == ".npz"):
                    continue
                name = path.name if is_folder else path.stem
                if name in paths:
                    raise TaskError(
                        f"{self.folder} holds both {name}/ and {name}.npz, and a task's name must be its "
                        "own: rename or remove one of them."
                    )
                paths[name] = path
        except OSError as error:
            raise TaskError(
                f"{self.folder} cannot be listed ({error.strerror}): check its permissions."
            ) from None
        return paths
