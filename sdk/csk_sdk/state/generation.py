"""What a state remembers: learned tasks, generations, and the small JSON records on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.opening import LARGEST_TEXT, RefusedError, read_file
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.formats.stored_tensors import StoredTensors
from csk_sdk.method.contributions import DIRECTIONS, MIXTURES
from csk_sdk.state.atomic import unreadable
from csk_sdk.state.versions import WRITTEN, Needs

# More than a commit asks for: those with tensors, and the newest ones without.
_MOST_OUTLINES = 64
# Of one task, beside the names of its classes.
_RECORD_BYTES = 4096
# Of a contribution's file, beside its numbers.
_CONTRIBUTION_BYTES = 256


@dataclass(frozen=True)
class LearnedTask:
    """A task that was learned, and what it took.

    `images` is the number of training images, `seconds` wall time, `loss` the mean loss of the last epoch,
    `peak_rss_bytes` the process's peak memory, `config` the settings used (JSON values), `protected` by site how
    many of the selected channels' directions were kept for older knowledge, as "r/k", `notes` what its user was warned
    of. `contributions` names by class the file in `ledger/` of what the task contributed under the bundle's untouched
    network, "" where a later lesson replaced it; `carried` the same as it is counted now, where centers have moved.
    `temperature` is what was measured on the task, where the bundle brings none; `expected` how often decisions were
    expected to be right, as `LearnReport` has it. `shared` are classes whose contribution is counted in the task that
    holds what a fleet knows, whose `fleet` is the sha256 of the knowledge that was applied.
    What an older csk-sdk did not record is empty; `more` are fields that a newer one recorded, kept as they are.
    """

    name: str
    classes: tuple[str, ...]
    epochs: int
    images: int
    seconds: float
    loss: float
    peak_rss_bytes: int
    config: dict[str, Any]
    protected: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    contributions: dict[str, str] = field(default_factory=dict)
    carried: dict[str, str] = field(default_factory=dict)
    temperature: float | None = None
    expected: dict[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    fleet: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """The files in `ledger/` that the task needs."""
        return {name for names in (self.contributions, self.carried) for name in names.values() if name}

    def to_json(self) -> dict[str, Any]:
        """The task as a record has it."""
        return _flat(self, _TASK_FIELDS)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> LearnedTask:
        """Of the JSON of a record that fulfils its schema."""
        known, more = _divided(raw, _TASK_FIELDS)
        return cls(
            **{
                **known,
                "classes": tuple(raw["classes"]),
                **{name: tuple(raw.get(name, ())) for name in ("notes", "shared")},
            },
            more=more,
        )


@dataclass(frozen=True)
class Generation:
    """Everything learned up to one commit.

    `tasks` are all tasks learned so far, oldest first; `parent` is the generation it was learned from
    (None for generation 0, the bundle's own checkpoint); `created` is ISO-8601 in UTC, empty for
    generation 0. The tensors' names and shapes are the learner's. `hidden` are classes of the base that are not to be
    counted.
    """

    number: int
    parent: int | None
    tasks: tuple[LearnedTask, ...]
    tensors: Mapping[str, np.ndarray]
    created: str = ""
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationRecord:
    """The record of a committed generation: a Generation without its tensors.

    `sha256` and `size` (bytes) are those of the tensors file; `stored` tells whether that file is still
    there with that size (old ones are pruned). `purged` are the numbers of generations that went when this one was
    committed, since they held what was to be forgotten. `needs` says who may read and write it, and `more` are fields
    of a newer csk-sdk, which the generations learned from this one carry on.
    """

    number: int
    parent: int
    created: str
    tasks: tuple[LearnedTask, ...]
    sha256: str
    size: int
    hidden: tuple[str, ...] = ()
    purged: tuple[int, ...] = ()
    stored: bool = True
    needs: Needs = WRITTEN
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The name of the task learned last."""
        return self.tasks[-1].name if self.tasks else ""

    def to_bytes(self) -> bytes:
        """The record as sealed JSON."""
        tasks = [task.to_json() for task in self.tasks]
        return seal({**_flat(self, _RECORD_FIELDS), "tasks": tasks, **self.needs.to_json()})

    @classmethod
    def read(cls, path: Path, tensors: Path) -> GenerationRecord:
        """Read the record `path` of the tensors file `tensors`.

        Raises StateError, naming the file, when it is missing or damaged; NewerStateError where only a newer csk-sdk
        may read it.
        """
        raw = unseal(path)
        needs = read_needs(raw, path)
        if (wrong := violation(raw, load_schema("record"))) is not None:
            raise StateError(f"{path}: {wrong}.")
        # Hundreds of tasks, most of them learned with the same settings: one dict for all of these.
        configs: dict[str, Any] = {}
        tasks = tuple(
            LearnedTask.from_json(
                {**task, "config": configs.setdefault(repr(task["config"]), task["config"])}
            )
            for task in raw["tasks"]
        )
        stored = _size(tensors) == raw["size"]
        known, more = _divided(raw, _RECORD_FIELDS)
        more = {name: value for name, value in more.items() if name not in Needs.NAMES}
        known |= {"tasks": tasks, **{name: tuple(known.get(name, ())) for name in ("hidden", "purged")}}
        record = cls(**known, stored=stored, needs=needs, more=more)
        if not 0 <= record.parent < record.number:
            # A parent that is no older would lead the way back in a circle.
            raise StateError(f"{path} says that generation {record.number} was learned from {record.parent}.")
        return record


# Fields that the first states did not have.
LATER = frozenset(
    {"contributions", "carried", "temperature", "expected", "shared", "fleet", "hidden", "purged"}
)
_TASK_FIELDS = tuple(one.name for one in fields(LearnedTask) if one.name != "more")
_RECORD_FIELDS = tuple(
    one.name for one in fields(GenerationRecord) if one.name not in ("stored", "needs", "more")
)


def commit_bytes(
    parent: Generation, classes: Sequence[str], features: int, images: int | None, trained: bool
) -> int:
    """How many bytes the generation after `parent` will take, about: with a head, and means, of these classes more.

    And with what they contribute, of so many `images` (None: of many); twice where centers are `trained`.
    """
    held = parent.tensors
    size = held.nbytes if isinstance(held, StoredTensors) else sum(one.nbytes for one in held.values())
    rows = len(classes) * (DIRECTIONS + MIXTURES)
    rows = len(classes) + (rows if images is None else min(rows, images))
    contributed = 4 * features * rows + len(classes) * _CONTRIBUTION_BYTES
    if trained:
        contributed *= 2
        size += 0 if "ledger.map" in held else 4 * features**2
    # A head and a mean for each class, in float32; contributions; a record, with the names; HEAD.
    size += 4 * len(classes) * (2 * features + 1) + contributed
    return size + sum(map(len, classes)) + _RECORD_BYTES


@dataclass(frozen=True)
class RecordLink:
    """Of a record: `number`, `parent`, when it was `created`, and how many `tasks` it lists, `task` being the last one.

    `files` are those of all its tasks in `ledger/`, and `stored` tells whether its tensors are there. Reading that much
    leaves the tasks alone, which may be hundreds.
    """

    number: int
    parent: int
    created: str
    tasks: int
    task: str
    files: frozenset[str]
    stored: bool

    @classmethod
    def of(cls, outline: Mapping[str, Any], path: Path, tensors: Path) -> RecordLink:
        """Of the outline of the record `path` of the tensors file `tensors`. Raises StateError where it is none."""
        read_needs(outline, path)
        parent, tasks, number = (outline.get(name) for name in ("parent", "tasks", "number"))
        if type(parent) is not int or type(number) is not int or not 0 <= parent < number:
            raise StateError(f"{path} says that generation {number!r} was learned from {parent!r}.")
        if not isinstance(tasks, int):
            raise StateError(f"{path} lacks or misnames a field ('tasks').")
        stored = _size(tensors) == outline.get("size")
        return cls(
            number, parent, str(outline.get("created", "")), tasks, outline["task"], outline["files"], stored
        )


class Outlines:
    """What records say, but for their tasks: of those, how many, the last one's name, and their `files` in the ledger.

    A record is read again once its file is another.

    Threads may share it. Records grow with each task, and a commit asks for those of all stored generations.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}

    def read(self, path: Path) -> Mapping[str, Any]:
        """Of the record `path`; its `tasks` are their number, None where it has no list of them. Raises as `unseal`."""
        before = file_identity(path)
        known = self._known.get(path)
        if known is not None and known[0] == before:
            return known[1]
        raw = unseal(path)
        tasks = raw.get("tasks")
        listed = tasks if isinstance(tasks, list) else None
        outline = {
            **raw,
            "tasks": None if listed is None else len(listed),
            "task": _name_of_last(listed or ()),
            "files": _files(listed or ()),
        }
        if before is not None:
            self._known.pop(path, None)
            self._known[path] = before, outline
            # A device that learns for years has thousands of records: only the newest are asked for again.
            for oldest in list(self._known)[:-_MOST_OUTLINES]:
                self._known.pop(oldest, None)
        return outline


def _name_of_last(tasks: Sequence[Any]) -> str:
    last = tasks[-1] if tasks else None
    name = last.get("name") if isinstance(last, dict) else None
    return name if isinstance(name, str) else ""


def _files(tasks: Iterable[Any]) -> frozenset[str]:
    """The contributions that tasks of a record list, as far as they are what they should be."""
    kinds = [
        task.get(kind) for task in tasks if isinstance(task, dict) for kind in ("contributions", "carried")
    ]
    files = (file for kind in kinds if isinstance(kind, dict) for file in kind.values())
    return frozenset(file for file in files if isinstance(file, str) and file)


def file_identity(path: Path) -> tuple[int, ...] | None:
    """What is another once a file is replaced; None where nobody can tell."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_needs(raw: Mapping[str, Any], path: Path) -> Needs:
    """Who may read and write what the sealed JSON of `path` belongs to.

    Raises NewerStateError where only a newer csk-sdk may read it, StateError where it does not say that right.
    """
    try:
        needs = Needs.of(raw)
    except ValueError as error:
        raise StateError(f"{path} has a value of a wrong type ({error}).") from None
    needs.require_reader(path)
    return needs


def _flat(record: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a record, and beside them those of a newer csk-sdk; of later fields, those that say something."""
    own = {name: getattr(record, name) for name in names}
    return {**record.more, **{name: value for name, value in own.items() if value or name not in LATER}}


def _divided(raw: Mapping[str, Any], names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of these names, and those of a newer csk-sdk."""
    more = {name: value for name, value in raw.items() if name not in names}
    return {name: value for name, value in raw.items() if name in names}, more


def _size(path: Path) -> int | None:
    """The bytes of an ordinary file; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_size if S_ISREG(status.st_mode) else None


def seal(record: Mapping[str, Any]) -> bytes:
    """`record` as JSON with a checksum in its field `check`, so that damage is noticed, not believed.

    NumPy scalars become plain numbers. Raises TypeError for what JSON cannot hold.
    """
    plain = json.loads(json.dumps(dict(record), default=_plain))
    # It grows with every task, so without spaces; `csk-sdk tasks --json` is for people.
    return (json.dumps({**plain, "check": _check(plain)}, separators=(",", ":")) + "\n").encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read what `seal` wrote to `path`.

    Raises StateError, naming the file, when it is missing or damaged; UnreadableError where the disk does not give it
    back.
    """
    try:
        raw = json.loads(read_file(path, LARGEST_TEXT))
    except FileNotFoundError:
        raise StateError(f"{path} is missing.") from None
    except (RefusedError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StateError(f"{path} cannot be read ({reason}).") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not isinstance(raw, dict) or raw.pop("check", None) != _check(raw):
        raise StateError(f"{path} is damaged: its checksum does not match.")
    return raw


def _check(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
