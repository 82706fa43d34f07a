"""What one class of one task contributes to what a device knows, small enough to keep beside all others.

A device's knowledge of its classes is a sum over images. Kept apart, class by class, its parts can be taken out
again: one is dropped, and the sum is made anew of what is left. Full, a part is a matrix of features by features; here
its spread is a few rows. docs/decisions/0030-ledger.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import StateError
from csk_sdk.method.heads import ClassStatistics, Scatter
from csk_sdk.method.known_classes import times_counted
from csk_sdk.method.symmetric import add_below, mirror

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
# Of the spread of a class in one task: directions that are kept as they are, and mixtures of what these leave.
DIRECTIONS, MIXTURES = integer("contributions", "directions"), integer("contributions", "mixtures")
_AT_ONCE = integer("contributions", "at_once")


@dataclass(frozen=True, eq=False)
class Contribution:
    """`count` images of a class with the mean `(f,)`; their scatter around it is nearly `factor.T @ factor`.

    `factor` is `(rows, f)`, both are float32. The spread of each single feature is exact.
    """

    count: float
    mean: Float32
    factor: Float32

    def with_(self, other: Contribution) -> Contribution:
        """The images of both, as those of one class; exact, with as many rows as both have and one more."""
        count = self.count + other.count
        apart = np.sqrt(self.count * other.count / count) * (self.mean.astype(np.float64) - other.mean)
        mean = (self.count * self.mean.astype(np.float64) + other.count * other.mean) / count
        factor = np.vstack([self.factor, other.factor, apart[None].astype(np.float32)])
        return Contribution(count, mean.astype(np.float32), factor)

    def scaled(self, times: float) -> Contribution:
        """The same images, each for `times` of them."""
        return replace(self, count=self.count * times, factor=self.factor * np.float32(np.sqrt(times)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As arrays for a safetensors file: `count` `(1,)` float64, `mean` and `factor` as they are."""
        return {"count": np.array([self.count], np.float64), "mean": self.mean, "factor": self.factor}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], features: int) -> Contribution:
        """Read back what `tensors` gave. Raises StateError where that is none over so many features."""
        count, mean, factor = (tensors.get(name, np.zeros(0)) for name in ("count", "mean", "factor"))
        fits = (count.shape, mean.shape, factor.shape[1:]) == ((1,), (features,), (features,))
        if not fits or factor.ndim != 2 or not all(np.isfinite(one).all() for one in (count, mean, factor)):
            raise StateError(f"a contribution is not one over {features} features")
        return cls(float(count[0]), mean.astype(np.float32), factor.astype(np.float32))


class ContributionSum:
    """Makes a contribution of images that come in batches, in memory that does not grow with them.

    Of the images around their mean, `directions` rows are those of the largest spread. What these leave is mixed,
    with random signs, into `mixtures` more: on average over signs, what these say of any two features is what was left
    of them, so that the errors of many classes cancel out where those of rows that are cut off add up. Of contributions
    that are added, `wait` more rows are kept before that is done: it takes long.
    """

    def __init__(
        self, features: int, directions: int = DIRECTIONS, mixtures: int = MIXTURES, wait: int = 0
    ) -> None:
        self._most, self._mixtures, self._wait = directions, mixtures, wait
        self._count, self._mean = 0.0, np.zeros(features)
        # Nothing is mixed before there are more images than rows: of many classes of few, that would be most of all.
        self._rows, self._mixed = np.zeros((0, features)), np.zeros((0, features))
        self._energy = np.zeros(features)
        self._waiting: list[Float32] = []
        # Of each class the same signs: a contribution is to depend on its own images alone.
        self._rng = np.random.default_rng(0)

    def add(self, features: Float32) -> None:
        """More images: `(n, f)` float32, finite."""
        room = self._most + self._mixtures + _AT_ONCE
        for start in range(0, len(features), _AT_ONCE):
            part = features[start : start + _AT_ONCE]
            if sum(map(len, self._waiting)) + len(part) > room:
                self._take_in()
            self._waiting.append(part)

    def add_contribution(self, one: Contribution) -> None:
        """The images of a contribution, of which it has the mean and the spread."""
        self._take_in()
        self._join(one.count, one.mean.astype(np.float64), one.factor.astype(np.float64), self._wait)

    def total(self) -> Contribution:
        """Of everything added."""
        self._take_in()
        if len(self._rows) > self._most + self._mixtures or self._mixed.any():
            self._shorten()
        elif len(self._rows) > 1:
            # Nothing is lost, but no row is an image's any more.
            self._rows = np.linalg.eigh(self._rows @ self._rows.T)[1].T @ self._rows
        mixed = self._mixed[: 0 if not self._mixed.any() else None]
        # Each feature's own spread is known exactly.
        left = np.maximum(self._energy - _squares(self._rows), 0.0)
        found = _squares(mixed)
        mixed = mixed * np.sqrt(np.divide(left, found, out=np.zeros_like(left), where=found > 0))
        factor = np.vstack([self._rows, mixed])
        return Contribution(float(self._count), self._mean.astype(np.float32), factor.astype(np.float32))

    def _take_in(self) -> None:
        """The waiting images into mean and rows."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting).astype(np.float64)
        self._waiting = []
        mean = rows.mean(axis=0)
        rows -= mean
        self._join(len(rows), mean, rows, 0)

    def _join(self, count: float, mean: Float64, rows: Float64, wait: int) -> None:
        """`count` more images around `mean`, whose scatter is that of `rows`; `wait` rows more are kept as they are."""
        both = self._count + count
        apart = mean - self._mean
        between = np.sqrt(self._count * count / both) * apart[None] if self._count else rows[:0]
        self._mean = self._mean + apart * (count / both)
        self._count = both
        self._energy += _squares(rows) + _squares(between)
        self._rows = np.vstack([self._rows, rows, between])
        if len(self._rows) > self._most + self._mixtures + wait:
            self._shorten()

    def _shorten(self) -> None:
        """Rows to directions, and what these leave into the mixtures."""
        rows, self._rows = self._rows, self._rows[:0]
        # Of the rows' products with one another, which are few, and not of the features'.
        _, vectors = np.linalg.eigh(rows @ rows.T)
        vectors = vectors[:, max(len(rows) - self._most, 0) :]
        self._rows = vectors.T @ rows
        rows -= vectors @ self._rows
        if self._mixtures:
            signs = self._rng.integers(0, 2, (self._mixtures, len(rows))) * 2.0 - 1.0
            mixed = signs @ rows / np.sqrt(self._mixtures)
            self._mixed = self._mixed + mixed if len(self._mixed) else mixed


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a task contributed: of each of its `classes` that there were images of, a contribution.

    `temperature` is what was measured on it, where the bundle brings none.
    """

    classes: tuple[str, ...]
    contributions: Mapping[str, Contribution]
    temperature: float | None = None

    def after(self, known: ClassStatistics) -> ClassStatistics:
        """`known`, and this lesson; new images of known classes count as they are to (method/known_classes.py)."""
        times = times_counted({name: one.count for name, one in self.contributions.items()}, known)
        scatter = np.zeros((known.features, known.features))
        sums, counts = np.zeros((len(self.classes), known.features)), np.zeros(len(self.classes))
        # Of many rows at once: each sum goes over a matrix of features by features.
        waiting: list[Float64] = []
        for row, name in enumerate(self.classes):
            one = self.contributions.get(name)
            if one is not None:
                counts[row] = times.get(name, 1.0) * one.count
                sums[row] = counts[row] * one.mean.astype(np.float64)
                waiting.append(np.sqrt(times.get(name, 1.0)) * one.factor.astype(np.float64))
            if waiting and (sum(map(len, waiting)) >= _AT_ONCE or row + 1 == len(self.classes)):
                add_below(scatter, np.vstack(waiting))
                waiting = []
        mirror(scatter)
        own = ClassStatistics(self.classes, Scatter(scatter), sums, counts, self.temperature)
        return known.merge(own, spent=True)

    def led_back(self, matrix: Float64) -> Lesson:
        """As features gave it of which these are the images under `matrix`."""
        return self.led(lambda rows: np.asarray(np.linalg.solve(matrix, rows.T).T, np.float64))

    def led(self, way: Callable[[Float64], Float64]) -> Lesson:
        """As features would give it that `way` makes of these, `(n, f)`."""
        if not self.contributions:
            return self
        parts = [part for one in self.contributions.values() for part in (one.mean[None], one.factor)]
        rows = way(np.vstack(parts).astype(np.float64))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        led = iter(part.astype(np.float32) for part in np.split(rows, ends))
        found = {
            name: Contribution(one.count, next(led)[0], next(led)) for name, one in self.contributions.items()
        }
        return replace(self, contributions=found)


def derived(base: ClassStatistics, lessons: Iterable[Lesson]) -> ClassStatistics:
    """What a device knows that had only these lessons, in this order, after `base`: to the bit what it has stored."""
    known = base
    for lesson in lessons:
        known = ClassStatistics.from_tensors(lesson.after(known).tensors())
    return known


def _squares(rows: Float64) -> Float64:
    """The sum of each feature's squares, `(f,)`."""
    total: Float64 = np.einsum("nf,nf->f", rows, rows)
    return total
