"""The discriminant over all classes, without each image that it judges in turn: an honest judge of what it learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

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
    the diagonal towards which, and the noise that is given back stay. All of it on features that are whitened, for
    which the covariance is the identity: a product with a root of the inverse for each image and mean, and no more.
    """

    # Of whitened features.
    means: Float64
    counts: Float64
    # What makes features `(n, f)` white; None where all that is asked for are the weights.
    whiten: Callable[[Float64], Float64] | None
    # The weights `(C, f)`, of features themselves; made where they are asked for.
    weights: Callable[[], Float64]
    # What of an image's own scatter is in the covariance, but for `n_c / (n_c - 1)`; and by class what is given back.
    part: float
    given: Float64

    @classmethod
    def of(cls, statistics: ClassStatistics, shrunk: Shrunk) -> LeftOut:
        """Of statistics, and their covariance as it is `shrunk`."""
        counts = statistics.counts
        means = shrunk.whiten(statistics.means)
        part = (1.0 - shrunk.shrinkage) / statistics.freedom
        given = shrunk.noise / (4.0 * counts)
        return cls(means, counts, shrunk.whiten, partial(shrunk.unwhiten, means), part, given)

    def judged(self) -> LeftOut:
        """The same, to judge no more images: without the root, where it is larger than the weights."""
        if len(self.means) > self.means.shape[1]:
            return self
        weights = self.weights()
        return replace(self, whiten=None, weights=lambda: weights)

    def at_means(self, rows: NDArray[np.int64], among: Rows = ALL) -> Float64:
        """The logits `(len(rows), len(among))` at the means of classes."""
        logits: Float64 = self.means[rows] @ self.means[among].T
        logits += (self.given - 0.5 * self._squares)[among]
        return logits

    @property
    def at_own_mean(self) -> Float64:
        """Of each class its own logit at its mean, `(C,)`."""
        return np.asarray(self.given + 0.5 * self._squares)

    @cached_property
    def _squares(self) -> Float64:
        squares: Float64 = np.einsum("cf,cf->c", self.means, self.means)
        return squares

    def logits(self, x: Float64, own: NDArray[np.int64]) -> Float64:
        """Those `(n, C)` of images of classes `own` `(n,)`, of more than one image each, without itself.

        `x` `(n, f)` are the images, white; they are written into.
        """
        logits: Float64 = x @ self.means.T
        rows, n = np.arange(len(x)), self.counts[own]
        # With x, its own mean, and what lies between them.
        at_own, r = logits[rows, own], x
        r -= self.means[own]
        square, with_means = np.einsum("nf,nf->n", r, r), r @ self.means.T
        with_own, own_squares = with_means[rows, own], self._squares[own]
        with_x = square + with_own
        part = self.part * n / (n - 1.0)
        # 1 less the image's own share of what is known around it.
        gain = part / np.maximum(1.0 - part * square, _LEAST_LEFT)
        logits += (gain * with_x)[:, None] * with_means + self.given
        logits -= 0.5 * (self._squares + gain[:, None] * with_means**2)
        # Of its own class, by the mean without it.
        with_mean = with_own - square / (n - 1.0)
        squares = own_squares - (with_own + with_mean) / (n - 1.0) + gain * with_mean**2
        product = at_own - with_x / (n - 1.0) + gain * with_x * with_mean
        logits[rows, own] = product - 0.5 * squares + self.given[own]
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
        shrunk: Shrunk | None,
        white: Float64 | None = None,
    ) -> JudgedImages | None:
        """Of features `(n, f)` and labels `(n,)` into `classes`, which are part of `statistics`, all counted there.

        `shrunk` is the covariance of these, and `white` the features under it, where they are there already. None where
        nothing can be decided between.
        """
        few = len(statistics.classes) < 2 or not (statistics.counts > 0).all()
        if not classes or few or shrunk is None:
            return None
        discriminant = LeftOut.of(statistics, shrunk)
        place = {name: row for row, name in enumerate(statistics.classes)}
        rows = np.array([place[name] for name in classes], np.int64)[labels]
        others = np.flatnonzero(statistics.counts[rows] > 1.0)
        logits = np.empty((len(others), len(statistics.classes)))
        for start in range(0, len(others), AT_ONCE):
            some = others[start : start + AT_ONCE]
            x = shrunk.whiten(features[some].astype(np.float64)) if white is None else white[some]
            logits[start : start + AT_ONCE] = discriminant.logits(x, rows[some])
        return cls(discriminant.judged(), features[others], labels[others], rows[others], logits)
