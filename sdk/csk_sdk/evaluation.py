"""Accuracy on the test splits of learned tasks, in both scenarios, kept for every generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csk_sdk.data.pixel_cache import PixelCache
from csk_sdk.data.tasks import Task
from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.method.metrics import AccuracyMatrix
from csk_sdk.predicting import Predictor, task_names
from csk_sdk.state import Generation, State

SCENARIOS = ("task", "class")
_BATCH = 64
# Per task: accuracies in percent by scenario, and the number of test images.
Row = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """The accuracy matrix of one scenario: row = after learning that task, column = tested task, in percent.

    `accuracy` is the present accuracy over all test images together.
    """

    scenario: str
    tasks: tuple[str, ...]
    matrix: AccuracyMatrix
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluate --json`; accuracies that were not measured are None."""
        return {
            "scenario": "task-incremental" if self.scenario == "task" else "class-incremental",
            "tasks": list(self.tasks),
            **self.matrix.to_json(),
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Scores:
    """Rows of all generations from the bundle to the present one."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]

    def evaluation(self, scenario: str) -> Evaluation:
        """The accuracy matrix of one scenario. Raises ConfigError for an unknown one."""
        require_scenario(scenario)
        matrix = AccuracyMatrix(
            [[row.get(name, {}).get(scenario) for name in self.names] for row in self.rows]
        )
        last = self.rows[-1]
        images = sum(entry["images"] for entry in last.values())
        correct = sum(entry[scenario] * entry["images"] for entry in last.values())
        return Evaluation(scenario, self.names, matrix, correct / images)


def require_scenario(scenario: str) -> None:
    """Raise ConfigError for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise ConfigError(f"scenario is '{scenario}'; it must be {' or '.join(SCENARIOS)}.")


def score_tasks(predictor: Predictor, state: State, tasks: Sequence[Task]) -> Scores:
    """Measure a generation on every learned task that has a test split, and keep the row.

    The base classes are tested with a task called "base" that has a test split only.
    Raises TaskError where there is nothing to test, or a test class was never learned.
    """
    generation = predictor.generation
    names = task_names(generation, predictor.bundle.manifest.classes)
    known = {task.name: task for task in tasks if task.test is not None}
    row = {name: _score(predictor, known[name]) for name in names if name in known}
    if not row:
        raise TaskError(
            f"None of the learned tasks ({', '.join(names) or 'none yet'}) has test pictures. Put some into "
            "tasks/NAME/test/<class>/ (tasks/base/test/<class>/ for the base classes)."
        )
    state.save_scores(generation.number, row)
    # Its own row is known, whether or not the disk can give it back.
    saved = {**state.load_scores(), generation.number: row}
    numbers = _way(generation, {record.number: record.parent for record in state.records()})
    rows = [{} if number is None else saved.get(number, {}) for number in numbers]
    if names[0] not in known and len(numbers) == len(names):
        # No test pictures of the base classes: the matrix begins with the first learned task.
        names, rows = names[1:], rows[1:]
    elif len(numbers) > len(names):
        rows = rows[1:]
    return Scores(tuple(names), tuple(rows))


def _way(generation: Generation, parents: Mapping[int, int]) -> list[int | None]:
    """The generations from 0 to this one, each with one task more; None where a record is lost."""
    way: list[int | None] = [generation.number]
    parent = generation.parent
    while len(way) < len(generation.tasks):
        way.insert(0, parent)
        parent = None if parent is None else parents.get(parent)
    return [0, *way] if generation.tasks else way


def _score(predictor: Predictor, task: Task) -> dict[str, float]:
    assert task.test is not None
    heads = {"task": predictor.head(task.name), "class": predictor.head()}
    foreign = [name for name in task.classes if name not in heads["task"].classes]
    if foreign:
        raise TaskError(
            f"The test pictures of task '{task.name}' have class '{foreign[0]}', which is not one of those it "
            f"learned ({', '.join(heads['task'].classes[:5])}, ...). Correct the folder's name, or remove it."
        )
    correct = dict.fromkeys(heads, 0)
    pictures = PixelCache(task.test, predictor.bundle.preprocessing, 0)
    for pixels, labels in pictures.batches(_BATCH):
        features = predictor.features(pixels)
        truth = [task.classes[label] for label in labels]
        for scenario, head in heads.items():
            correct[scenario] += head.correct(features, truth)
    images = len(task.test)
    return {"images": images, **{scenario: 100.0 * count / images for scenario, count in correct.items()}}
