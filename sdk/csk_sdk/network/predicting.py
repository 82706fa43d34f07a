"""Predictions in both scenarios, from features and the heads that a generation holds.

*Class-incremental*: one decision over all classes learned so far, by an LDA classifier computed from the class
statistics, so no image is stored. *Task-incremental*: the task is known, and its own trained head decides. Where
outputs do not compete (multi-label, regression), the first is the heads of all tasks side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import Manifest
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import TaskError
from csk_sdk.formats.names import LONGEST, is_plain
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.network.finite import require_answers, require_usable_head
from csk_sdk.network.knowledge import FeatureExtractor
from csk_sdk.objectives import Objective, Prediction, objective_of
from csk_sdk.state import BASE, Generation

# Images that go through the network at once: an application may hand over a thousand.
_CHUNK = 64
_LONGEST_NAME = integer("limits", "name_bytes")


@dataclass(frozen=True)
class LinearHead:
    """`logits = features @ weight.T + bias` over `classes`, and the objective that says what they mean."""

    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    objective: Objective

    def logits(
        self, features: NDArray[np.float32], noun: str = "image", first: int = 0
    ) -> NDArray[np.float32]:
        """Of features `(n, f)`: `(n, classes)`, finite.

        Raises TaskError where they are not; `noun` and `first` name the image or signal as `require_answers` does.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            logits: NDArray[np.float32] = features @ self.weight.T + self.bias
        require_answers(logits, noun, first)
        return logits

    def predict(self, features: NDArray[np.float32], noun: str = "image") -> Prediction:
        """What the logits of `features` `(n, f)` say. Raises TaskError where they are not finite."""
        return self.objective.predict(self.logits(features, noun), self.classes)


class Predictor:
    """One generation, opened for predictions.

    Heads and features are the same generation's, whatever another thread or process commits meanwhile. Thread-safe:
    threads share one opened graph. `chunk` is how many images are in memory at once as the network's input.
    """

    def __init__(self, bundle: Bundle, generation: Generation, threads: int = 0, chunk: int = _CHUNK) -> None:
        self.generation = generation
        self.bundle = bundle
        self._threads, self._chunk = threads, chunk
        self._heads: dict[str | None, LinearHead] = {}
        self._extractor: FeatureExtractor | None = None
        self._opening = Lock()

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None.

        Raises TaskError for a task that is not learned, StateError for a head that is not finite.
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
        """Features `(n, f)` of uint8 RGB images, `(n, h, w, c)` or a list of `(h, w, c)`.

        Of signals, int16 or float `(n, length, c)` or a list of `(length, c)`, where the model takes signals. They are
        finite: raises TaskError where the network computes NaN or infinity, naming the first by its number here.
        """
        extractor = self._opened()
        pixels = self.bundle.preprocessing.stack(images)
        starts = range(0, max(len(pixels), 1), self._chunk)
        parts = [pixels[start : start + self._chunk] for start in starts]
        found = []
        for start, part in zip(starts, parts, strict=True):
            found.append(extractor(self.bundle.preprocessing.normalize(part)))
            require_answers(found[-1], self.bundle.manifest.input.noun, start)
        return np.concatenate(found)

    def release(self) -> None:
        """Close the graph, to make room for others; the next prediction opens it again, and a running one keeps it."""
        self._extractor = None

    def _opened(self) -> FeatureExtractor:
        with self._opening:
            extractor = self._extractor
            if extractor is None:
                extractor = FeatureExtractor(self.bundle, self.generation.tensors, self._threads)
                self._extractor = extractor
            return extractor


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

    Raises TaskError for a task that is not learned, StateError for a head that is not finite.
    """
    classes = task_classes(generation, manifest.classes)
    if task not in classes:
        known = ", ".join(task_names(generation, manifest.classes))
        raise TaskError(f"Task '{task}' is not learned. Learned: {known or 'none'}.")
    weight, bias = (generation.tensors[f"head/{task}/{part}"] for part in ("weight", "bias"))
    require_usable_head(weight, bias, f"task '{task}'")
    return LinearHead(classes[task], weight, bias, objective_of(manifest.loss))


def class_head(generation: Generation, manifest: Manifest) -> LinearHead:
    """The head over everything learned, as the bundle's objective makes it.

    Raises StateError for one that is not finite.
    """
    objective = objective_of(manifest.loss)
    names = task_names(generation, manifest.classes) or (BASE,)
    heads = [task_head(generation, manifest, name) for name in names]
    classes, weight, bias = objective.head_of_all(
        ClassStatistics.from_tensors(generation.tensors),
        [(head.classes, head.weight, head.bias) for head in heads],
    )
    require_usable_head(weight, bias, "all classes")
    return LinearHead(classes, weight, bias, objective)
