"""How unlike everything known an image is, from class statistics and the head over all classes: no image is kept.

Two things make an image unknown. It is *undecided*: the largest logit stands little above the mean of all classes (the
maximum logit of Hendrycks et al., ICML 2022, arXiv 1911.11132, and Vaze et al., ICLR 2022, arXiv 2110.06207, taken from
that mean, since a discriminant's logits have no zero of their own). Or it is *odd*: its features lie outside of where
all known ones do, by the mean of their squared deviations, each winsorised (Huber, 1964), so that no single feature
decides. `distance = exp(a max(0, oddness / usual - 1)) / (margin / margin at the classes' means)`: about 1 in the
middle of a class. docs/decisions/0029-unknown.md has what else was measured.

What share of known images lies beyond a distance is told by a sketch: for each class, quantiles of its images'
margins and oddness, each image left out of the statistics that judge it, over what the statistics give for the class
itself. As ratios they stay true when classes are added, and features drift.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.errors import StateError
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.left_out import AT_ONCE, JudgedImages

Float64 = NDArray[np.float64]
REJECT = number("unknown", "reject")
QUANTILES = integer("unknown", "quantiles")
STEEPNESS, LEAST_MARGIN = number("unknown", "steepness"), number("unknown", "least_margin")
MOST_SQUARED = number("unknown", "most_squared")
_USUAL_SHARE, _LEAST_VARIANCE = number("unknown", "usual_share"), number("unknown", "least_variance")
# Numbers of an array for which the C library, since a graph was opened, does not go to the system.
_SMALL = (128 << 10) // 8 - 64
# As tensors of a state, each behind `familiarity.`.
FAMILIARITY = ("classes", "margins", "oddness")


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The sketch: what is usual for images of known classes.

    `margins` and `oddness`, each `(len(classes), QUANTILES)` float32 above 0: at (j + 1/2) / QUANTILES, of a class's
    images, over the margin at its mean, and over the oddness that its mean and the spread within classes make.
    """

    classes: tuple[str, ...]
    margins: NDArray[np.float32]
    oddness: NDArray[np.float32]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As tensors of a state: `familiarity.classes` uint8 JSON, `.margins` and `.oddness` float32."""
        names = json.dumps(self.classes, ensure_ascii=False).encode()
        return {
            "familiarity.classes": np.frombuffer(names, np.uint8),
            "familiarity.margins": self.margins,
            "familiarity.oddness": self.oddness,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Familiarity | None:
        """Read back what `tensors` gave; None where nothing was measured. Raises StateError for what does not fit."""
        found = [tensors.get(f"familiarity.{name}") for name in FAMILIARITY]
        if all(one is None for one in found):
            return None
        try:
            names, *tables = (np.asarray(one) for one in found)
            classes = tuple(map(str, json.loads(names.astype(np.uint8).tobytes())))
            for table in tables:
                if table.shape != (len(classes), QUANTILES) or not (classes and np.isfinite(table).all()):
                    raise ValueError(f"{len(classes)} classes, quantiles {table.shape}")
                if not (table > 0).all():
                    raise ValueError("a quantile is not above 0")
        except (TypeError, ValueError) as error:
            raise StateError(f"the sketch of known images cannot be read ({error}).") from None
        margins, oddness = (table.astype(np.float32) for table in tables)
        return cls(classes, margins, oddness)

    def merge(self, other: Familiarity) -> Familiarity:
        """Both; of a class in both, the mean, as new images of a known class count like those that were there."""
        classes = tuple(dict.fromkeys(self.classes + other.classes))
        place = {name: row for row, name in enumerate(classes)}
        rows = np.array([place[name] for name in other.classes], np.int64)
        there = rows < len(self.classes)
        tables = []
        for old, new in ((self.margins, other.margins), (self.oddness, other.oddness)):
            table = np.concatenate([old, new[~there]])
            table[rows[there]] = (old[rows[there]] + new[there]) / 2
            tables.append(table)
        return Familiarity(classes, *tables)

    def without(self, names: Collection[str]) -> Familiarity | None:
        """Of all classes but these; None where none is left."""
        kept = [row for row, name in enumerate(self.classes) if name not in names]
        if not kept:
            return None
        return Familiarity(tuple(self.classes[row] for row in kept), self.margins[kept], self.oddness[kept])

    def named(self, names: Mapping[str, str]) -> Familiarity:
        """With other names for some classes; of two that have one name then, the mean."""
        found: Familiarity | None = None
        for row, name in enumerate(self.classes):
            rows = slice(row, row + 1)
            one = Familiarity((names.get(name, name),), self.margins[rows], self.oddness[rows])
            found = one if found is None else found.merge(one)
        assert found is not None
        return found

    def of(self, classes: Sequence[str]) -> tuple[Float64, Float64]:
        """Both tables for these classes, float64; for one that was not measured, what the others have on average."""
        if tuple(classes) == self.classes:
            return self.margins.astype(np.float64), self.oddness.astype(np.float64)
        place = {name: row for row, name in enumerate(self.classes)}
        rows = np.array([place.get(name, len(place)) for name in classes], np.int64)
        margins, oddness = (
            np.concatenate([table, table.mean(axis=0)[None]])[rows]
            for table in (self.margins.astype(np.float64), self.oddness.astype(np.float64))
        )
        return margins, oddness


def replace_sketch(tensors: dict[str, NDArray[Any]], sketch: Familiarity | None) -> None:
    """Put the sketch into a state's `tensors`, in place of the one that is there; None removes it."""
    for name in FAMILIARITY:
        tensors.pop(f"familiarity.{name}", None)
    if sketch is not None:
        tensors.update(sketch.tensors())


@dataclass(frozen=True, eq=False)
class Distance:
    """How far images are from all that is known.

    `weight` `(C, f)` and `bias` `(C,)` give the logits less their mean, `mean` and `scale` `(f,)` the features'
    deviations, all float32. `margin` is that at the classes' means, averaged over them. `usual` is the oddness
    that few known images exceed (`unknown.usual_share`). By class `(C, QUANTILES)`, their `margins` over that
    margin and the `penalties` of their oddness: each by each are the inverse distances of known images.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    usual: float
    margin: float
    margins: Float64
    penalties: Float64

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The distances `(n,)` of features `(n, f)`, above 0."""
        # A deviation too large for float32 is as odd as one can be.
        with np.errstate(over="ignore"):
            margins = (features @ self.weight.T + self.bias).max(axis=1) / self.margin
            squares = np.minimum(((features - self.mean) * self.scale) ** 2, MOST_SQUARED)
        distances = _penalty(squares.mean(axis=1), self.usual) / np.maximum(margins, LEAST_MARGIN)
        found: NDArray[np.float32] = distances.astype(np.float32)
        return found

    def limit(self, share: float) -> float:
        """The distance that this share of known images exceeds, by the sketch; infinity for none."""
        if not share > 0.0:
            return float("inf")
        # Asked for each image.
        found = self._limits.get(share)
        if found is None:
            found = self._limits[share] = self._limit(share)
        return found

    @cached_property
    def _limits(self) -> dict[float, float]:
        return {}

    def _limit(self, share: float) -> float:
        # How odd an image is tells next to nothing of its margin, so every pair is as likely.
        count = self.margins.size * self.penalties.shape[1]
        place = share * (count - 1)
        below, above = int(place), min(int(place) + 1, count - 1)
        closeness = self._closest(above + 1)
        closeness.partition((below, above))
        nearest, next_one = closeness[below], closeness[above]
        return 1.0 / float(nearest + (place - below) * (next_one - nearest))

    def _closest(self, least: int) -> Float64:
        """The closeness of at least so many pairs, those where it is lowest: all pairs together are large.

        A class's pairs of one margin lie between what its largest and smallest penalty make of that. Where it is lowest
        by the smallest, there are enough of them.
        """
        highest = (self.margins / self.penalties.min(axis=1)[:, None]).ravel()
        last = (least - 1) // self.penalties.shape[1]
        bound = np.partition(highest, last)[last]
        classes, places = np.nonzero(self.margins / self.penalties.max(axis=1)[:, None] <= bound)
        closeness = self.penalties[classes]
        np.divide(self.margins[classes, places, None], closeness, out=closeness)
        return closeness.reshape(-1)


def distance(statistics: ClassStatistics, sketch: Familiarity | None, head: HeadArrays) -> Distance | None:
    """The distance from all that `statistics` know, whose discriminant is `head`.

    None where nothing was measured, or there is nothing to decide between.
    """
    if sketch is None or len(statistics.classes) < 2 or not (statistics.counts > 0).all():
        return None
    weight, bias = (part.astype(np.float64) for part in head)
    margins = _margins_at_means(statistics, weight, bias)
    margin = float(margins.mean())
    if not margin > 0.0:
        return None
    ratios, odd = sketch.of(statistics.classes)
    spread = Spread.of(statistics)
    mean, variance = spread.mean, spread.variance
    starts = range(0, len(odd), AT_ONCE)
    odd *= np.concatenate([spread.typical(slice(start, start + AT_ONCE)) for start in starts])[:, None]
    usual = float(quantiles(odd.ravel(), np.array([_USUAL_SHARE]))[0])
    weight -= weight.mean(axis=0)
    return Distance(
        weight.astype(np.float32),
        (bias - bias.mean()).astype(np.float32),
        mean.astype(np.float32),
        (1.0 / np.sqrt(variance)).astype(np.float32),
        usual,
        margin,
        ratios * (margins / margin)[:, None],
        _penalty(odd, usual),
    )


def _margins_at_means(statistics: ClassStatistics, weight: Float64, bias: Float64) -> Float64:
    """By class, how far the largest logit of their discriminant at its mean stands above the mean of all, `(C,)`.

    The largest is its own, or that of a class of fewer images: at a mean, `-(mu_i - mu_c)^T S^-1 (mu_i - mu_c) / 2`
    is largest for the class itself, and what is given back for the noise of a mean, `t / (4 n_c)`, is more only for
    these. So no product of all classes with all is needed where they have about as many images.
    """
    means, counts = statistics.means, statistics.counts
    largest = np.einsum("cf,cf->c", means, weight) + bias
    order = np.argsort(counts, kind="stable")
    rising = counts[order]
    # As many squared are never in memory together.
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        fewer = order[: np.searchsorted(rising, counts[rows[-1]])]
        if len(fewer):
            others = (means[rows] @ weight[fewer].T + bias[fewer]).max(axis=1)
            largest[rows] = np.maximum(largest[rows], others)
    return np.asarray(np.maximum(largest - means @ weight.mean(axis=0) - bias.mean(), 0.0))


def measured(
    known: Familiarity | None, statistics: ClassStatistics, images: JudgedImages, unseen: float = 1.0
) -> Familiarity | None:
    """`known` and the sketch of a task's images, which are part of `statistics` and were judged by its discriminant.

    `unseen` is what the closeness of images that the network was not trained on is of that of these. `known` as it is
    where no class has two images.
    """
    rows = images.rows
    if not len(rows):
        return known
    spread = Spread.of(statistics)
    margins, oddness = margins_of(images.logits), np.empty(len(rows))
    # Of so few that the C library need not ask the system for each array anew.
    few = max(1, _SMALL // len(spread.mean))
    for start in range(0, len(rows), few):
        part = slice(start, start + few)
        oddness[part] = spread.left_out(images.features[part].astype(np.float64), rows[part])
    there = np.flatnonzero(np.bincount(rows))
    at_means = dict(zip(there, margins_of(images.discriminant.at_means(there)), strict=True))
    typical = dict(zip(there, spread.typical(there), strict=True))
    seen = [row for row in there if at_means[row] > 0.0]
    if not seen:
        return known
    names = tuple(statistics.classes[row] for row in seen)
    found = Familiarity(
        names,
        np.stack([_quantiles(unseen * margins[rows == row] / at_means[row]) for row in seen]),
        np.stack([_quantiles(oddness[rows == row] / typical[row]) for row in seen]),
    )
    return found if known is None else known.merge(found)


def _quantiles(ratios: Float64) -> NDArray[np.float32]:
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.maximum(quantiles(ratios, levels), LEAST_MARGIN).astype(np.float32)


def quantiles(values: Float64, levels: Float64) -> Float64:
    """Those of `values` `(n,)` at `levels` from 0 to 1, linear in between: to the bit NumPy's.

    NumPy's own imports a package for arrays with gaps, which takes longer than a lesson's statistics.
    """
    ordered, places = np.sort(values), levels * (len(values) - 1)
    below = places.astype(np.int64)
    share = places - below
    low, high = ordered[below], ordered[np.minimum(below + 1, len(values) - 1)]
    # From the nearer end, so that it is hit exactly.
    found: Float64 = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1.0 - share))
    return found


def _penalty(oddness: NDArray[Any], usual: float) -> NDArray[Any]:
    penalty: NDArray[Any] = np.exp(STEEPNESS * np.maximum(oddness / usual - 1.0, 0.0))
    return penalty


def _squares(rows: Float64) -> Float64:
    """The sum of each feature's squares, `(f,)`."""
    return np.asarray(np.einsum("cf,cf->f", rows, rows))


def margins_of(logits: Float64) -> Float64:
    """How far the largest logit stands above the mean of all, `(n,)`."""
    margins: Float64 = logits.max(axis=1) - logits.mean(axis=1)
    return margins


class Spread(NamedTuple):
    """How features are spread over the classes of statistics, every class counting the same.

    `mean` and `variance` `(f,)` of each feature, none of the variances zero. Of these, by feature: the variance
    `within` classes, and the mean of their means' `squares`.
    """

    statistics: ClassStatistics
    means: Float64
    mean: Float64
    squares: Float64
    within: Float64
    variance: Float64

    @classmethod
    def of(cls, statistics: ClassStatistics) -> Spread:
        """Of statistics whose classes all have images."""
        means = statistics.means
        mean = means.mean(axis=0)
        within = statistics.variances()
        between = np.zeros(len(mean))
        # One array for all parts: a new one each time would be taken from the system each time.
        room = np.empty((min(AT_ONCE, len(means)), len(mean)))
        for start in range(0, len(means), AT_ONCE):
            part = means[start : start + AT_ONCE]
            between += _squares(np.subtract(part, mean, out=room[: len(part)]))
        between /= len(means)
        squares = _squares(means) / len(means)
        variance = within + between
        variance += _LEAST_VARIANCE * float(variance.mean()) + statistics.rounding
        return cls(statistics, means, mean, squares, within, variance)

    def typical(self, rows: NDArray[np.int64] | slice) -> Float64:
        """How odd each of some classes is, `(len(rows),)`: by its mean, and the variance within classes."""
        odd = (self.means[rows] - self.mean) ** 2
        odd += self.within
        odd /= self.variance
        return np.asarray(np.minimum(odd, MOST_SQUARED, out=odd).mean(axis=1))

    def left_out(self, x: Float64, own: NDArray[np.int64]) -> Float64:
        """The oddness `(n,)` of images `(n, f)` of classes `own`, each left out of its class's mean and its scatter."""
        statistics, means = self.statistics, self.means
        n = statistics.counts[own][:, None]
        r = x - means[own]
        moved = means[own] - r / (n - 1.0)
        others = self.mean + (moved - means[own]) / len(means)
        between = self.squares + (moved**2 - means[own] ** 2) / len(means) - others**2
        left = self.within - n / (n - 1.0) * r**2 / statistics.freedom + np.maximum(between, 0.0)
        oddness: Float64 = np.minimum(
            (x - others) ** 2 / np.maximum(left, _LEAST_VARIANCE * self.variance), MOST_SQUARED
        )
        return np.asarray(oddness.mean(axis=1), np.float64)
