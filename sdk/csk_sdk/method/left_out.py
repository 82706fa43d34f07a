"""The discriminant over all classes, without each image that it judges in turn: an honest judge of what it learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics, Shrunk

Float64 = NDArray[np.float64]
_LEAST_LEFT = number("unknown", "least_left")
# So many images are judged at once: their rows are float64, and as long as the features.
AT_ONCE = integer("unknown", "images_at_once")
# Some of all classes, by their places.
Rows = NDArray[np.int64] | slice
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The discriminant of `lda_head`, without each image that it judges in turn.

    Without `x`, its class's mean is `mu - r / (n_c - 1)`, `r = x - mu`, and the scatter less by
    `n_c / (n_c - 1) r r^T`: of rank one, so that the inverse follows (Sherman and Morrison, 1950). How much is shrunk,
    the diagonal towards which, and the noise that is given back stay.
    """

    means: Float64
    counts: Float64
    # Rows `(n, f)` by the inverse.
    solve: Callable[[Float64], Float64]
    # What of an image's own scatter is in the covariance, but for `n_c / (n_c - 1)`; and by class what is given back.
    part: float
    given: Float64

    @classmethod
    def of(cls, statistics: ClassStatistics, prior_pictures: float) -> LeftOut | None:
        """None where there is no spread within classes."""
        shrunk = Shrunk.of(statistics, prior_pictures)
        if shrunk is None:
            return None
        counts = statistics.counts
        means = statistics.means
        part = (1.0 - shrunk.shrinkage) / statistics.freedom
        return cls(means, counts, shrunk.solve, part, shrunk.noise / (4.0 * counts))

    def at_means(self, rows: NDArray[np.int64], among: Rows = ALL) -> Float64:
        """The logits `(len(rows), len(among))` at the means of classes."""
        logits: Float64 = self.means[rows] @ self.ahead[among].T
        logits += (self.given - 0.5 * self._squares)[among]
        return logits

    @property
    def at_own_mean(self) -> Float64:
        """Of each class its own logit at its mean, `(C,)`."""
        return np.asarray(self.given + 0.5 * self._squares)

    @cached_property
    def ahead(self) -> Float64:
        """The weights `(C, f)`."""
        return self.solve(self.means)

    @cached_property
    def _squares(self) -> Float64:
        squares: Float64 = np.einsum("cf,cf->c", self.ahead, self.means)
        return squares

    def logits(self, x: Float64, own: NDArray[np.int64]) -> Float64:
        """Those `(n, C)` of images `(n, f)` of classes `own` `(n,)`, of more than one image each, without itself."""
        ahead = self.ahead
        n = self.counts[own]
        r = x - self.means[own]
        a = self.solve(r)
        part = self.part * n / (n - 1.0)
        # 1 less the image's own share of what is known around it.
        left = np.maximum(1.0 - part * np.einsum("nf,nf->n", a, r), _LEAST_LEFT)
        gain = part / left
        with_x, with_means = np.einsum("nf,nf->n", a, x), a @ self.means.T
        logits: Float64 = x @ ahead.T + (gain * with_x)[:, None] * with_means + self.given
        logits -= 0.5 * (self._squares + gain[:, None] * with_means**2)
        mean = self.means[own] - r / (n - 1.0)[:, None]
        b = ahead[own] - a / (n - 1.0)[:, None]
        with_mean = np.einsum("nf,nf->n", a, mean)
        square = np.einsum("nf,nf->n", b, mean) + gain * with_mean**2
        product = np.einsum("nf,nf->n", b, x) + gain * with_x * with_mean
        logits[np.arange(len(x)), own] = product - 0.5 * square + self.given[own]
        return logits


@dataclass(frozen=True, eq=False)
class JudgedImages:
    """A task's images, each judged without itself; of those alone in their class, nothing could be said.

    - `discriminant`: that judges them
    - `features`: `(n, f)` float32; `labels`: `(n,)` into the task's classes; `rows`: `(n,)` into all
    - `logits`: `(n, C)` of all classes
    """

    discriminant: LeftOut
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    logits: Float64

    @classmethod
    def of(
        cls,
        statistics: ClassStatistics,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        prior_pictures: float,
    ) -> JudgedImages | None:
        """Of features `(n, f)` and labels `(n,)` into `classes`, which are part of `statistics`, all counted there.

        None where nothing can be decided between.
        """
        if not classes or len(statistics.classes) < 2 or not (statistics.counts > 0).all():
            return None
        discriminant = LeftOut.of(statistics, prior_pictures)
        if discriminant is None:
            return None
        place = {name: row for row, name in enumerate(statistics.classes)}
        rows = np.array([place[name] for name in classes], np.int64)[labels]
        others = statistics.counts[rows] > 1.0
        features, labels, rows = features[others], labels[others], rows[others]
        logits = np.empty((len(rows), len(statistics.classes)))
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            logits[part] = discriminant.logits(features[part].astype(np.float64), rows[part])
        return cls(discriminant, features, labels, rows, logits)
