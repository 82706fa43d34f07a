"""Predictions in both scenarios, from features and the heads that a generation holds.

*Class-incremental*: one decision over all classes learned so far, by a linear discriminant computed from the class
statistics, so no picture is stored. *Task-incremental*: the task is known, and its own trained head decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle import Bundle
from csk_sdk.errors import TaskError
from csk_sdk.method.heads import ClassStatistics, lda_head
from csk_sdk.names import LONGEST, is_plain
from csk_sdk.state import BASE, Generation
from csk_sdk.training import FeatureExtractor, Tensors

# Shrinkage of the within-class covariance, chosen by measurement: docs/decisions/0005-heads.md.
SHRINKAGE = 0.02

# Pictures that go through the network at once: an application may hand over a thousand.
_CHUNK = 64
# What every file system takes as a folder's name, since a task's name is that of its folder in the inbox.
_LONGEST_NAME = 255


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


class Predictor:
    """One generation, opened for predictions.

    Heads and features are the same generation's, whatever another process commits meanwhile.
    """

    def __init__(self, bundle: Bundle, generation: Generation, threads: int = 0) -> None:
        self.generation = generation
        self.bundle = bundle
        self._threads = threads
        self._heads: dict[str | None, LinearHead] = {}
        self._extractor: FeatureExtractor | None = None

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None.

        Raises TaskError for a task that is not learned.
        """
        if task not in self._heads:
            base = self.bundle.manifest.classes
            self._heads[task] = (
                class_head(self.generation, base) if task is None else task_head(self.generation, base, task)
            )
        return self._heads[task]

    def features(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features `(n, f)` of uint8 pictures, `(n, h, w, c)` or a list of `(h, w, c)`."""
        if self._extractor is None:
            self._extractor = FeatureExtractor(self.bundle, self.generation.tensors, self._threads)
        pixels = self.bundle.preprocessing.stack(images)
        starts = range(0, max(len(pixels), 1), _CHUNK)
        parts = [pixels[start : start + _CHUNK] for start in starts]
        return np.concatenate([self._extractor(self.bundle.preprocessing.normalize(part)) for part in parts])


def require_new_task(
    generation: Generation, base_classes: Sequence[str], name: str, classes: Sequence[str] = ()
) -> None:
    """Raise TaskError where no task of this name, with these classes, can be learned after `generation`."""
    if name == BASE:
        raise TaskError(
            f"A task cannot be called '{BASE}': that is the name of what the source model knew already. Give "
            "the new data another name."
        )
    if not is_plain(name) or "/" in name or "\\" in name or len(name.encode()) > _LONGEST_NAME:
        raise TaskError(
            f"A task cannot be called {name[:40]!r}: its name must be valid as a folder's name, without "
            f"slashes, backslashes and control characters, and at most {_LONGEST_NAME} bytes. Rename it."
        )
    if name in task_names(generation, base_classes):
        raise TaskError(
            f"Task '{name}' is learned already. Give the new data another name, or go back before it with "
            "`csk-sdk rollback --to`."
        )
    for one, count in Counter(classes).items():
        if not is_plain(one) or count > 1:
            raise TaskError(
                f"Task '{name}' has a class called {one[:40]!r}, and each class needs a name of its own, not "
                f"empty, at most {LONGEST} characters, in valid UTF-8 and without control characters. Rename it."
            )


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
    own head; afterwards those classes cannot be weighed against the new ones, and are left out. Where a task was
    learned without class statistics, the tasks' own heads decide together.
    """
    statistics = ClassStatistics.from_tensors(generation.tensors)
    if any(set(task.classes).difference(statistics.classes) for task in generation.tasks):
        return _joined_head(generation, base_classes)
    if not statistics.classes:
        return task_head(generation, base_classes, BASE)
    weight, bias = lda_head(statistics, SHRINKAGE)
    return LinearHead(statistics.classes, weight, bias)


def _joined_head(generation: Generation, base_classes: Sequence[str]) -> LinearHead:
    """All tasks' own heads as one, for a state that keeps no class statistics of some of them.

    Each was fitted against its own task's classes only, so that their logits are not made to be compared. Where
    two tasks have a class of one name, the newer one's row decides.
    """
    rows: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for name in task_names(generation, base_classes):
        head = task_head(generation, base_classes, name)
        rows.update(zip(head.classes, zip(head.weight, head.bias, strict=True), strict=True))
    weights, biases = zip(*rows.values(), strict=True)
    return LinearHead(tuple(rows), np.stack(weights), np.stack(biases))
