"""Class statistics made anew of what each task contributed: the bundle's, and then lesson by lesson.

Contributions are of the bundle's untouched network. Once centers have moved, what counts is a second set, `carried`:
the same images as the network of their lesson saw them, led back by `ledger.map`, the product of all drift maps so
far (method/drift.py). So a lesson carries one matrix along, and not each known class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.errors import StateError
from csk_sdk.method.contributions import Contribution, Lesson, derived
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.state import Generation, LearnedTask

Float64 = NDArray[np.float64]
Tensors = Mapping[str, NDArray[Any]]
MAP, MAPPED = "ledger.map", "ledger.centers"
LEDGER = (MAP, MAPPED)


class UnledgeredError(StateError):
    """Not all that is known is in the ledger, or not as the network is now."""


def digest_of_centers(tensors: Tensors) -> NDArray[np.uint8]:
    """sha256 of all centers, `(32,)`: which network the map leads to."""
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith("center/")):
        digest.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def map_of(tensors: Tensors, untouched: Tensors) -> Float64 | None:
    """What leads from the untouched network's features to those of `tensors`, `(f, f)`; None where no center moved.

    Raises UnledgeredError where a csk-sdk that knows no such map has trained centers.
    """
    now = digest_of_centers(tensors)
    if MAP not in tensors and np.array_equal(now, digest_of_centers(untouched)):
        return None
    if MAP not in tensors or not np.array_equal(tensors[MAPPED], now):
        raise UnledgeredError("a csk-sdk that keeps no contributions has trained the network")
    return np.asarray(tensors[MAP], np.float64)


def renamed_statistics(tensors: dict[str, NDArray[Any]], names: Mapping[str, str]) -> None:
    """Give classes other names in `tensors`; no number changes."""
    old = json.loads(tensors["statistics.classes"].astype(np.uint8).tobytes())
    text = json.dumps([names.get(name, name) for name in old], ensure_ascii=False)
    tensors["statistics.classes"] = np.frombuffer(text.encode(), np.uint8)


def statistics_of(
    bundle: Bundle,
    generation: Generation,
    tasks: Sequence[LearnedTask],
    hidden: Iterable[str],
    read: Callable[[str], Tensors],
) -> ClassStatistics:
    """What a device would know that had learned only `tasks`, on a base without the classes `hidden`.

    `read` gives the tensors of a contribution by its name. Where no center was ever trained, the numbers are to the bit
    those of such a device. Raises UnledgeredError where something that is known is in no contribution, or is a table.
    """
    if bundle.objective.tabular:
        raise UnledgeredError("images of a table are of no class")
    with closing(bundle.stored_checkpoint()) as untouched:
        matrix = map_of(generation.tensors, untouched)
        base = ClassStatistics.from_tensors(untouched)
    hidden = tuple(hidden)
    base = base.without(hidden) if hidden else base
    lessons = (_lesson(task, matrix is not None, base.features, read) for task in tasks)
    found = derived(base, lessons)
    if matrix is None or not found.classes:
        return found
    return found.mapped(lambda one: np.asarray(matrix @ one @ matrix.T), found.sums @ matrix.T)


def _lesson(task: LearnedTask, moved: bool, features: int, read: Callable[[str], Tensors]) -> Lesson:
    if not task.config.get("class_statistics", True):
        return Lesson((), {})
    # Of a network that is as it was, both are the same, and only one is kept.
    files = {**task.contributions, **(task.carried if moved else {})}
    lacking = [name for name in task.classes if name not in files]
    if lacking:
        raise UnledgeredError(f"of task '{task.name}' no contributions were kept")
    counted = tuple(name for name in task.classes if files[name] and name not in task.shared)
    try:
        kept = {name: Contribution.from_tensors(read(files[name]), features) for name in counted}
    except StateError as error:
        raise UnledgeredError(f"of task '{task.name}' {str(error).rstrip('.')}") from None
    # Of a task all of which a fleet's knowledge counts, the temperature does, too.
    return Lesson(counted, kept, task.temperature if counted or not task.shared else None)
