"""What is known, changed without a lesson: classes forgotten, renamed, merged. All under the state's lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.sentences import said
from csk_sdk.errors import TaskError
from csk_sdk.formats.names import LONGEST, first_twin, is_plain
from csk_sdk.learning.revision import refit, without
from csk_sdk.method.contributions import Contribution
from csk_sdk.method.decisions import expected_of
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.unknown import Familiarity, replace_sketch
from csk_sdk.network.domains import domain_tensors
from csk_sdk.network.ledger import digest_of_centers, renamed_statistics
from csk_sdk.network.predicting import task_names
from csk_sdk.state import BASE, Generation, LearnedTask, State
from csk_sdk.state.atomic import exists
from csk_sdk.state.handover import Places

# The logit of a class of the base that is hidden: never the largest, and still a number.
_NEVER = -1e12
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Forgotten:
    """What `Learner.forget` did. Immutable.

    - `generation`: the number of the generation that was committed
    - `classes`: those that were forgotten; `hidden`: those of the base, which the bundle still holds
    - `tasks`: those that are gone with their classes; `refitted`: those whose head was made anew
    - `remains`: sentences about what images of the forgotten still have a share in
    - `removed`: how many older generations held it, and are gone
    """

    generation: int
    classes: tuple[str, ...]
    hidden: tuple[str, ...]
    tasks: tuple[str, ...]
    refitted: tuple[str, ...]
    remains: tuple[str, ...]
    removed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `forget --json`."""
        return asdict(self)


def forget(bundle: Bundle, state: State, names: Sequence[str] = (), task: str | None = None) -> Forgotten:
    """Forget classes, or one task: everything that it alone contributed. Commits a generation, and removes older ones.

    Raises TaskError for a class or a task that is not known, or where no class would be known any more.
    """
    # Who asks again, since it was interrupted, is told that the class is not known; then it is gone, too.
    state.finish_forgetting()
    generation = state.load()
    base = bundle.manifest.classes
    hidden = tuple(name for name in base if name in names and name not in generation.hidden)
    _require_known(generation, base, names, task)
    gone = {task} if task is not None else set()

    def left_of(one: LearnedTask) -> LearnedTask | None:
        return None if one.name in gone else _less(one, names)

    left_tasks = [left for one in generation.tasks if (left := left_of(one))]
    tasks = _unshared(_without_orphans(left_tasks, generation.tasks, base))
    kept = {one.name: one.classes for one in tasks}
    changed = [one for one in generation.tasks if kept.get(one.name) != one.classes]
    if bundle.objective.tabular:
        # What is kept is of all of a task's images, those of the forgotten among them.
        tasks = tuple(
            replace(one, contributions={}) if one.name in {was.name for was in changed} else one
            for one in tasks
        )
    known = {name for classes in kept.values() for name in classes} | set(base)
    lost = [name for one in changed for name in one.classes if name not in known]
    all_hidden = (*generation.hidden, *hidden)
    if base and not tasks and len(all_hidden) == len(base):
        raise TaskError(said("forget_last"))
    statistics, exact = without(bundle, state, generation, tasks, all_hidden, (*lost, *hidden))
    if changed and not tasks:
        # Nothing learned is left, so nothing that learning has moved need stay.
        tensors: Tensors = {**bundle.checkpoint(), **domain_tensors(generation.tensors)}
        statistics = ClassStatistics.from_tensors(tensors)
        statistics = statistics.without(all_hidden) if all_hidden else statistics
        exact = True
    else:
        tensors = dict(generation.tensors)
    statistics.replace_in(tensors)
    sketch = Familiarity.from_tensors(tensors)
    if sketch is not None:
        replace_sketch(tensors, sketch.without(lost))
    hide(tensors, base, all_hidden)
    _shorten_heads(tensors, changed, kept)
    remains = _remains(bundle, tensors, bool(changed), bool(tasks), exact, hidden)
    if (
        sketch is not None
        and changed
        and tasks
        and generation.tasks.index(changed[0]) < len(generation.tasks) - 1
    ):
        remains = (*remains, said("remains_sketch"))
    if _in_fleet(changed, kept, tasks):
        remains = (*remains, said("remains_fleet"))
    if changed and (before := _before_upgrade(bundle, state)) is not None:
        remains = (*remains, said("remains_before", bundle=str(before[0]), state=str(before[1])))
    unchanged = [one for one in generation.tasks if kept.get(one.name) == one.classes]
    purged = state.numbers_with(changed, unchanged, {*lost, *names})
    committed = state.commit(generation.number, tasks, tensors, hidden=all_hidden, purged=purged)
    state.clear_progress()
    return Forgotten(
        generation=committed.number,
        classes=tuple(dict.fromkeys(lost)),
        hidden=hidden,
        tasks=tuple(one.name for one in changed if one.name not in kept),
        refitted=tuple(one.name for one in changed if one.name in kept),
        remains=remains,
        removed=len(purged),
    )


def rename(bundle: Bundle, state: State, old: str, new: str) -> Generation:
    """Give a learned class another name. Commits a generation; older ones keep the old name.

    Raises TaskError for a class that is not learned or the base's, and a name that is taken or cannot be used.
    """
    generation = state.load()
    _require_learned(generation, bundle.manifest.classes, old, "renamed")
    if new in _classes_of(generation, bundle.manifest.classes):
        raise TaskError(said("class_known_already", name=new, merge="`csk-sdk merge`"))
    _require_name(new)
    others = [name for name in _classes_of(generation, bundle.manifest.classes) if name != old]
    if (twins := first_twin((new,), others)) is not None:
        raise TaskError(said("class_twin", name=new[:40], other=twins[1][:40], merge="`csk-sdk merge`"))
    tasks = [_named(one, old, new) for one in generation.tasks]
    tensors = dict(generation.tensors)
    renamed_statistics(tensors, {old: new})
    _rename_sketch(tensors, {old: new})
    return state.commit(generation.number, tasks, tensors)


def merge(bundle: Bundle, state: State, into: str, other: str) -> Generation:
    """Make one class of two: what was learned of `other` is learned of `into`. Commits a generation.

    Raises TaskError for a class that is not known, `other` of the base, and where the bundle's loss is none over
    classes.
    """
    generation = state.load()
    base = bundle.manifest.classes
    if bundle.objective.tabular:
        raise TaskError(
            f"Only classes that exclude each other can be merged, and this bundle's loss is {bundle.manifest.loss}."
        )
    if into == other:
        raise TaskError(said("merge_itself", name=into))
    _require_known(generation, base, [into], None)
    _require_learned(generation, base, other, "merged into another; the other way round they can be")
    tasks = [merged_in(state, bundle, one, into, other) for one in generation.tasks]
    statistics, exact = without(bundle, state, generation, tasks, generation.hidden, ())
    tensors = dict(generation.tensors)
    if not exact:
        statistics = ClassStatistics.from_tensors(tensors).named({other: into})
    statistics.replace_in(tensors)
    _rename_sketch(tensors, {other: into})
    both = {one.name: one.classes for one in generation.tasks if {into, other}.issubset(one.classes)}
    _shorten_heads(tensors, [one for one in generation.tasks if one.name in both], {
        one.name: one.classes for one in tasks
    })  # fmt: skip
    return state.commit(generation.number, tasks, tensors)


def _rename_sketch(tensors: Tensors, names: Mapping[str, str]) -> None:
    sketch = Familiarity.from_tensors(tensors)
    if sketch is not None:
        replace_sketch(tensors, sketch.named(names))


def _less(task: LearnedTask, names: Collection[str]) -> LearnedTask | None:
    """A task without these classes, and without sentences that name them; None where none is left."""
    classes = tuple(name for name in task.classes if name not in names)
    if classes == task.classes:
        return task
    if not classes:
        return None
    return replace(
        task,
        classes=classes,
        contributions={name: file for name, file in task.contributions.items() if name in classes},
        carried={name: file for name, file in task.carried.items() if name in classes},
        notes=tuple(note for note in task.notes if not any(name in note for name in names)),
        expected=expected_of(task.expected, dict.fromkeys(names)),
        shared=tuple(name for name in task.shared if name not in names),
    )


def _without_orphans(
    tasks: Sequence[LearnedTask], before: Iterable[LearnedTask], base: Iterable[str]
) -> tuple[LearnedTask, ...]:
    """Tasks without classes of which nothing is known any more, and was `before`.

    Of such a class a lesson had replaced what was known, and is gone itself. One that decisions over all classes never
    knew stays.
    """
    orphans = _told(before) - set(base) - _told(tasks)
    return tuple(left for task in tasks if (left := _less(task, orphans)))


def _of_fleet(tasks: Iterable[LearnedTask]) -> set[str]:
    """The classes that are known of a fleet."""
    return {name for task in tasks if task.fleet is not None for name in task.classes}


def _unshared(tasks: Sequence[LearnedTask]) -> tuple[LearnedTask, ...]:
    """Tasks of which counts again what the fleet does not know any more."""
    known = _of_fleet(tasks)
    return tuple(replace(task, shared=tuple(name for name in task.shared if name in known)) for task in tasks)


def _in_fleet(
    changed: Iterable[LearnedTask], kept: Mapping[str, tuple[str, ...]], tasks: Iterable[LearnedTask]
) -> bool:
    """Whether what is gone still has a share in what the fleet knows."""
    known = _of_fleet(tasks)
    return any(name in known and name not in kept.get(one.name, ()) for one in changed for name in one.shared)


def _told(tasks: Iterable[LearnedTask]) -> set[str]:
    """The classes that a task tells something of; of one without a ledger, all."""
    return {name for task in tasks for name in task.classes if task.contributions.get(name, "unknown")}


def _shorten_heads(
    tensors: Tensors, changed: Iterable[LearnedTask], kept: Mapping[str, tuple[str, ...]]
) -> None:
    """The heads of changed tasks for the classes that they have now: without those that are gone, and made anew."""
    anew = {}
    for task in changed:
        keys = [f"head/{task.name}/{part}" for part in ("weight", "bias")]
        if task.name not in kept:
            for key in keys:
                tensors.pop(key, None)
            continue
        rows = [task.classes.index(name) for name in kept[task.name]]
        tensors |= {key: np.ascontiguousarray(tensors[key][rows]) for key in keys}
        anew[task.name] = kept[task.name]
    refit(tensors, anew)


def hide(tensors: Tensors, base: Sequence[str], hidden: Iterable[str]) -> None:
    """Make the base's own head, in `tensors`, never answer with the classes `hidden` of `base`."""
    rows = [base.index(name) for name in hidden]
    if rows:
        weight, bias = tensors["head/base/weight"].copy(), tensors["head/base/bias"].copy()
        weight[rows], bias[rows] = 0.0, _NEVER
        tensors["head/base/weight"], tensors["head/base/bias"] = weight, bias


def _remains(
    bundle: Bundle, tensors: Tensors, changed: bool, any_left: bool, exact: bool, hidden: Sequence[str]
) -> tuple[str, ...]:
    """What images of the forgotten classes still have a share in, one sentence each."""
    found = []
    if changed and any_left:
        if bundle.manifest.sites:
            found.append(said("remains_moments"))
        with closing(bundle.stored_checkpoint()) as stored:
            moved = not np.array_equal(digest_of_centers(tensors), digest_of_centers(stored))
        if moved:
            found.append(said("remains_centers"))
    if not exact:
        found.append(said("remains_spread"))
    if hidden:
        found.append(said("remains_base"))
    return tuple(found)


def _before_upgrade(bundle: Bundle, state: State) -> tuple[Path, Path] | None:
    """Bundle and state of before the last upgrade, where they are there: the way back leads to them."""
    before = Places(bundle.folder, state.folder).before()
    return before if exists(before[1]) else None


def _named(task: LearnedTask, old: str, new: str) -> LearnedTask:
    def by(names: dict[str, str]) -> dict[str, str]:
        return {new if name == old else name: file for name, file in names.items()}

    return replace(
        task,
        classes=tuple(new if name == old else name for name in task.classes),
        contributions=by(task.contributions),
        carried=by(task.carried),
        notes=tuple(note for note in task.notes if f"'{old}'" not in note),
        expected=expected_of(task.expected, {old: new}),
        shared=tuple(new if name == old else name for name in task.shared),
    )


def merged_in(state: State, bundle: Bundle, task: LearnedTask, into: str, other: str) -> LearnedTask:
    """A task of which `other` is `into`; where it has both, their contributions become one."""
    if not {into, other}.issubset(task.classes):
        return _named(task, other, into)

    def both(files: dict[str, str]) -> dict[str, str]:
        pair = [files[name] for name in (into, other) if files.get(name)]
        rest = {name: file for name, file in files.items() if name != other}
        if len(pair) < 2:
            return {**rest, into: pair[0]} if pair else rest
        one, two = (
            Contribution.from_tensors(state.contribution(file), bundle.manifest.head.features)
            for file in pair
        )
        return {**rest, into: state.keep_contribution(one.with_(two).tensors())}

    return replace(
        task,
        classes=tuple(name for name in task.classes if name != other),
        contributions=both(task.contributions),
        carried=both(task.carried),
        expected=expected_of(task.expected, {other: None, into: None}),
        # One that a fleet counts in part is counted here: twice, until the next merge.
        shared=tuple(
            name for name in task.shared if name != other and (name != into or other in task.shared)
        ),
    )


def _classes_of(generation: Generation, base: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*base, *(name for task in generation.tasks for name in task.classes)]))


def _require_known(
    generation: Generation, base: Sequence[str], names: Sequence[str], task: str | None
) -> None:
    visible = [name for name in base if name not in generation.hidden]
    known = _classes_of(generation, visible)
    for name in names:
        if name not in known:
            # What can be changed first: the base's classes may be a thousand.
            own = [one for one in known if one not in visible]
            raise TaskError(said("class_not_known", name=name, known=_some([*own, *visible])))
    if task == BASE:
        raise TaskError(said("base_stays"))
    if task is not None and task not in task_names(generation, ()):
        learned = _some(task_names(generation, ()))
        raise TaskError(said("task_not_learned", task=task, learned=learned))


def _require_learned(generation: Generation, base: Sequence[str], name: str, done: str) -> None:
    if name in base:
        raise TaskError(said("class_of_base", name=name, done=done))
    _require_known(generation, base, [name], None)


def _require_name(name: str) -> None:
    if not is_plain(name):
        # A control character is shown, and not written to a terminal.
        raise TaskError(said("class_name", name=repr(name[:40])[1:-1], longest=str(LONGEST)))


def _some(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" or "none"
