"""More images of classes that are known already: how much they count beside those that came before.

Classes are one by name. New images of a known class are mostly of another kind than the old ones (another season,
another camera), or nobody would have collected them; but ten of them vanish in a mean over five hundred. So all that
a task brings of known classes count as much together as those that were there.
docs/decisions/0017-known-classes.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number
from csk_sdk.method.heads import ClassStatistics

MOST = number("known_classes", "most")


class KnownClasses:
    """Which of a task's classes are known by `old` statistics, and the statistics of its images of these."""

    def __init__(self, classes: Sequence[str], old: ClassStatistics) -> None:
        seen = {name for name, count in zip(old.classes, old.counts, strict=True) if count > 0}
        self.names = tuple(name for name in classes if name in seen)
        self._place = np.array([self.names.index(name) if name in seen else -1 for name in classes], np.int64)
        self._old = old
        self._again = ClassStatistics.empty(old.features)

    def add(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """One batch of the task: features `(n, f)`, labels `(n,)` into its classes."""
        if self.names:
            places = self._place[labels]
            known = places >= 0
            self._again = self._again.add(features[known], places[known], self.names)

    def balance(self, learned: ClassStatistics, scale: float = 1.0) -> ClassStatistics:
        """`learned`, the task's statistics, each image counted `scale` times; those of known classes more often."""
        count = scale * float(self._again.counts.sum())
        if not count:
            return learned.scaled(scale)
        factor = min(MOST, max(1.0, self._old.count(self.names) / count))
        return learned.scaled(scale).merge(self._again.scaled(scale * (factor - 1.0)))
