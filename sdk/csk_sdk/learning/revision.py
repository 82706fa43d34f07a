"""What is known, without something that was learned: for a lesson that replaces it, and for what is to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.method.heads import STATISTICS, ClassStatistics, lda_head
from csk_sdk.method.unknown import FAMILIARITY, Familiarity
from csk_sdk.network.ledger import UnledgeredError, statistics_of
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.state import Generation, LearnedTask, State

Tensors = Mapping[str, NDArray[Any]]


class Overlay(Mapping[str, NDArray[Any]]):
    """A generation's tensors with another knowledge of classes; all others are read from where they are."""

    def __init__(self, tensors: Tensors, statistics: ClassStatistics, sketch: Familiarity | None) -> None:
        self._below = tensors
        self._own = {**statistics.tensors(), **(sketch.tensors() if sketch is not None else {})}
        self._hidden = {f"statistics.{name}" for name in STATISTICS}
        self._hidden |= {f"familiarity.{name}" for name in FAMILIARITY}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._own[name] if name in self._hidden else self._below[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._below if name not in self._hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors; of statistics, about."""
        held = self._below
        below = getattr(held, "nbytes", None)
        return int(below) if below is not None else sum(one.nbytes for one in held.values())


def replacing(
    bundle: Bundle, state: State, generation: Generation, classes: Sequence[str]
) -> tuple[Generation, dict[str, tuple[str, ...]]]:
    """A generation as it would be without what tasks contributed to `classes`; and the tasks whose heads said so.

    What the base knows of them stays. Nothing is written.
    """
    touched = {
        task.name: task.classes for task in generation.tasks if set(task.classes).intersection(classes)
    }
    if not touched or bundle.objective.tabular:
        return generation, {}
    tasks = tuple(emptied(task, classes) for task in generation.tasks)
    gone = {name for names in touched.values() for name in names}.intersection(classes)
    statistics, _ = without(bundle, state, generation, tasks, generation.hidden, gone)
    sketch = Familiarity.from_tensors(generation.tensors)
    if sketch is not None:
        sketch = sketch.without(gone.difference(bundle.manifest.classes))
    return replace(generation, tasks=tasks, tensors=Overlay(generation.tensors, statistics, sketch)), touched


def emptied(task: LearnedTask, classes: Iterable[str]) -> LearnedTask:
    """A task of which these classes are counted no more."""
    empty = dict.fromkeys([name for name in task.classes if name in set(classes)], "")
    return replace(
        task,
        contributions=task.contributions | empty,
        carried=task.carried | empty if task.carried else {},
        shared=tuple(name for name in task.shared if name not in empty),
    )


def without(
    bundle: Bundle,
    state: State,
    generation: Generation,
    tasks: Sequence[LearnedTask],
    hidden: Iterable[str],
    gone: Iterable[str],
) -> tuple[ClassStatistics, bool]:
    """What is known of `tasks` alone, and whether it is made of contributions.

    Where it cannot be, the means and counts of the classes `gone` go, and the spread that all classes share stays.
    """
    try:
        return statistics_of(bundle, generation, tasks, hidden, state.contribution), True
    except UnledgeredError:
        return ClassStatistics.from_tensors(generation.tensors).without(gone), False


def refit(tensors: dict[str, NDArray[Any]], tasks: Mapping[str, tuple[str, ...]]) -> None:
    """Make the heads of these tasks anew, of the class statistics in `tensors`.

    One whose classes have none of some (learned without class statistics) stays.
    """
    if not tasks:
        return
    statistics = ClassStatistics.from_tensors(tensors)
    counted = {name for name, count in zip(statistics.classes, statistics.counts, strict=True) if count > 0}
    for task, classes in tasks.items():
        if counted.issuperset(classes):
            weight, bias = lda_head(statistics, PRIOR_PICTURES, classes)
            tensors[f"head/{task}/weight"], tensors[f"head/{task}/bias"] = weight, bias
