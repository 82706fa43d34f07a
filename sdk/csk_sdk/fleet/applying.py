"""`apply`: what a fleet knows becomes part of what a device knows, as one task more, in one generation more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.bundle.signing import raw_public_key
from csk_sdk.contract.sentences import said as sentence
from csk_sdk.errors import FleetError
from csk_sdk.fleet.exporting import Own, own_of, require_cross_entropy, require_learner
from csk_sdk.fleet.files import Content, FleetFile
from csk_sdk.fleet.merging import merged_of
from csk_sdk.fleet.packing import FEW_BITS, MANY_BITS, content_id, odd, pack, unpack, unpack_sketch
from csk_sdk.formats.given import optional_path, path_of
from csk_sdk.formats.names import first_twin
from csk_sdk.formats.wording import plural
from csk_sdk.learner import Learner
from csk_sdk.learning.forgetting import merged_in
from csk_sdk.method.consensus import alike, renamed
from csk_sdk.method.contributions import Contribution
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.method.unknown import Familiarity, replace_sketch
from csk_sdk.network.knowledge import require_room
from csk_sdk.network.ledger import MAP, UnledgeredError, statistics_of
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.state import BASE, LearnedTask, State

Tensors = dict[str, NDArray[Any]]
# The task that holds what a fleet knows.
TASK = "fleet"


@dataclass(frozen=True)
class ApplyReport:
    """What `apply` did. Immutable.

    - `generation`: the current one; `changed` is False where this very knowledge was applied already
    - `task`: the task that holds what the fleet knows; `classes` are all that it knows, `new` those that this device
      had not known
    - `own`: how many of this device's contributions are counted in it
    - `notes`: sentences about what is not as one may expect
    """

    generation: int
    changed: bool
    task: str
    classes: tuple[str, ...]
    new: tuple[str, ...]
    own: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `fleet apply --json`."""
        return asdict(self)


def apply(learner: Learner, file: Path | str, *, trust: Path | str | None = None) -> ApplyReport:
    """Make what `merge` wrote to `file` part of what the device of `learner` knows: one more generation, or none.

    What the device has contributed itself is counted there from then on, and not twice. What an earlier file brought is
    replaced, so applying one again changes nothing. `learner.rollback` leads back. With `trust`, the PEM file of a
    public key and by default that of `Learner.open`, only a file signed by its holder is taken.

    Raises FleetError for a file that is damaged, of another bundle, not signed as it must be, or whose classes do not
    go together with the device's; StateLockedError while something learns, StorageError where there is no room: nothing
    is changed then.
    """
    require_learner(learner)
    path, key = path_of(file, "file"), optional_path(trust, "trust") or learner.trust
    require_cross_entropy(learner.bundle)
    opened = _trusted(FleetFile.open(path), key)
    found = _read(opened, learner.bundle)
    learner.state.require_writable()
    with learner.state.lock():
        return _Applying(learner.bundle, learner.state, found, path).run()


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a fleet knows: by class a contribution, and what is usual for its images, `(2, QUANTILES)` float32.

    `included` are the names of the contributions that it is made of.
    """

    content: Content
    contributions: dict[str, Contribution]
    sketches: dict[str, NDArray[np.float32]]
    included: frozenset[str]


def _trusted(file: FleetFile, trust: Path | None) -> FleetFile:
    if trust is not None and file.key != raw_public_key(trust):
        how = "fleet_signed_other" if file.key else "fleet_signed_none"
        raise FleetError(sentence(how, path=str(file.path), trust=f"the key of {trust}"))
    return file


def _read(file: FleetFile, bundle: Bundle) -> Knowledge:
    """What the file says, merged, and by class what is known of it; checked."""
    content = file.content
    if (content.bundle, content.features) != (bundle.id, bundle.manifest.head.features):
        raise FleetError(
            sentence("fleet_other_bundle", path=str(file.path), theirs=content.bundle[:8], own=bundle.id[:8])
        )
    require_room(content.features)
    apart = merged_of(file)
    read = file.blob if apart is None else apart.blobs.__getitem__
    content = content if apart is None else apart.content
    assert content.merged is not None
    found, sketches = {}, {}
    for one in content.merged.classes:
        found[one.name] = unpack(read(one.id), content.features)
        if (wrong := odd(found[one.name])) is not None:
            raise FleetError(sentence("fleet_odd", path=str(file.path), wrong=wrong, name=one.name))
        row = unpack_sketch(read(one.sketch)) if one.sketch else None
        if row is not None:
            sketches[one.name] = row
    if not found:
        raise FleetError(sentence("fleet_no_class", path=str(file.path)))
    listed = read(content.merged.included).hex()
    included = frozenset(listed[start : start + 64] for start in range(0, len(listed), 64))
    return Knowledge(content, found, sketches, included)


class _Applying:
    """One file on its way into one generation."""

    def __init__(self, bundle: Bundle, state: State, found: Knowledge, path: Path) -> None:
        self._bundle, self._state, self._found, self._path = bundle, state, found, path
        self._generation = state.load()

    def run(self) -> ApplyReport:
        before, base = self._generation, self._bundle.manifest.classes
        known = {*base, *(name for task in before.tasks for name in task.classes)}
        own = self._own_tasks()
        task = self._task(own)
        self._require_names(own, task)
        tasks = (*own, task)
        counted = sum(len(one.shared) for one in own)
        new = tuple(name for name in task.classes if name not in known)
        if before.tasks == tasks:
            return ApplyReport(before.number, False, task.name, task.classes, new, counted, ())
        tensors = self._tensors(tasks, task)
        notes = self._notes(task, tensors, own)
        committed = self._state.commit(before.number, tasks, tensors)
        self._state.clear_progress()
        return ApplyReport(committed.number, True, task.name, task.classes, new, counted, notes)

    def _own_tasks(self) -> tuple[LearnedTask, ...]:
        """The device's tasks, with the fleet's names, and what of them is counted in what the fleet knows."""
        learned = tuple(task for task in self._generation.tasks if task.fleet is None)
        own = own_of(self._bundle, self._state, learned)
        tasks = []
        for task in learned:
            shared = [name for name in task.classes if self._is_included(own, task.name, name)]
            tasks.append(replace(task, shared=tuple(shared)))
        for name, other in renamed(self._found.content.same).items():
            if name in self._bundle.manifest.classes:
                raise FleetError(sentence("fleet_base_name", path=str(self._path), name=name, other=other))
            tasks = [merged_in(self._state, self._bundle, task, other, name) for task in tasks]
        return tuple(tasks)

    def _is_included(self, own: Own, task: str, name: str) -> bool:
        """Whether what a task contributed to a class is part of what the fleet knows, in however many bits."""
        one = own.contributions.get((task, name))
        packed = (pack(one, bits) for bits in (FEW_BITS, MANY_BITS)) if one is not None else ()
        return any(content_id(blob) in self._found.included for blob in packed)

    def _task(self, own: Sequence[LearnedTask]) -> LearnedTask:
        """The task of what the fleet knows: as it is where this very knowledge is here."""
        knowledge, merged = self._found.content.knowledge, self._found.content.merged
        assert merged is not None
        for task in self._generation.tasks:
            if task.fleet == knowledge and set(task.classes) == set(self._found.contributions):
                return task
        taken = {BASE, *(task.name for task in own)}
        name = next(
            one for one in (TASK, *(f"{TASK}-{n}" for n in range(2, len(taken) + 3))) if one not in taken
        )
        files = {
            one: self._state.keep_contribution(found.tensors())
            for one, found in self._found.contributions.items()
        }
        images = round(sum(one.count for one in self._found.contributions.values()))
        return LearnedTask(
            name=name,
            classes=tuple(files),
            epochs=0,
            images=images,
            seconds=0.0,
            loss=0.0,
            peak_rss_bytes=0,
            config={"class_statistics": True},
            contributions=files,
            temperature=merged.temperature,
            fleet=knowledge,
        )

    def _require_names(self, own: Sequence[LearnedTask], task: LearnedTask) -> None:
        known = [*self._bundle.manifest.classes, *(name for one in own for name in one.classes)]
        twins = first_twin(task.classes, known)
        if twins is not None:
            raise FleetError(sentence("fleet_twin", path=str(self._path), name=twins[0], other=twins[1]))

    def _tensors(self, tasks: tuple[LearnedTask, ...], task: LearnedTask) -> Tensors:
        before = self._generation
        tensors: Tensors = dict(before.tensors)
        for old in before.tasks:
            if old.fleet is not None:
                for part in ("weight", "bias"):
                    tensors.pop(f"head/{old.name}/{part}", None)
        try:
            found = statistics_of(
                self._bundle, replace(before, tasks=tasks), tasks, before.hidden, self._state.contribution
            )
        except UnledgeredError as error:
            raise FleetError(
                sentence("fleet_unledgered", reason=str(error), rollback="`csk-sdk rollback --to`")
            ) from None
        found.replace_in(tensors)
        weight, bias = lda_head(found, PRIOR_PICTURES, task.classes)
        tensors[f"head/{task.name}/weight"], tensors[f"head/{task.name}/bias"] = weight, bias
        replace_sketch(tensors, self._sketch(tasks, found))
        return tensors

    def _sketch(self, tasks: tuple[LearnedTask, ...], known: ClassStatistics) -> Familiarity | None:
        """What is usual for images of a class: as this device has measured it, or else as the fleet has."""
        own = Familiarity.from_tensors(self._generation.tensors)
        learned = {name for task in tasks if task.fleet is None for name in task.classes}
        here = learned.union(self._bundle.manifest.classes)
        kept = own.without(set(own.classes) - here) if own is not None else None
        more = {
            name: row
            for name, row in self._found.sketches.items()
            if name in known.classes and (kept is None or name not in kept.classes)
        }
        if not more:
            return kept
        margins, oddness = (np.stack([row[part] for row in more.values()]) for part in (0, 1))
        brought = Familiarity(tuple(more), margins, oddness)
        return brought if kept is None else kept.merge(brought)

    def _notes(self, task: LearnedTask, tensors: Tensors, own: Sequence[LearnedTask]) -> tuple[str, ...]:
        said = []
        if MAP in tensors:
            said.append(sentence("fleet_led"))
        waiting = sum(
            1 for one in own for name, file in one.contributions.items() if file and name not in one.shared
        )
        if waiting:
            said.append(sentence("fleet_waiting", contributions=plural(waiting, "own contribution")))
        theirs = set(task.classes)
        renamed_here = sorted({name for one in own for name in one.shared} - theirs)
        if renamed_here:
            said.append(sentence("fleet_renamed", names=", ".join(renamed_here)))
        found = ClassStatistics.from_tensors(tensors)
        for one, other in alike(found, PRIOR_PICTURES):
            if (one in theirs) != (other in theirs):
                mine, new = (other, one) if one in theirs else (one, other)
                said.append(sentence("fleet_alike", new=new, mine=mine))
        return tuple(said)
