"""Accuracy (or what the bundle's loss measures instead) on test splits, in both scenarios, kept per generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Split, Task
from csk_sdk.errors import ConfigError, StorageError, TaskError
from csk_sdk.method.continual_metrics import AccuracyMatrix
from csk_sdk.method.decisions import lost_to_others
from csk_sdk.method.heads import ClassStatistics, Shrunk
from csk_sdk.method.left_out import LeftOut
from csk_sdk.network.finite import NotFiniteError
from csk_sdk.network.predicting import LinearHead, Predictor, task_names
from csk_sdk.objectives.classification import PRIOR_PICTURES
from csk_sdk.objectives.objective import CLASSES
from csk_sdk.state import BASE, Generation, GenerationRecord, State

SCENARIOS = ("task", "class")
_BATCH = 64
# Per task: the metric in percent by scenario, the number of test images, and perhaps `details` by scenario.
Row = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """The accuracies of one scenario, "task" (task-incremental) or "class" (class-incremental). Immutable.

    - `scenario`, `tasks`: which one, and the names of the tasks tested, oldest first
    - `matrix`: row = after learning that task, column = tested task, in percent; NaN where it was not measured
    - `accuracy`: the present accuracy over all test images together, in percent; None for another metric
    - `metric`: what the numbers are: "accuracy", "mAP" (mean average precision), or "R2", which has no lower bound
    - `details`: further figures of each task as it is now, by their names: "rmse" of each target, in its own unit, for
      "R2"; "classes" for "accuracy", of each tested class its `images`, its `accuracy`, the class that most others are
      taken for (`confused`, "" for none) and the `share` of them, in percent
    - `notes`: sentences about test images that were left out
    - `base_lost`: percentage points that the base's classes are estimated to lose to all classes learned since, in
      class-incremental decisions; where there are no test images of theirs, else None
    """

    scenario: str
    tasks: tuple[str, ...]
    matrix: AccuracyMatrix
    accuracy: float | None
    metric: str = "accuracy"
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    base_lost: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluate --json`; accuracies that were not measured are None."""
        return {
            "scenario": "task-incremental" if self.scenario == "task" else "class-incremental",
            "metric": self.metric,
            "tasks": list(self.tasks),
            **self.matrix.to_json(),
            **({} if self.accuracy is None else {"accuracy": self.accuracy}),
            **self.details,
            **({} if self.base_lost is None else {"estimated": {"base": {"lost": self.base_lost}}}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


@dataclass(frozen=True)
class Scores:
    """Rows of all generations from the bundle to the present one."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    metric: str = "accuracy"
    base_lost: Callable[[], float | None] = field(default=lambda: None, compare=False)
    notes: tuple[str, ...] = ()

    def evaluation(self, scenario: str) -> Evaluation:
        """The accuracy matrix of one scenario. Raises ConfigError for an unknown one."""
        require_scenario(scenario)
        matrix = AccuracyMatrix(
            [[row.get(name, {}).get(scenario) for name in self.names] for row in self.rows],
            lowest=-math.inf if self.metric == "R2" else 0.0,
        )
        last = self.rows[-1]
        accuracy = None
        if self.metric == "accuracy" and last:
            images = sum(entry["images"] for entry in last.values())
            accuracy = sum(entry[scenario] * entry["images"] for entry in last.values()) / images
        details: dict[str, dict[str, Any]] = {}
        for name, entry in last.items():
            for kind, value in entry.get("details", {}).get(scenario, {}).items():
                details.setdefault(kind, {})[name] = value
        lost = self.base_lost() if scenario == "class" else None
        return Evaluation(scenario, self.names, matrix, accuracy, self.metric, details, lost, self.notes)


def require_scenario(scenario: str) -> None:
    """Raise ConfigError for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise ConfigError(f"scenario is '{scenario}'; it must be {' or '.join(SCENARIOS)}.")


def score_tasks(predictor: Predictor, state: State, tasks: Sequence[Task]) -> Scores:
    """Measure a generation on every learned task that has a test split, and keep the row.

    The base classes are tested with a task called "base" that has a test split only.
    Test images of classes that their task does not know are left out: it never learned them, they were forgotten, or
    have another name now; and of base classes that are hidden. Where the state cannot be written, the row is measured
    and not kept. Raises TaskError where there is nothing to test.
    """
    generation = predictor.generation
    names = task_names(generation, predictor.bundle.manifest.classes)
    given = {task.name: task for task in tasks if task.test is not None and task.name in names}
    known, notes = {}, []
    for name, task in given.items():
        classes = predictor.head(name).classes
        if name == BASE:
            classes = tuple(one for one in classes if one not in generation.hidden)
        known[name], left_out = _known_part(task, classes)
        notes += [left_out] if left_out else []
    row = {name: _score(predictor, known[name]) for name in names if name in known and known[name].test}
    if not row and notes:
        raise TaskError(f"There is nothing to test. {' '.join(notes)}")
    if not row:
        raise TaskError(
            f"None of the learned tasks ({', '.join(names) or 'none yet'}) has test images or signals. Put some into "
            "tasks/NAME/test/<class>/ (tasks/base/test/<class>/ for the base classes)."
        )
    try:
        state.save_scores(generation.number, {name: _kept(entry) for name, entry in row.items()})
    except StorageError as error:
        notes.append(f"These accuracies are not kept for later. {error}")
    # Its own row is known, whether or not the disk can give it back.
    saved = {**state.load_scores(), generation.number: row}
    scores = _along_the_way(
        generation, state, names, saved, names[0] in row, predictor.bundle.objective.metric
    )
    scores = replace(scores, notes=tuple(notes))
    return scores if BASE in row else replace(scores, base_lost=cache(partial(_base_lost, predictor)))


def _known_part(task: Task, known: Sequence[str]) -> tuple[Task, str]:
    """The task with test images of `known` classes only, `test` None where there are none; a sentence about others."""
    assert task.test is not None
    if all(name in known for name in task.classes):
        return task, ""
    test, classes = task.test.among(task.classes, known)
    part = replace(task, classes=classes, test=test if classes and len(test) else None)
    labels = task.test.labels
    found = set(labels.tolist()) if labels.ndim == 1 else set(np.flatnonzero(labels.any(axis=0)).tolist())
    gone = [name for index, name in enumerate(task.classes) if name not in known and index in found]
    if not gone:
        return part, ""
    some = ", ".join(f"'{name[:40]}'" for name in gone[:5]) + (", ..." if len(gone) > 5 else "")
    return part, (
        f"Test {task.test.images.noun}s of {some} in task '{task.name}' are left out: it does not know "
        f"{'this class' if len(gone) == 1 else 'these classes'}. Remove what was forgotten, and rename what has "
        "another name now."
    )


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a task's row: nothing that names its classes, which may be forgotten."""
    details = {
        scenario: {kind: value for kind, value in found.items() if kind != CLASSES}
        for scenario, found in entry.get("details", {}).items()
    }
    rest = {name: value for name, value in entry.items() if name != "details"}
    return {**rest, "details": details} if any(details.values()) else rest


def _base_lost(predictor: Predictor) -> float | None:
    """What the base's classes lose to those learned since, by their statistics; None where these do not tell.

    How often they are right is not told: the base's statistics are of images that the network was trained on.
    """
    base = set(predictor.bundle.manifest.classes)
    known = ClassStatistics.from_tensors(predictor.generation.tensors)
    told = base.intersection(known.classes)
    if not told or len(told) == len(known.classes) or not (known.counts > 0).all():
        return None
    shrunk = Shrunk.of(known, PRIOR_PICTURES)
    if shrunk is None:
        return None
    return round(lost_to_others(known, LeftOut.of(known, shrunk), told, base, np.random.default_rng(0)), 2)


def recorded_scores(
    generation: Generation, state: State, base_classes: Sequence[str], metric: str
) -> Scores | None:
    """The rows measured up to a generation, as they were kept; nothing is measured. None where there are none."""
    names = task_names(generation, base_classes)
    if not names:
        return None
    saved = state.load_scores()
    scores = _along_the_way(
        generation, state, names, saved, any(names[0] in row for row in saved.values()), metric
    )
    return scores if any(scores.rows) else None


def _along_the_way(
    generation: Generation,
    state: State,
    names: tuple[str, ...],
    saved: Mapping[int, Row],
    first_tested: bool,
    metric: str,
) -> Scores:
    """Rows of all generations up to this one; `first_tested` is whether the first of `names` has test images."""
    numbers = _way(generation, {record.number: record for record in state.records()}, saved)
    rows = [{} if number is None else saved.get(number, {}) for number in numbers]
    if not first_tested and len(numbers) == len(names):
        # No test images of the base classes: the matrix begins with the first learned task.
        names, rows = names[1:], rows[1:]
    elif len(numbers) > len(names):
        rows = rows[1:]
    return Scores(tuple(names), tuple(rows), metric)


def _way(
    generation: Generation, records: Mapping[int, GenerationRecord], saved: Mapping[int, Row]
) -> list[int | None]:
    """The generation that stands for each row: 0 for the base, for each task one, and this one for the last.

    For an earlier task it is the newest that was measured before another was learned, whether that learned it or only
    changed what was known since (renamed, merged, adapted); None where none was, or it was forgotten.
    """
    if not generation.tasks:
        return [generation.number]
    measured: dict[str, int] = {}
    number = generation.parent
    while number and (record := records.get(number)):
        if number in saved:
            measured.setdefault(record.task, number)
        number = record.parent
    return [0, *(measured.get(task.name) for task in generation.tasks[:-1]), generation.number]


def _score(predictor: Predictor, task: Task) -> dict[str, Any]:
    assert task.test is not None
    heads = {"task": predictor.head(task.name), "class": predictor.head()}
    objective = predictor.bundle.objective
    objective.require_split(task.test, f"Test data of task '{task.name}'", task.classes)
    logits = _logits(predictor, heads, task.test)
    measures = {
        scenario: objective.measure(logits[scenario], head.classes, task.test.labels, task.classes)
        for scenario, head in heads.items()
    }
    details = {scenario: measure.details for scenario, measure in measures.items() if measure.details}
    return {
        "images": len(task.test),
        **{scenario: measure.score for scenario, measure in measures.items()},
        **({"details": details} if details else {}),
    }


def _logits(
    predictor: Predictor, heads: Mapping[str, LinearHead], split: Split
) -> dict[str, NDArray[np.float32]]:
    """By scenario what its head says of all images, `(n, classes)`. Raises TaskError, naming the image."""
    found: dict[str, list[NDArray[np.float32]]] = {scenario: [] for scenario in heads}
    done = 0
    for pixels, _ in PixelCache(split, predictor.bundle.preprocessing, 0).batches(_BATCH):
        try:
            features = predictor.features(pixels)
            for scenario, head in heads.items():
                found[scenario].append(head.logits(features))
        except NotFiniteError as error:
            raise error.named(split.images.name(done + error.index)) from None
        done += len(pixels)
    return {scenario: np.concatenate(parts) for scenario, parts in found.items()}
