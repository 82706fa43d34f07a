"""Predictions in both scenarios, from features and the heads that a generation holds.

*Class-incremental*: one decision over all classes learned so far, by an LDA classifier computed from the class
statistics, so no image is stored. *Task-incremental*: the task is known, and its own trained head decides. Where
outputs do not compete (multi-label, regression), the first is the heads of all tasks side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.bundle.folder import Bundle
from csk_sdk.contract.manifest import CROSS_ENTROPY, Manifest
from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import ConfigError, TaskError
from csk_sdk.formats.given import text_of
from csk_sdk.formats.names import LONGEST, first_twin, is_plain
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.unknown import REJECT, Distance, Familiarity, distance
from csk_sdk.network.finite import require_answers, require_usable_head
from csk_sdk.network.knowledge import FeatureExtractor, require_room
from csk_sdk.objectives import Objective, Prediction, objective_of
from csk_sdk.objectives.objective import NamedHead
from csk_sdk.state import BASE, Generation

# Images that go through the network at once: an application may hand over a thousand.
_CHUNK = 64
LONGEST_FOLDER = integer("limits", "name_bytes")
"""Bytes of the name of a task or a domain at most."""


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


@dataclass(frozen=True, eq=False)
class Doubt:
    """How far images are from all that is known, and which share of known ones is rejected."""

    distance: Distance
    reject: float

    def judge(self, said: Prediction, features: NDArray[np.float32]) -> Prediction:
        """What was said of features `(n, f)`, with their distances."""
        found = Prediction(*said)
        found.distance = self.distance.of(features)
        found.known = found.distance <= self.distance.limit(self.reject)
        return found


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
        self._distance: Distance | None = None
        self._measured: bool | None = None
        self._extractor: FeatureExtractor | None = None
        self._opening = Lock()

    def head(self, task: str | None = None) -> LinearHead:
        """The linear head of one task ("base" for the source model's own), or of all classes when None.

        Raises TaskError for a task that is not learned, StateError for a head that is not finite.
        """
        if task is not None:
            text_of(task, "task", TaskError)
        if task not in self._heads:
            manifest = self.bundle.manifest
            self._heads[task] = (
                class_head(self.generation, manifest)
                if task is None
                else task_head(self.generation, manifest, task)
            )
        return self._heads[task]

    def predict(
        self, images: NDArray[Any] | Sequence[Any], task: str | None = None, reject: float | None = None
    ) -> Prediction:
        """What `Learner.predict` says."""
        doubt, head, (features, domains) = self.doubt(reject), self.head(task), self._seen(images)
        said = head.predict(features, self.bundle.manifest.input.noun)
        found = said if doubt is None else doubt.judge(said, features)
        found.domains = domains
        return found

    def doubt(self, reject: float | None = None) -> Doubt | None:
        """What rejects the share `reject` of known images, by default 0.05; None where nothing was measured.

        Raises ConfigError for no such share, and where one is asked for and nothing was measured.
        """
        share = REJECT if reject is None else reject
        if not isinstance(share, Real) or isinstance(share, bool) or not 0.0 <= share < 1.0:
            noun = self.bundle.manifest.input.noun
            raise ConfigError(
                f"reject is {share!r:.40}, and must be a share of the known {noun}s from 0 to below 1, such as "
                f"{REJECT}."
            )
        found = self.distance()
        if found is None and reject is not None:
            raise ConfigError(_unmeasured(self.bundle.manifest))
        return None if found is None else Doubt(found, share)

    def distance(self) -> Distance | None:
        """How far images are from all that is known, over all classes; None where nothing was measured."""
        if self._measured is None:
            # A state with many classes takes long to sum up: once is enough for the head and the distance.
            statistics = cache(lambda: ClassStatistics.from_tensors(self.generation.tensors))
            if None not in self._heads:
                self._heads[None] = class_head(self.generation, self.bundle.manifest, statistics)
            self._distance = class_distance(self.generation, self._heads[None], statistics)
            self._measured = True
        return self._distance

    def features(self, images: NDArray[Any] | Sequence[Any]) -> NDArray[np.float32]:
        """Features `(n, f)` of uint8 RGB images, `(n, h, w, c)` or a list of `(h, w, c)`.

        Of signals, int16 or float `(n, length, c)` or a list of `(length, c)`, where the model takes signals. They are
        finite: raises TaskError where the network computes NaN or infinity, naming the first by its number here.
        """
        return self._seen(images)[0]

    def _seen(
        self, images: NDArray[Any] | Sequence[Any]
    ) -> tuple[NDArray[np.float32], tuple[str | None, ...] | None]:
        """Features, and the name of each one's domain, None for none; None altogether where no domain is known."""
        extractor = self._opened()
        pixels = self.bundle.preprocessing.stack(images)
        starts = range(0, max(len(pixels), 1), self._chunk)
        parts = [pixels[start : start + self._chunk] for start in starts]
        found, told = [], []
        for start, part in zip(starts, parts, strict=True):
            features, of = extractor.told(self.bundle.preprocessing.normalize(part))
            require_answers(features, self.bundle.manifest.input.noun, start)
            found.append(features)
            told += of.tolist()
        # The last is that of -1.
        names = (*extractor.domains, None)
        return np.concatenate(found), tuple(names[one] for one in told) if extractor.domains else None

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


def is_folder_name(name: str) -> bool:
    """Whether a name can be that of a folder, and part of a tensor's name: of a task, or of a domain."""
    return is_plain(name) and "/" not in name and "\\" not in name and len(name.encode()) <= LONGEST_FOLDER


def require_new_task(
    generation: Generation, base_classes: Sequence[str], name: str, classes: Sequence[str] = ()
) -> None:
    """Raise TaskError where no task of this name, with these classes, can be learned after `generation`."""
    if name == BASE:
        raise TaskError(
            f"A task cannot be called '{BASE}': that is the name of what the source model knew already. Give "
            "the new data another name."
        )
    if not is_folder_name(name):
        raise TaskError(
            f"A task cannot be called {name[:40]!r}: its name must be valid as a folder's name, without "
            f"slashes, backslashes and control characters, and at most {LONGEST_FOLDER} bytes. Rename it."
        )
    if name in task_names(generation, base_classes):
        raise TaskError(
            f"Task '{name}' is learned already. Give the new data another name, or go back before it with "
            "`csk-sdk rollback --to`."
        )
    for one, count in Counter(classes).items():
        if count > 1:
            raise TaskError(
                f"Task '{name}' has the class {one[:40]!r} twice, and each class needs a name of its own: leave one "
                "out, or rename it."
            )
        if not is_plain(one):
            raise TaskError(
                f"Task '{name}' has a class called {one[:40]!r}, and a name is not empty, "
                f"at most {LONGEST} characters, in valid UTF-8 and without control characters. Rename it."
            )
    twins = first_twin(
        classes, (one for own in task_classes(generation, base_classes).values() for one in own)
    )
    if twins is not None:
        mine, theirs = (one[:40] for one in twins)
        raise TaskError(
            f"Task '{name}' has a class called {mine!r}, and there is one called {theirs!r}, which differs only in "
            "case, spaces at its ends or how accents are stored: they would share the answers. Call it "
            f"{theirs!r} where it is the same thing, or something else."
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
        raise TaskError(f"Task '{task}' is not learned. Learned: {', '.join(classes) or 'none'}.")
    return LinearHead(classes[task], *_stored_head(generation, task), objective_of(manifest.loss))


def _stored_head(generation: Generation, task: str) -> HeadArrays:
    weight, bias = _stored_parts(generation, task)
    require_usable_head(weight, bias, f"task '{task}'")
    return weight, bias


def _stored_parts(generation: Generation, task: str) -> HeadArrays:
    weight, bias = (generation.tensors[f"head/{task}/{part}"] for part in ("weight", "bias"))
    return weight, bias


def _stored_heads(generation: Generation, tasks: Iterable[str]) -> dict[str, HeadArrays]:
    """Those of several tasks, looked at together, as there may be a thousand; raises as `_stored_head`."""
    heads = {task: _stored_parts(generation, task) for task in tasks}
    if not all(np.isfinite(np.concatenate(parts)).all() for parts in zip(*heads.values(), strict=True)):
        for task, head in heads.items():
            require_usable_head(*head, f"task '{task}'")
    return heads


def class_head(
    generation: Generation, manifest: Manifest, statistics: Callable[[], ClassStatistics] | None = None
) -> LinearHead:
    """The head over everything learned, as the bundle's objective makes it; `statistics` gives the generation's.

    Raises StateError for one that is not finite.
    """
    objective = objective_of(manifest.loss)
    require_room(manifest.head.features)
    known = task_classes(generation, manifest.classes)
    if not known:
        return task_head(generation, manifest, BASE)
    contributions = {task.name: task.contributions for task in generation.tasks}
    stored = _stored_heads(generation, known)
    heads = [_counted(names, *stored[task], contributions.get(task, {})) for task, names in known.items()]
    sums = statistics() if statistics else ClassStatistics.from_tensors(generation.tensors)
    classes, weight, bias = objective.head_of_all(sums, heads)
    require_usable_head(weight, bias, "all classes")
    return LinearHead(classes, weight, bias, objective)


def _counted(
    classes: tuple[str, ...],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    contributions: Mapping[str, str],
) -> NamedHead:
    """A task's head for those of its classes that decisions over all classes know by it.

    Not for one that cannot be told from an older one, or that a later lesson replaced: these contribute nothing.
    """
    rows = [row for row, name in enumerate(classes) if contributions.get(name, name)]
    if len(rows) == len(classes):
        return classes, weight, bias
    return tuple(classes[row] for row in rows), weight[rows], bias[rows]


def class_distance(
    generation: Generation, head: LinearHead, statistics: Callable[[], ClassStatistics] | None = None
) -> Distance | None:
    """The distance from everything known, of which `head` is the head; None where nothing was measured.

    Where a task was learned without class statistics, nothing is known of how far its classes reach. `statistics` as in
    `class_head`.
    """
    sketch = Familiarity.from_tensors(generation.tensors)
    if sketch is None:
        return None
    sums = statistics() if statistics else ClassStatistics.from_tensors(generation.tensors)
    if sums.classes != head.classes:
        return None
    return distance(sums, sketch, (head.weight, head.bias))


def _unmeasured(manifest: Manifest) -> str:
    if manifest.loss != CROSS_ENTROPY:
        return (
            f"Only where each {manifest.input.noun} has one class, one can be unknown, and this bundle's loss is "
            f"{manifest.loss}: predict and export here without rejecting any."
        )
    return (
        "How far known classes reach was never measured here, so nothing can be called unknown: learn a task with "
        "class statistics and two images of a class, or build the bundle with --base-data."
    )
