"""Heads over features of which an upgrade keeps a part: as nearly their old logits as can be, on what is known.

A head goes to the next bundle behind the way back, which was fitted to images of the base. Where that loses much of
what the head says, the device's own statistics tell more: of its classes it knows the means and the spread around
them, and so how the old logits follow from the new features. docs/decisions/0032-upgrade.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number
from csk_sdk.method.feature_map import FeatureMap
from csk_sdk.method.heads import ClassStatistics, HeadArrays
from csk_sdk.method.symmetric import inverse_of

Float64 = NDArray[np.float64]
TELLS, PRIOR_IMAGES = number("upgrade", "tells"), number("upgrade", "prior_images")
UNSEEN = number("upgrade", "unseen")


class CarriedHeads:
    """By `statistics` over the old features: images lie around their class's mean, each class being as likely.

    `S` is the covariance within classes, shrunk as if `PRIOR_IMAGES` more had shown no correlation, `A` the way to the
    new features, `U` the covariance of what it leaves, and `D` the deviations `(k, f_old)` of `k` means, over the root
    of `k`: old features vary as `C = S + D'D`, and new ones as `A C A' + U`. The base's images, which a map is fitted
    to, do not show all that it leaves of other classes: a hundredth of each new feature's variance is in `U` besides.
    """

    def __init__(self, way: FeatureMap, statistics: ClassStatistics) -> None:
        self._way, self._statistics = way, statistics
        freedom = statistics.freedom
        shrinkage = PRIOR_IMAGES / (freedom + PRIOR_IMAGES)
        self._within = statistics.covariance()
        ridge = shrinkage * np.diag(self._within)
        self._within *= 1.0 - shrinkage
        np.einsum("ii->i", self._within)[:] += ridge
        self._cross = way.through(self._within)
        varied = way.through(self._cross.T)
        self._left = way.unexplained.reshape(-1, len(varied)).astype(np.float64)
        varied += self._left.T @ self._left
        own = np.einsum("ii->i", varied)
        own += statistics.rounding
        if not way.exact:
            own *= 1.0 + UNSEEN
        self._inverse = inverse_of(varied)

    def told(self, weight: NDArray[np.float32], classes: Sequence[str], exclusive: bool = True) -> float:
        """The share of the variance of a head's logits that is the same behind the way back.

        Of `exclusive` classes each less their mean, which decides nothing.
        """
        apart = self._apart(classes)[1]
        own = weight.astype(np.float64)
        if exclusive:
            own -= own.mean(axis=0)
        behind = own @ self._way.backward
        lost = own - self._way.back_through(behind)
        total = self._energy(own, apart)
        noise = behind @ self._left.T
        left = self._energy(lost, apart) + float(np.vdot(noise, noise))
        return 1.0 - left / total if total > 0.0 else 1.0

    def head(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32], classes: Sequence[str]
    ) -> HeadArrays:
        """The head over the new features with the least squares to the old one's logits: `W C A' (A C A' + U)^-1`.

        Behind the inverse of `A S A' + U`, which is that of all heads, `D` counts as few rows (Woodbury).
        """
        mean, apart = self._apart(classes)
        own, moved = weight.astype(np.float64), self._way.through(apart)
        wanted = (own @ self._cross + (own @ apart.T) @ moved) @ self._inverse
        turned = moved @ self._inverse
        inner = np.eye(len(moved)) + turned @ moved.T
        found = wanted - np.linalg.solve(inner, moved @ wanted.T).T @ turned
        there = self._way.through(mean[None], self._way.offset)[0]
        return found.astype(np.float32), (bias + own @ mean - found @ there).astype(np.float32)

    def _apart(self, classes: Sequence[str]) -> tuple[Float64, Float64]:
        """The mean of the classes' means, and by class what lies between, over the root of how many they are.

        Of classes of which not each was counted (one of two that cannot be told apart), those of all that is known.
        """
        known = self._statistics
        counted = {name for name, count in known.counted.items() if count > 0}
        chosen = set(classes) if counted.issuperset(classes) else counted
        means = known.means[[name in chosen for name in known.classes]]
        mean = means.mean(axis=0)
        return mean, (means - mean) / np.sqrt(len(means))

    def _energy(self, rows: Float64, apart: Float64) -> float:
        """The sum of `r C r'` over rows."""
        between = rows @ apart.T
        return float(np.vdot(rows @ self._within, rows) + np.vdot(between, between))
