"""Predictions in both scenarios, from features and the heads that a generation holds.

*Class-incremental*: one decision over all classes learned so far, by a linear discriminant computed from the class
statistics, so no picture is stored. *Task-incremental*: the task is known, and its own trained head decides. Where
outputs do not compete (multi-label, regression), the first is the heads of all tasks side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle import Bundle
from csk_sdk.errors import TaskError
from csk_sdk.knowledge import FeatureExtractor
from csk_sdk.manifest import Manifest
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.names import LONGEST, is_plain
from csk_sdk.objectives import Objective, Prediction, objective_of
from csk_sdk.state import BASE, Generation

# Pictures that go through the network at once: an application may hand over a thousand.
_CHUNK = 64
# What every file system takes as a folder's name, since a task's name is that of its folder in the inbox.
_LONGEST_NAME = 255


@dataclass(frozen=True)
class LinearHead:
    """`logits = features @ weight.T + bias` over `classes`, and the objective that says what they mean."""

    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    objective: Objective

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of features `(n, f)`: `(n, classes)`."""
        logits: NDArray[np.float32] = features @ self.weight.T + self.bias
        return logits

    def predict(self, features: NDArray[np.float32]) -> Prediction:
        """What the logits of `features` `(n, f)` say."""
        return self.objective.predict(self.logits(features), self.classes)


class Predictor:
    """One generation, opened for predictions.

    Heads and features are the same generation's, whatever another process commits meanwhile. `chunk` is how many
    pictures are in memory at once as the network's input.
    """

    def __init__(self, bundle: Bundle, generation: Generation, threads: int = 0, chunk: int = _CHUNK) -> None:
        self.generation = generation
        self.bundle = bundle
        self._threads, self._chunk = threads, chunk
        self._heads: dict[str | None, LinearHead] = {}
        self._extractor: FeatureExtractor | None = None

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None.

        Raises TaskError for a task that is not learned.
        """
        if task not in self._heads:
            manifest = self.bundle.manifest
            self._heads[task] = (
                class_head(self.generation, manifest)
                if task is None
                else task_head(self.generation, manifest, task)
            )
        return self._heads[task]

    def features(self, images: NDArray[Any] | Sequence[Any]) -> NDArray[np.float32]:
        """Features `(n, f)` of uint8 pictures, `(n, h, w, c)` or a list of `(h, w, c)`.

        Of signals, int16 or float `(n, length, c)` or a list of `(length, c)`, where the model takes signals.
        """
        if self._extractor is None:
            self._extractor = FeatureExtractor(self.bundle, self.generation.tensors, self._threads)
        pixels = self.bundle.preprocessing.stack(images)
        starts = range(0, max(len(pixels), 1), self._chunk)
        parts = [pixels[start : start + self._chunk] for start in starts]
        return np.concatenate([self._extractor(self.bundle.preprocessing.normalize(part)) for part in parts])

    def release(self) -> None:
        """Close the graph, to make room for others; the next prediction opens it again."""
        self._extractor = None


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


def task_classes(generation: Generation, base_classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The classes of the base, where it has any, and of every learned task, oldest first."""
    base = {BASE: tuple(base_classes)} if base_classes else {}
    return {**base, **{task.name: task.classes for task in generation.tasks}}


def task_head(generation: Generation, manifest: Manifest, task: str) -> LinearHead:
    """The task-incremental head of one task.

    Raises TaskError for a task that is not learned.
    """
    classes = task_classes(generation, manifest.classes)
    if task not in classes:
        known = ", ".join(task_names(generation, manifest.classes))
        raise TaskError(f"Task '{task}' is not learned. Learned: {known or 'none'}.")
    tensors = generation.tensors
    return LinearHead(
        classes[task],
        tensors[f"head/{task}/weight"],
        tensors[f"head/{task}/bias"],
        objective_of(manifest.loss),
    )


def class_head(generation: Generation, manifest: Manifest) -> LinearHead:
    """The head over everything learned, as the bundle's objective makes it."""
    objective = objective_of(manifest.loss)
    names = task_names(generation, manifest.classes) or (BASE,)
    heads = [task_head(generation, manifest, name) for name in names]
    classes, weight, bias = objective.head_of_all(
        ClassStatistics.from_tensors(generation.tensors),
        [(head.classes, head.weight, head.bias) for head in heads],
    )
    return LinearHead(classes, weight, bias, objective)
