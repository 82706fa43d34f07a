"""What leads on from records: reading that much leaves their tasks alone, which may be hundreds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import LARGEST_TEXT, read_file
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.state.atomic import file_identity, ordinary_size
from csk_sdk.state.sealing import Texts, check_of_texts, json_texts, unseal
from csk_sdk.state.versions import read_needs

# More than a commit asks for: those with tensors, and the newest ones without.
_MOST_OUTLINES = 32
# As a record's file begins the list of its tasks.
_TASKS = b'"tasks":['


class Listed(Protocol):
    """A task that records list: its name, the contributions that it needs, and its JSON as a record's file has it."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def files(self) -> set[str]: ...  # noqa: D102

    @property
    def texts(self) -> Texts: ...  # noqa: D102


Task = TypeVar("Task")
Behind = Callable[[Sequence[str], bool], tuple[Task, ...]]
"""The tasks of blocks, for a generation whose tensors are there, or are not (`BlockFiles.tasks_behind`)."""


@dataclass(frozen=True)
class RecordLink:
    """Of a record: `number`, `parent`, when it was `created`, and how many `tasks` it has, `task` being the last one.

    `files` are those of the tasks that it lists itself in `ledger/`, `blocks` hold the others, and `stored` tells
    whether its tensors are there; `forgot` whether something was forgotten with it. Reading that much leaves the tasks
    alone, which may be hundreds.
    """

    number: int
    parent: int
    created: str
    tasks: int
    task: str
    files: frozenset[str]
    blocks: tuple[str, ...]
    stored: bool
    forgot: bool = False

    @classmethod
    def of(cls, outline: Outline, path: Path, tensors: Path, behind: Behind[Listed]) -> RecordLink:
        """Of the outline of the record `path` of the tensors file `tensors`; `behind` gives the tasks of blocks.

        Raises StateError where it is none, or a block is lost.
        """
        said = outline.said
        read_needs(said, path)
        parent, number = said.get("parent"), said.get("number")
        if type(parent) is not int or type(number) is not int or not 0 <= parent < number:
            raise StateError(f"{path} says that generation {number!r} was learned from {parent!r}.")
        if outline.tasks is None:
            raise StateError(f"{path} lacks or misnames a field ('tasks').")
        stored = ordinary_size(tensors) == said.get("size")
        created = str(said.get("created", ""))
        blocked = behind(outline.blocks, stored)
        task = blocked[-1].name if blocked and not outline.tasks else outline.task
        tasks = len(blocked) + outline.tasks
        forgot = bool(said.get("purged"))
        return cls(number, parent, created, tasks, task, outline.files, outline.blocks, stored, forgot)


@dataclass(frozen=True)
class Outline:
    """What a record has `said`, but for the tasks it lists: how many, the `last` one, and their `files` in the ledger.

    `tasks` is None where it has no list of them. `task` is the last one's name, and `last` its JSON, where there are
    others that can be left out: as values it would take some times as much memory, of each record that is known.
    """

    said: Mapping[str, Any]
    tasks: int | None
    task: str
    last: bytes
    files: frozenset[str]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Outline:
        """Of a record's JSON."""
        tasks = raw.get("tasks")
        said = {name: value for name, value in raw.items() if name != "tasks"}
        if not isinstance(tasks, list):
            return cls(said, None, "", b"", frozenset())
        last = tasks[-1] if tasks else None
        name = last.get("name") if isinstance(last, dict) else None
        shown = name if isinstance(name, str) else ""
        others = len(tasks) > 1 or said.get("blocks")
        return cls(said, len(tasks), shown, json_texts(last)[0] if tasks and others else b"", _files(tasks))

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that hold the tasks before those that it lists."""
        blocks = self.said.get("blocks")
        return tuple(one for one in blocks if isinstance(one, str)) if isinstance(blocks, list) else ()

    def shortened(self, blocked: Sequence[Listed]) -> dict[str, Any] | None:
        """The record's JSON with nothing but the last of its tasks, which may be the last of those in its blocks.

        None where it has nothing else, or cannot be read so.
        """
        if not (self.last or self.blocks):
            return None
        last = [self.last] if self.last else [task.texts[0] for task in blocked[-1:]]
        said = {name: value for name, value in self.said.items() if name != "blocks"}
        raw = {**said, "tasks": [json.loads(one) for one in last]}
        return raw if violation(raw, load_schema("record")) is None else None


class Outlines:
    """The outlines of records, each read again once its file is another.

    Threads may share it. Records grow with each task, and a commit asks for those of all stored generations. Those
    that list the first of `tasks`, of the record that was written last, and nothing else, are not parsed for them.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], Outline]] = {}
        self.tasks: Sequence[Listed] = ()

    def read(self, path: Path) -> Outline:
        """That of the record `path`. Raises as `unseal`."""
        before = file_identity(path)
        known = self._known.get(path)
        if known is not None and known[0] == before:
            return self._keep(path, before, known[1])
        outline = _outline_by(self.tasks, path) if self.tasks else None
        return self._keep(path, before, outline or Outline.of(unseal(path)))

    def wrote(self, path: Path, outline: Outline) -> None:
        """The record `path` says that now, so that it need not be read."""
        self._keep(path, file_identity(path), outline)

    def _keep(self, path: Path, identity: tuple[int, ...] | None, outline: Outline) -> Outline:
        if identity is not None:
            self._known.pop(path, None)
            self._known[path] = identity, outline
            # A device that learns for years has thousands of records: only the newest are asked for again.
            for oldest in list(self._known)[:-_MOST_OUTLINES]:
                self._known.pop(oldest, None)
        return outline


def _outline_by(tasks: Sequence[Listed], path: Path) -> Outline | None:
    """The outline of a record of the first of `tasks`; None for any other record, and for a damaged one.

    Its file has the very bytes of these tasks, and its checksum is that of what they say.
    """
    try:
        data = read_file(path, LARGEST_TEXT)
    except OSError:
        return None
    place = data.find(_TASKS)
    if place < 0:
        return None
    begin = end = place + len(_TASKS)
    listed: list[Listed] = []
    for task in tasks:
        if not data.startswith(task.texts[0], end):
            break
        end += len(task.texts[0]) + 1
        listed.append(task)
        if data[end - 1 : end] != b",":
            break
    if not listed or data[end - 1 : end] != b"]":
        return None
    try:
        said = json.loads(data[:begin] + data[end - 1 :])
    except (ValueError, RecursionError):
        return None
    # Where the name is found in another place than the list's, the checksum is another.
    if not isinstance(said, dict) or said.pop("tasks", None) != []:
        return None
    check = said.pop("check", None)
    texts = {name: json_texts(value) for name, value in said.items()}
    if check != check_of_texts(texts, {"tasks": (task.texts for task in listed)}):
        return None
    last = listed[-1].texts[0] if len(listed) > 1 or said.get("blocks") else b""
    files: frozenset[str] = frozenset().union(*(task.files for task in listed))
    return Outline(said, len(listed), listed[-1].name, last, files)


def _files(tasks: Iterable[Any]) -> frozenset[str]:
    """The contributions that tasks of a record list, as far as they are what they should be."""
    kinds = [
        task.get(kind) for task in tasks if isinstance(task, dict) for kind in ("contributions", "carried")
    ]
    files = (file for kind in kinds if isinstance(kind, dict) for file in kind.values())
    return frozenset(file for file in files if isinstance(file, str) and file)
