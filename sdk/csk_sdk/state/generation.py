"""What a state remembers: learned tasks, generations, and the records of these on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from csk_sdk.errors import StateError
from csk_sdk.formats.schema import load_schema, violation
from csk_sdk.state.atomic import ordinary_size
from csk_sdk.state.outlines import Behind, Outline
from csk_sdk.state.sealing import Texts, json_texts, seal_texts, unseal
from csk_sdk.state.settings import Settings
from csk_sdk.state.versions import WRITTEN, Needs, read_needs


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

    @cached_property
    def files(self) -> set[str]:
        """The files in `ledger/` that the task needs."""
        return {name for names in (self.contributions, self.carried) for name in names.values() if name}

    @property
    def lesson(self) -> tuple[str | float | None, ...]:
        """What tells its lesson from others, also of its name: it stays whatever the classes are called later."""
        took = self.epochs, self.images, self.seconds, self.loss, self.peak_rss_bytes
        return self.name, self.fleet, *took

    def to_json(self) -> dict[str, Any]:
        """The task as a record has it."""
        return _flat(self, _TASK_FIELDS)

    @cached_property
    def texts(self) -> Texts:
        """The same as the JSON of a record's file, and of its checksum: each later record lists the task again."""
        raw = self.to_json()
        if not isinstance(self.config, Settings):
            return json_texts(raw)
        return self.config.put_into(json_texts({**raw, "config": ""})) or json_texts(raw)

    def as_written(self) -> LearnedTask:
        """The task as it will be read: NumPy's numbers are plain ones."""
        return LearnedTask.from_json(json.loads(self.texts[0]))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> LearnedTask:
        """Of the JSON of a record that fulfils its schema."""
        known, more = _divided(raw, _TASK_NAMES)
        for name in ("classes", "notes", "shared"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known, more=more)


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
    there with that size (old ones are pruned). `blocks` are the names of the blocks that hold the first `blocked` of
    the tasks, with what belongs to them. `purged` are the numbers of generations that went when this one was
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
    blocks: tuple[str, ...] = ()
    blocked: int = 0
    stored: bool = True
    needs: Needs = WRITTEN
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The name of the task learned last."""
        return self.tasks[-1].name if self.tasks else ""

    @property
    def own(self) -> tuple[LearnedTask, ...]:
        """The tasks that lie in no block."""
        return self.tasks[self.blocked :]

    def to_bytes(self) -> bytes:
        """The record as sealed JSON."""
        texts = {name: json_texts(value) for name, value in self._said().items()}
        return seal_texts(texts, {"tasks": (task.texts for task in self.own)})

    def outline(self) -> Outline:
        """What reading it would give."""
        own = self.own
        files: frozenset[str] = frozenset().union(*(task.files for task in own))
        last = own[-1].texts[0] if own and (len(own) > 1 or self.blocks) else b""
        said = {name: json.loads(json_texts(value)[0]) for name, value in self._said().items()}
        return Outline(said, len(own), own[-1].name if own else "", last, files)

    def _said(self) -> dict[str, Any]:
        """All but the tasks."""
        own = {name: value for name, value in _flat(self, _RECORD_FIELDS).items() if name != "tasks"}
        return {**own, **self.needs.to_json()}

    def without_tasks(self) -> GenerationRecord:
        """It, as it is once what it told of tasks is to be forgotten."""
        return replace(self, tasks=(), hidden=(), blocks=(), blocked=0)

    @classmethod
    def read(
        cls, path: Path, tensors: Path, behind: Behind[LearnedTask] = lambda names, stored: ()
    ) -> GenerationRecord:
        """Read the record `path` of the tensors file `tensors`; `behind` gives the tasks of blocks.

        Raises StateError, naming the file, when it, or a block, is missing or damaged; NewerStateError where only a
        newer csk-sdk may read it. Of blocks that are gone with the tensors, it has no tasks.
        """
        raw = unseal(path)
        needs = read_needs(raw, path)
        if (wrong := violation(raw, load_schema("record"))) is not None:
            raise StateError(f"{path}: {wrong}.")
        own = tasks_of(raw["tasks"])
        stored = ordinary_size(tensors) == raw["size"]
        known, more = _divided(raw, _RECORD_NAMES)
        more = {name: value for name, value in more.items() if name not in Needs.NAMES}
        known |= {name: tuple(known.get(name, ())) for name in ("hidden", "purged", "blocks")}
        blocked = behind(known["blocks"], stored)
        known |= {"tasks": (*blocked, *own), "blocked": len(blocked)}
        record = cls(**known, stored=stored, needs=needs, more=more)
        if not 0 <= record.parent < record.number:
            # A parent that is no older would lead the way back in a circle.
            raise StateError(f"{path} says that generation {record.number} was learned from {record.parent}.")
        return record


def tasks_of(raw: Iterable[dict[str, Any]]) -> tuple[LearnedTask, ...]:
    """Tasks of JSON that fulfils the schema of records. Their settings are one object where they are the same."""
    # As text: a block's, and those of a record that JavaScript wrote with spaces, were parsed one by one.
    configs: dict[str, Settings] = {}
    found = []
    for task in raw:
        if not isinstance(config := task["config"], Settings):
            task = {**task, "config": configs.setdefault(repr(config), Settings(config))}
        found.append(LearnedTask.from_json(task))
    return tuple(found)


# Fields that the first states did not have.
LATER = frozenset(
    {"contributions", "carried", "temperature", "expected", "shared", "fleet", "hidden", "purged", "blocks"}
)
_TASK_FIELDS = tuple(one.name for one in fields(LearnedTask) if one.name != "more")
_RECORD_FIELDS = tuple(
    one.name for one in fields(GenerationRecord) if one.name not in ("blocked", "stored", "needs", "more")
)
# A record may have a thousand tasks, each with as many fields to be looked up.
_TASK_NAMES, _RECORD_NAMES = frozenset(_TASK_FIELDS), frozenset(_RECORD_FIELDS)


def _flat(record: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a record, and beside them those of a newer csk-sdk; of later fields, those that say something."""
    own = {name: getattr(record, name) for name in names}
    return {**record.more, **{name: value for name, value in own.items() if value or name not in LATER}}


def _divided(raw: Mapping[str, Any], names: Set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of these names, and those of a newer csk-sdk."""
    if raw.keys() <= names:
        return dict(raw), {}
    known = {name: value for name, value in raw.items() if name in names}
    return known, {name: value for name, value in raw.items() if name not in known}
