"""Classifier heads in closed form, from statistics that can be added up class by class.

A device cannot keep the images of past tasks, but it can keep sums over their features. From these sums a
head over *all* classes learned so far follows without training, and so without forgetting. Every head is
`(weight (C, f) float32, bias (C,) float32)` for `logits = features @ weight.T + bias`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer
from csk_sdk.errors import ConfigError, StateError, TaskError
from csk_sdk.method.symmetric import add_products, root_of
from csk_sdk.method.thin import THIN, ThinInverse, thin_rows

Float64 = NDArray[np.float64]
HeadArrays = tuple[NDArray[np.float32], NDArray[np.float32]]

# What they are stored as, now and at first.
STATISTICS = ("classes", "scatter", "means", "gram", "sums", "counts", "temperature")
# Rounding of a sum of float64 squares, as a share of that sum: what a difference of sums may be off by.
_ROUNDING = integer("covariance", "roundings") * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Scatter:
    """`sum (x - mu_c) (x - mu_c)^T` over samples `x` of classes with the means `mu_c`, `(f, f)` float64."""

    around: Float64


@dataclass(frozen=True)
class Means:
    """Of each class, the mean of its samples, `(n_classes, f)`; zero where there are none.

    In float32 as long as they are as they were stored, half as large.
    """

    of: Float64 | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Sums over the features of everything learned so far; a new object per change, so no state is half-made.

    `classes`: names, in the order in which they were first seen. `sums` `(n_classes, f)`, `counts` `(n_classes,)`:
    sum of `x`, and number of samples, per class. Their `matrix` is the `gram`, sum of `x x^T` over all samples, or the
    scatter around the means, as it is stored: each is made of the other where it is asked for, by a product over all
    classes. So are `sums` and `means` of their `totals`, either of which is as large as all classes together. No array
    is written into. All float64: moments are differences of these sums. `temperature` is what the
    discriminant's scores are divided by to be probabilities, None where it was never measured (method/calibration.py).
    `tensors` says how they are stored.
    """

    classes: tuple[str, ...]
    matrix: Float64 | Scatter
    totals: Float64 | Means
    counts: Float64
    temperature: float | None = None

    @classmethod
    def empty(cls, features: int) -> ClassStatistics:
        """Statistics of no sample, for feature vectors of length `features`."""
        return cls((), np.zeros((features, features)), np.zeros((0, features)), np.zeros(0))

    @property
    def features(self) -> int:
        """Length `f` of a feature vector."""
        totals = self.totals
        return int((totals.of if isinstance(totals, Means) else totals).shape[1])

    @cached_property
    def sums(self) -> Float64:
        """The sum of each class's samples, `(n_classes, f)`."""
        totals = self.totals
        if not isinstance(totals, Means):
            return totals
        return np.multiply(totals.of, self.counts[:, None], dtype=np.float64)

    @property
    def gram(self) -> Float64:
        """The sum of `x x^T`, `(f, f)`."""
        if not isinstance(self.matrix, Scatter):
            return self.matrix
        gram = _between(self.sums, self.counts)
        gram += self.matrix.around
        return gram

    def scatter(self) -> Float64:
        """`gram - sum n_c mu_c mu_c^T`, `(f, f)`: the spread around the classes' means."""
        if isinstance(self.matrix, Scatter):
            return self.matrix.around
        # In place: with features of several layers, a matrix of features by features is larger than many a network.
        scatter = _between(self.sums, self.counts)
        np.subtract(self.matrix, scatter, out=scatter)
        return scatter

    def add(
        self, features: NDArray[np.float32], labels: NDArray[Any], classes: Sequence[str]
    ) -> ClassStatistics:
        """These statistics and a batch: `features` `(n, f)` float32, `labels` `(n,)` integers into `classes`.

        A class known by name is updated, the others are appended in the order of `classes`, also those that
        the batch has no sample of: the order of classes must not depend on how the data was cut in batches.
        Raises TaskError for a label outside `classes`, or features that are not finite.
        """
        if len(labels) and not 0 <= int(np.min(labels)) <= int(np.max(labels)) < len(classes):
            raise TaskError(
                f"labels run from {np.min(labels)} to {np.max(labels)}, but there are {len(classes)} "
                "classes: check the task's labels against its class_names."
            )
        exact = features.astype(np.float64)
        if not np.isfinite(exact).all():
            raise TaskError(
                "the model's features are NaN or infinite for some images of this task: "
                "check the images, and that the bundle's preprocessing fits the model."
            )
        sums = np.zeros((len(classes), self.features))
        np.add.at(sums, labels, exact)
        counts = np.bincount(labels, minlength=len(classes)).astype(np.float64)
        return self.merge(ClassStatistics(tuple(classes), exact.T @ exact, sums, counts))

    def merge(self, other: ClassStatistics, spent: bool = False) -> ClassStatistics:
        """The statistics of both: classes of the same name are summed, those new in `other` come last.

        The temperature that was measured first stays. An `other` that is `spent` is not looked at again: its matrix, of
        features by features, becomes that of both.
        """
        if other.features != self.features:
            raise StateError(
                f"class statistics over {self.features} and {other.features} features do not belong to "
                "one model: use the state with the bundle that it was made with."
            )
        classes = tuple(dict.fromkeys(self.classes + other.classes))
        row = {name: index for index, name in enumerate(classes)}
        rows = np.array([row[name] for name in other.classes], np.int64)
        before = np.zeros(len(classes))
        before[: len(self.classes)] = self.counts
        counts = before.copy()
        counts[rows] += other.counts
        totals = self._totals_with(other, rows, before[rows], counts[rows])
        temperature = other.temperature if self.temperature is None else self.temperature
        return ClassStatistics(classes, self._matrix_with(other, rows, spent), totals, counts, temperature)

    def _totals_with(
        self, other: ClassStatistics, rows: NDArray[np.int64], before: Float64, after: Float64
    ) -> Float64 | Means:
        """Those of both; `rows` as in `_matrix_with`, and of each how many samples there were `before` and `after`."""
        count = max(len(self.classes), int(rows.max(initial=-1)) + 1)
        mine, found = self.totals, np.zeros((count, self.features))
        if not isinstance(mine, Means):
            found[: len(self.classes)] = mine
            found[rows] += other.sums
            return found
        found[: len(self.classes)] = mine.of
        sums = found[rows] * before[:, None] + other.sums
        found[rows] = sums / np.where(after > 0, after, 1.0)[:, None]
        return Means(found)

    def _matrix_with(self, other: ClassStatistics, rows: NDArray[np.int64], spent: bool) -> Float64 | Scatter:
        """That of both, `rows` being the place of each of the other's classes in these and the new ones."""
        if not isinstance(self.matrix, Scatter) and not isinstance(other.matrix, Scatter):
            return self.matrix + other.matrix
        theirs = other.scatter()
        scatter = np.add(self.scatter(), theirs, out=theirs if spent else None)
        there = np.flatnonzero(rows < len(self.classes))
        n, m = self.counts[rows[there]], other.counts[there]
        both = (n > 0) & (m > 0)
        there, n, m = there[both], n[both, None], m[both, None]
        if len(there):
            # Of a class in both, what lies between its two means.
            apart = np.sqrt(n * m / (n + m)) * (self.means_of(rows[there]) - other.means_of(there))
            add_products(scatter, apart)
        return Scatter(scatter)

    def scaled(self, factor: float) -> ClassStatistics:
        """The statistics of each image counted `factor` times."""
        sums, counts = self.sums * factor, self.counts * factor
        return ClassStatistics(
            self.classes, self._changed(lambda one: one * factor), sums, counts, self.temperature
        )

    def mapped(self, around: Callable[[Float64], Float64], sums: Float64) -> ClassStatistics:
        """Those of features under a linear map: `around` gives `map @ matrix @ map.T` of a symmetric matrix."""
        return ClassStatistics(self.classes, self._changed(around), sums, self.counts, self.temperature)

    def _changed(self, how: Callable[[Float64], Float64]) -> Float64 | Scatter:
        matrix = self.matrix
        return Scatter(how(matrix.around)) if isinstance(matrix, Scatter) else how(matrix)

    def same_as(self, other: ClassStatistics) -> bool:
        """Whether both know the same classes of the same samples, to the bit; what was measured of them may differ."""
        return (
            self.classes == other.classes
            and np.array_equal(self.counts, other.counts)
            and np.array_equal(self.means, other.means)
            and np.array_equal(self.scatter(), other.scatter())
        )

    def named(self, names: Mapping[str, str]) -> ClassStatistics:
        """The statistics with other names of some classes; those that have one name then are one class."""
        own = [names.get(name, name) for name in self.classes]
        classes = tuple(dict.fromkeys(own))
        rows = [classes.index(name) for name in own]
        sums, counts = np.zeros((len(classes), self.features)), np.zeros(len(classes))
        np.add.at(sums, rows, self.sums)
        np.add.at(counts, rows, self.counts)
        return ClassStatistics(classes, self.gram, sums, counts, self.temperature)

    def without(self, names: Iterable[str]) -> ClassStatistics:
        """The statistics of the other classes; of the spread around the means, the share of the images that go, goes.

        Whose spread it was is not known any more: a spread that all classes share stays what it is.
        """
        dropped = set(names)
        kept = np.array([name not in dropped for name in self.classes], np.bool_)
        if kept.all():
            return self
        sums, counts = self.sums[kept], self.counts[kept]
        classes = tuple(name for name in self.classes if name not in dropped)
        share = _freedom(counts) / self.freedom if counts.any() else 0.0
        return ClassStatistics(classes, Scatter(share * self.scatter()), sums, counts, self.temperature)

    def count(self, classes: Iterable[str]) -> float:
        """How many images of these classes, names of which may be unknown, were counted."""
        wanted = set(classes)
        return float(sum(n for name, n in zip(self.classes, self.counts, strict=True) if name in wanted))

    @cached_property
    def means(self) -> Float64:
        """Of each class, `(n_classes, f)`; zero where there are no samples."""
        totals = self.totals
        if isinstance(totals, Means):
            return np.asarray(totals.of, np.float64)
        return totals / np.where(self.counts > 0, self.counts, 1.0)[:, None]

    def means_of(self, rows: NDArray[np.int64]) -> Float64:
        """Of some classes, by their places, a new array: no more is made of the others."""
        totals = self.totals
        if isinstance(totals, Means):
            return totals.of[rows].astype(np.float64, copy=False)
        counts = self.counts[rows]
        return np.asarray(totals[rows] / np.where(counts > 0, counts, 1.0)[:, None])

    @property
    def counted(self) -> dict[str, float]:
        """How many images of each class are counted, by name."""
        return dict(zip(self.classes, self.counts.tolist(), strict=True))

    @property
    def freedom(self) -> float:
        """Degrees of freedom within classes: samples less classes that have some, at least 1."""
        return _freedom(self.counts)

    @property
    def energy(self) -> float:
        """The sum of all squares, the trace of `gram`."""
        if not isinstance(self.matrix, Scatter):
            return float(np.trace(self.matrix))
        squares = np.einsum("cf,cf->c", self.means, self.means)
        return float(np.trace(self.matrix.around)) + float(self.counts @ squares)

    @cached_property
    def rounding(self) -> float:
        """What rounding of these sums may make a variance off by; above 0, so that it makes a matrix regular."""
        return max(_ROUNDING * self.energy / self.freedom, float(np.finfo(np.float64).tiny))

    def covariance(self, spent: bool = False) -> Float64:
        """The covariance within classes, `(f, f)`: the scatter over the degrees of freedom, a new array.

        Of statistics that are `spent`, whose spread is not looked at again, it is written into their own matrix.
        """
        if isinstance(self.matrix, Scatter):
            around = self.matrix.around
            return np.asarray(np.divide(around, self.freedom, out=around if spent else None))
        covariance = self.scatter()
        covariance /= self.freedom
        return covariance

    def variances(self) -> Float64:
        """Its diagonal, `(f,)`, none below zero."""
        if isinstance(self.matrix, Scatter):
            scatter = np.diag(self.matrix.around)
        else:
            scatter = np.diag(self.matrix) - (_roots(self.sums, self.counts) ** 2).sum(axis=0)
        return np.asarray(np.maximum(scatter, 0.0) / self.freedom)

    def tensors(self, prefix: str = "statistics.") -> dict[str, NDArray[Any]]:
        """As arrays for a safetensors file; the names as UTF-8 JSON in `PREFIXclasses`, uint8.

        `means` `(n_classes, f)` float32, zero for a class without samples; `scatter` `(f, f)` float64: sum of
        `(x - mu_c) (x - mu_c)^T` over all samples; `counts` `(n_classes,)` float64. A generation grows by the means:
        rounded, they move by no more than the float32 features that they are means of were rounded. The scatter is
        taken around the exact means; with the sum of `x x^T` beside rounded means instead, their rounding times
        their size would become spread. Before the first class, `scatter` is `(0, 0)`: it would be zeros, and large.
        `temperature` `(1,)` float64 is there where it was measured.
        """
        names = json.dumps(self.classes, ensure_ascii=False).encode()
        empty = not self.classes
        measured = {} if self.temperature is None else {f"{prefix}temperature": np.array([self.temperature])}
        return {
            **measured,
            f"{prefix}classes": np.frombuffer(names, np.uint8),
            f"{prefix}scatter": np.zeros((0, 0)) if empty else self.scatter(),
            f"{prefix}means": self.means.astype(np.float32),
            f"{prefix}counts": self.counts,
        }

    def replace_in(self, tensors: dict[str, NDArray[Any]], prefix: str = "statistics.") -> None:
        """Put these statistics in the place of those in `tensors`, in whichever form they were stored."""
        for key in STATISTICS:
            tensors.pop(prefix + key, None)
        tensors.update(self.tensors(prefix))

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], prefix: str = "statistics."
    ) -> ClassStatistics:
        """Read back what `tensors` gave; also `gram` and `sums` as they are, which were stored at first.

        Raises StateError when arrays are missing or do not fit together.
        """
        summed = f"{prefix}sums" in tensors
        square, rows = ("gram", "sums") if summed else ("scatter", "means")
        try:
            names = _names(tensors, prefix)
            gram, counts = (np.asarray(tensors[prefix + key], np.float64) for key in (square, "counts"))
            totals: Float64 | NDArray[np.float32] = tensors[prefix + rows]
            if summed or totals.dtype != np.float32:
                totals = np.asarray(totals, np.float64)
        except (KeyError, ValueError) as error:
            raise StateError(f"the class statistics {prefix!r} cannot be read ({error}).") from None
        if not names and totals.ndim == 2 and gram.size == 0:
            gram = np.zeros((totals.shape[1], totals.shape[1]))
        count, features = len(names), len(gram)
        if (gram.shape, totals.shape, counts.shape) != ((features, features), (count, features), (count,)):
            raise StateError(
                f"the class statistics {prefix!r} do not fit together: {count} classes, {square} {gram.shape}, "
                f"{rows} {totals.shape}, counts {counts.shape}."
            )
        temperature = _temperature(tensors.get(f"{prefix}temperature"))
        if summed:
            return cls(names, gram, np.asarray(totals, np.float64), counts, temperature)
        return cls(names, Scatter(gram), Means(totals), counts, temperature)


def images_counted(tensors: Mapping[str, NDArray[Any]], prefix: str = "statistics.") -> dict[str, float]:
    """`ClassStatistics.counted` of those in `tensors`; all else is left where it lies.

    Raises StateError when arrays are missing or do not fit together.
    """
    try:
        counts = tensors[f"{prefix}counts"].tolist()
        return dict(zip(_names(tensors, prefix), counts, strict=True))
    except (KeyError, ValueError, TypeError) as error:
        raise StateError(f"the class statistics {prefix!r} cannot be read ({error}).") from None


def _names(tensors: Mapping[str, NDArray[Any]], prefix: str) -> tuple[str, ...]:
    return _parsed(tensors[f"{prefix}classes"].astype(np.uint8).tobytes())


# A lesson reads the same names half a dozen times.
@lru_cache(2)
def _parsed(names: bytes) -> tuple[str, ...]:
    return tuple(json.loads(names))


def _temperature(stored: NDArray[Any] | None) -> float | None:
    """Raises StateError for one that nothing can be divided by."""
    if stored is None:
        return None
    if stored.shape != (1,) or not 0.0 < float(stored[0]) < np.inf:
        raise StateError(
            f"the class statistics have the temperature {stored.tolist()}, which is not one number above 0."
        )
    return float(stored[0])


def _between(sums: Float64, counts: Float64) -> Float64:
    """`sum n_c mu_c mu_c^T`, `(f, f)`: what the classes' means contribute to the sum of `x x^T`."""
    roots = _roots(sums, counts)
    return roots.T @ roots


def _roots(sums: Float64, counts: Float64) -> Float64:
    """The means, each times the root of how many samples it is of, `(n_classes, f)`."""
    return sums / np.sqrt(np.where(counts > 0, counts, 1.0))[:, None]


def _freedom(counts: Float64) -> float:
    return max(float(counts.sum()) - int((counts > 0).sum()), 1.0)


def lda_head(
    statistics: ClassStatistics, prior_pictures: float, classes: Sequence[str] | None = None
) -> HeadArrays:
    """Linear discriminant analysis (Fisher, 1936; regularised as Friedman, 1989), equal priors for all classes.

    `Sw = (gram - sum n_c mu_c mu_c^T) / (n - C)`, shrunk to `(1 - a) Sw + a diag(Sw)`: features in different units,
    as those of several layers are, count alike. `a = m / (n - C + m)`, as if `m = prior_pictures` more images had
    shown no correlation. With this `S`, `w_c = S^-1 mu_c` and `b_c = -mu_c^T S^-1 mu_c / 2`: softmax of the logits is
    the posterior of Gaussian features, and divided by the statistics' temperature nearly that of real ones. The mean of
    `n_c` images is off by noise: all lies `t / n_c` further from it than from the true mean, `t = tr(S^-1 Sw)`. `b_c`
    gives half of that back, `t / (4 n_c)`, so that classes of few images stand their ground beside classes of many
    (docs/decisions/0021).
    Equal priors for the classes, since how many images a device happened to see says little about what it will
    see. `Sw` is shared by everything learned so far, `classes` only picks (and orders) the rows that are returned.
    Where the data show no spread within classes at all, the nearest class mean wins.
    Raises ConfigError for `prior_pictures` below zero, TaskError for a class unknown or without samples.
    """
    if not 0.0 <= prior_pictures < np.inf:
        raise ConfigError(f"prior_pictures is {prior_pictures}, but it must be a finite number from 0 on.")
    rows = _rows(statistics, classes)
    means = statistics.means if classes is None else statistics.means_of(rows)
    shrunk = Shrunk.of(statistics, prior_pictures)
    if shrunk is None:
        # Any multiple of the identity decides alike; this one keeps logits O(f).
        energy = statistics.energy / statistics.counts.sum() / statistics.features
        weight, noise = means / (energy or 1.0), 0.0
    else:
        weight, noise = shrunk.solve(means), shrunk.noise
    bias = -0.5 * np.einsum("cf,cf->c", weight, means) + noise / (4.0 * statistics.counts[rows])
    temperature = statistics.temperature or 1.0
    weight /= temperature
    return weight.astype(np.float32), (bias / temperature).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The inverse of the covariance within classes as `lda_head` shrinks it, `S = (1 - a) Sw + a diag(Sw)`.

    `solve` multiplies rows `(n, f)` with it; `whiten` with a root of it, `S^-1 = root @ root.T`, so that what is left
    of `S` is the identity, and `unwhiten` rows of weights of such features with `root.T`, to weights of the features
    themselves. `noise` is that of means, `t = tr(S^-1 Sw)`; `shrinkage` is the share `a`.
    """

    solve: Callable[[Float64], Float64]
    whiten: Callable[[Float64], Float64]
    unwhiten: Callable[[Float64], Float64]
    shrinkage: float
    # Not computed before it is asked for: it takes about as long as the factor.
    _noise: Callable[[], float]

    @cached_property
    def noise(self) -> float:
        """`tr(S^-1 Sw)`."""
        return self._noise()

    @classmethod
    def of(cls, statistics: ClassStatistics, prior_pictures: float, spent: bool = False) -> Shrunk | None:
        """None where the data show no spread within classes beyond rounding. `spent` as in `covariance`."""
        freedom, floor = statistics.freedom, statistics.rounding
        within = statistics.covariance(spent)
        if float(np.trace(within)) / statistics.features <= floor:
            return None
        shrinkage = prior_pictures / (freedom + prior_pictures)
        ridge = shrinkage * np.diag(within) + floor
        # Without a prior, nothing but rounding keeps a covariance of few images regular.
        few = prior_pictures > 0.0 and freedom <= int(THIN * statistics.features)
        rows = thin_rows(within, floor) if few else None
        if rows is not None:
            thin = ThinInverse(rows, ridge, 1.0 - shrinkage)
            return cls(thin, thin.whiten, thin.unwhiten, shrinkage, lambda: thin.noise)
        within *= 1.0 - shrinkage
        # With few samples only the ridge makes it regular.
        np.einsum("ii->i", within)[:] += ridge
        root = root_of(within)
        # By `Sw = (S - ridge) / (1 - a)`, so that no second matrix is needed.
        return cls(
            root.solve,
            root.whiten,
            root.unwhiten,
            shrinkage,
            lambda: float(np.sum(1.0 - ridge * root.diagonal())) / (1.0 - shrinkage),
        )


def _rows(statistics: ClassStatistics, classes: Sequence[str] | None) -> NDArray[np.int64]:
    """Row of each wanted class; every one must have samples."""
    row = {name: index for index, name in enumerate(statistics.classes)}
    wanted = statistics.classes if classes is None else tuple(classes)
    missing = [name for name in wanted if name not in row or statistics.counts[row[name]] == 0]
    if missing or not wanted:
        what = f"class {missing[0]!r} has no samples" if missing else "there are no classes"
        raise TaskError(f"{what} to compute a head from: learn a task that contains some.")
    return np.array([row[name] for name in wanted], np.int64)
