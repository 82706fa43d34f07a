"""Blocks: tasks that lie further back, with their heads and rows, in files that later commits need not write again.

    blocks/SHA256.safetensors       some tasks' records and heads, and rows of the tensors that have one for each class
    blocks/SHA256.copy.safetensors  the same bytes once more, as soon as a second generation shares the block

A generation's record lists its blocks, oldest first. Its tasks are those of its blocks and then its own; a tensor of
rows is made of the parts in its blocks and then the one in its own file; everything else is in its own file
(docs/state.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import is_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import StateError
from csk_sdk.formats.schema import LoadedSchema, load_schema, violation
from csk_sdk.formats.stored_tensors import InFiles, JoinedTensors, StoredTensors
from csk_sdk.state.atomic import UnreadableError
from csk_sdk.state.content_files import ENDING, ContentFiles
from csk_sdk.state.generation import LearnedTask, tasks_of
from csk_sdk.state.settings import parse_shared, put_back
from csk_sdk.state.tensorfile import encode

BLOCK_CLASSES = integer("state", "block_classes")
"""A block holds the oldest tasks with so many classes together."""

ROWS = ("statistics.means", "familiarity.margins", "familiarity.oddness")
"""Tensors to which each class adds a row that stays as it is while no center moves."""

TASKS = "tasks"
"""The tensor of a block that holds its tasks, as JSON."""

Tensors = Mapping[str, NDArray[Any]]


class Extent(NamedTuple):
    """How many tasks, and how many rows, a block holds."""

    tasks: int
    rows: int


@dataclass(frozen=True)
class Block:
    """What is known of a block: its tasks, also as it has `listed` them, and how many rows it has of each tensor."""

    tasks: tuple[LearnedTask, ...]
    rows: int
    listed: bytes

    @property
    def extent(self) -> Extent:
        """How much it holds."""
        return Extent(len(self.tasks), self.rows)

    @cached_property
    def files(self) -> frozenset[str]:
        """The contributions that its tasks need."""
        return frozenset().union(*(task.files for task in self.tasks))


@dataclass(frozen=True)
class Divided:
    """The names of a generation's blocks, how many tasks lie in them, and what is left for its own file."""

    names: tuple[str, ...]
    tasks: int
    rest: dict[str, NDArray[Any]]


def layout(classes: Sequence[int], rows: int, before: Iterable[Extent]) -> list[Extent]:
    """How many tasks, of so many `classes` each, and how many of the `rows` each block holds, the oldest first.

    As far as it fits, that is how it was `before`: then a block stays the file that it is. What is left is less than
    BLOCK_CLASSES classes, and not more than twice as many rows.
    """
    found: list[Extent] = []
    task = row = 0
    for block in before:
        if task + block.tasks > len(classes) or row + block.rows > rows:
            break
        found.append(block)
        task, row = task + block.tasks, row + block.rows
    while True:
        tasks = _filling(classes[task:])
        if not tasks and rows - row <= 2 * BLOCK_CLASSES:
            return found
        found.append(Extent(tasks, min(BLOCK_CLASSES, rows - row)))
        task, row = task + tasks, row + found[-1].rows


def _filling(classes: Sequence[int]) -> int:
    """How many of the oldest tasks fill a block; 0 where all of them do not."""
    counted = enumerate(accumulate(classes), 1)
    return next((tasks for tasks, together in counted if together >= BLOCK_CLASSES), 0)


class BlockFiles(ContentFiles):
    """`blocks/` in the state folder `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "blocks", "block", (ENDING, f".copy{ENDING}"))
        self._known: dict[str, Block] = {}

    def divide(self, tasks: Sequence[LearnedTask], tensors: Tensors, parent: Sequence[str]) -> Divided:
        """Write the blocks of a generation with these tasks and tensors, learned from one that has the blocks `parent`.

        Those that are there stay. Raises StateError where one of `parent` is lost, StorageError.
        """
        before = [self.read(name).extent for name in parent]
        extents = layout([len(task.classes) for task in tasks], rows_of(tensors), before)
        names, rest, first = [], dict(tensors), 0
        heads = heads_of(tensors)
        for index, extent in enumerate(extents):
            own = tuple(tasks[first : first + extent.tasks])
            first += extent.tasks
            content = _cut(rest, extent.rows)
            content |= {name: rest.pop(name) for task in own for name in heads.get(task.name, ())}
            old = parent[index] if index < len(parent) else None
            names.append(self._kept(old, own, content) or self._written(own, extent.rows, content))
        return Divided(tuple(names), first, rest)

    def _kept(self, old: str | None, own: Sequence[LearnedTask], content: Tensors) -> str | None:
        """The block `old`, where it holds just these tasks and tensors; both its files are there then.

        Comparing takes less time than encoding, and what another language wrote stays as it is.
        """
        if old is None or not _same(self.read(old).tasks, own):
            return None
        try:
            with closing(StoredTensors(self.place(old, again=False))) as stored:
                if not stored.holds({**content, TASKS: np.frombuffer(self.read(old).listed, np.uint8)}):
                    return None
            self.mend(old)
        except StateError:
            # Lost since it was read: all that it held is at hand.
            return None
        return old

    def _written(self, own: tuple[LearnedTask, ...], rows: int, content: Tensors) -> str:
        listed = b"[" + b",".join(task.texts[0] for task in own) + b"]"
        name = self.put(encode({TASKS: np.frombuffer(listed, np.uint8), **content}))
        self._known[name] = Block(own, rows, listed)
        return name

    def read(self, name: str) -> Block:
        """What is known of a block. Raises StateError where it is lost, or not as it should be."""
        if name not in self._known:
            path = self.place(name)
            # It is what its name says, so what goes wrong now is the disk.
            with closing(StoredTensors(path, UnreadableError)) as stored:
                rows = max(
                    (len(stored[one]) for one in ROWS if one in stored and stored[one].ndim), default=0
                )
                listed = stored[TASKS].tobytes() if TASKS in stored else b""
            self._known[name] = Block(_parsed(listed, path), rows, listed)
        return self._known[name]

    def tasks_behind(self, names: Iterable[str], stored: bool) -> tuple[LearnedTask, ...]:
        """The tasks of a generation's blocks. Raises StateError where one is lost, and its tensors are `stored`.

        Without tensors it needs no block, and has no tasks where one is lost.
        """
        try:
            return tuple(task for name in names for task in self.read(name).tasks)
        except UnreadableError:
            raise
        except StateError:
            if stored:
                raise
            return ()

    def place(self, name: str, again: bool = True) -> Path:
        """Where a block can be read; not looked at `again` where its file has been since it was written.

        Raises StateError where it is lost, UnreadableError where the disk leaves that open.
        """
        path = self.sound(name, again)
        if path is None:
            raise StateError(f"{self.path(name)} is missing or damaged, and so is its copy.")
        return path

    def join(self, names: Sequence[str], own: StoredTensors) -> InFiles:
        """All tensors of a generation that has these blocks, and its `own` file. Raises as `place`."""
        behind = [StoredTensors(self.place(name)) for name in names]
        return JoinedTensors(behind, own, TASKS) if behind else own

    def keep(self, wanted: Iterable[str]) -> list[Path]:
        """As that of all `ContentFiles`; what is known of others is forgotten, too."""
        kept = frozenset(wanted)
        self._known = {name: block for name, block in self._known.items() if name in kept}
        return super().keep(kept)


def rows_of(tensors: Tensors) -> int:
    """How many rows can be parted from others: those that all tensors of rows have."""
    return min(
        (len(tensors[name]) if tensors[name].ndim else 0 for name in ROWS if name in tensors), default=0
    )


def heads_of(tensors: Iterable[str]) -> dict[str, list[str]]:
    """The names of the tensors of each task's head."""
    heads: dict[str, list[str]] = {}
    for name in tensors:
        kind, _, rest = name.partition("/")
        if kind == "head":
            heads.setdefault(rest.rpartition("/")[0], []).append(name)
    return heads


def _cut(rest: dict[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    """The first rows of each tensor of rows, and `rest` without them."""
    found: dict[str, NDArray[Any]] = {}
    for name in ROWS if rows else ():
        if name in rest:
            found[name], rest[name] = rest[name][:rows], rest[name][rows:]
            if not len(rest[name]):
                del rest[name]
    return found


def _same(one: Sequence[LearnedTask], other: Sequence[LearnedTask]) -> bool:
    """Whether they are the very same objects: then a block need not be put into words again."""
    return len(one) == len(other) and all(map(is_, one, other))


def _parsed(listed: bytes, path: Path) -> tuple[LearnedTask, ...]:
    try:
        raw, settings = parse_shared(b'{"%s":%s}' % (TASKS.encode(), listed))
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} cannot be read ({error}).") from error
    put_back(raw, settings)
    if (wrong := violation(raw, _OF_BLOCK)) is not None:
        raise StateError(f"{path}: {wrong}.")
    return tasks_of(raw[TASKS])


_OF_BLOCK = LoadedSchema(
    {"type": "object", "properties": {TASKS: load_schema("record")["properties"]["tasks"]}}
)
