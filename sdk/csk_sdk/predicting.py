"""Predictions in both scenarios, from features and the heads that a generation holds.

*Class-incremental*: one decision over all classes learned so far, by a linear discriminant computed from the class
statistics, so no picture is stored. *Task-incremental*: the task is known, and its own trained head decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import TaskError
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.state import BASE, Generation
from csk_sdk.training import Tensors

# Shrinkage of the within-class covariance, chosen by measurement: docs/decisions/0005-heads.md.
SHRINKAGE = 0.1


class Prediction(NamedTuple):
    """`labels` `(n,)` class names, `probabilities` `(n, len(classes))` float32 in the order of `classes`."""

    labels: NDArray[np.str_]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class LinearHead:
    """`logits = features @ weight.T + bias` over `classes`."""

    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict(self, features: NDArray[np.float32]) -> Prediction:
        """Softmax over the logits of `features` `(n, f)`."""
        logits = features @ self.weight.T + self.bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        labels = np.array(self.classes)[probabilities.argmax(axis=1)]
        return Prediction(labels, probabilities.astype(np.float32), self.classes)

    def correct(self, features: NDArray[np.float32], labels: Sequence[str]) -> int:
        """How many of `features` `(n, f)` are given their true class name."""
        logits = features @ self.weight.T + self.bias
        return int(np.sum(np.array(self.classes)[logits.argmax(axis=1)] == np.asarray(labels)))


def task_names(generation: Generation, base_classes: Sequence[str]) -> tuple[str, ...]:
    """The base, where it has classes, and every learned task, oldest first."""
    base = (BASE,) if base_classes else ()
    return (*base, *(task.name for task in generation.tasks))


def task_head(generation: Generation, base_classes: Sequence[str], task: str) -> LinearHead:
    """The task-incremental head of one task.

    Raises TaskError for a task that is not learned.
    """
    classes = {task.name: task.classes for task in generation.tasks}
    if base_classes:
        classes[BASE] = tuple(base_classes)
    if task not in classes:
        known = ", ".join(task_names(generation, base_classes))
        raise TaskError(f"Task '{task}' is not learned. Learned: {known or 'none'}.")
    tensors: Tensors = generation.tensors
    return LinearHead(classes[task], tensors[f"head/{task}/weight"], tensors[f"head/{task}/bias"])


def class_head(generation: Generation, base_classes: Sequence[str]) -> LinearHead:
    """The class-incremental head over everything learned.

    Without statistics of the base classes (no --base-data) and before the first task, it is the source model's
    own head; afterwards those classes cannot be weighed against the new ones, and are left out.
    """
    statistics = ClassStatistics.from_tensors(generation.tensors)
    if not statistics.classes:
        return task_head(generation, base_classes, BASE)
    weight, bias = lda_head(statistics, SHRINKAGE)
    return LinearHead(statistics.classes, weight, bias)
