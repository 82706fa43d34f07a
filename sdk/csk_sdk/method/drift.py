"""Following the features as they drift, so that what was learned on the old ones stays valid.

A task moves the features a little even where the projection holds. The drift is visible on the task's own pictures,
seen by the network before and after, and to first order it is linear: estimated there, it is undone for the old heads
and applied to the old class statistics, without any old picture. After learnable drift compensation (Gomez-Villa et
al., ECCV 2024, arXiv 2407.08536); here in closed form, by ridge regression towards the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.method.heads import ClassStatistics

Float64 = NDArray[np.float64]
# Share of the mean feature energy that pulls towards "no drift" where the task's pictures say nothing.
RIDGE = 0.01


class DriftEstimate:
    """Both maps, from the features of the same pictures before and after; what is added is kept, and not copied."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    def add(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """One batch: `before` and `after` `(n, f)` float32."""
        self._pairs.append((before, after))

    def fit(self, ridge: float = RIDGE) -> Drift:
        """Least squares with `ridge * trace / f` on the distance from the identity."""
        return Drift(
            forward=_towards_identity(self._pairs, self._features, ridge),
            backward=_towards_identity(
                [(after, before) for before, after in self._pairs], self._features, ridge
            ),
        )


@dataclass(frozen=True, eq=False)
class Drift:
    """`after = before @ forward.T` and `before = after @ backward.T`, each `(f, f)` float64, to first order."""

    forward: Float64
    backward: Float64

    def head(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """A head's weight `(n, f)` for the features after, giving the logits that it gave before."""
        return (weight.astype(np.float64) @ self.backward).astype(np.float32)

    def statistics(self, statistics: ClassStatistics) -> ClassStatistics:
        """Class statistics as the features after would have given them; counts stay."""
        return ClassStatistics(
            statistics.classes,
            self.forward @ statistics.gram @ self.forward.T,
            statistics.sums @ self.forward.T,
            statistics.counts,
            statistics.temperature,
        )


def _towards_identity(
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], features: int, ridge: float
) -> Float64:
    """`M = argmin sum |target - M source|^2 + a |M - I|^2` over pairs of sources and targets `(n, f)`."""
    # As few matrices of features by features as can be: they are the peak of learning on a small network.
    energy, moved = np.zeros((features, features)), np.zeros((features, features))
    for source, target in pairs:
        x = source.astype(np.float64)
        energy += x.T @ x
        moved += (target - x).T @ x
    np.einsum("ii->i", energy)[:] += ridge * float(np.trace(energy)) / features or 1.0
    # Exactly no drift leaves exactly the identity: the right-hand side is then zero.
    change = np.linalg.solve(energy, moved.T).T.astype(np.float64, copy=False)
    np.einsum("ii->i", change)[:] += 1.0
    return change
