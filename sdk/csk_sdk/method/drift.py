"""Drift compensation: following the features as they move, so that what was learned on the old ones stays valid.

A task moves the features a little even where the projection holds. The drift is visible on the task's own images,
seen by the network before and after, and to first order it is linear: estimated there, it is undone for the old heads
and applied to the old class statistics, without any old image. After learnable drift compensation (Gomez-Villa et
al., ECCV 2024, arXiv 2407.08536); here in closed form, by ridge regression towards the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics

Float64 = NDArray[np.float64]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
RIDGE, _MOVEMENTS = number("drift", "ridge"), integer("drift", "movements")


class DriftEstimate:
    """Both maps, from the features of the same images before and after; what is added is kept, and not copied."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._pairs: list[Pair] = []

    def add(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """One batch: `before` and `after` `(n, f)` float32."""
        self._pairs.append((before, after))

    def fit(self, ridge: float = RIDGE) -> Drift:
        """Least squares with `ridge * trace / f` on the distance from the identity."""
        turned = [(after, before) for before, after in self._pairs]
        if sum(len(before) for before, _ in self._pairs) < self._features:
            forward, unexplained, thin = _by_images(self._pairs, self._features, ridge, _MOVEMENTS)
            backward, _, _ = _by_images(turned, self._features, ridge)
            return Drift(forward, backward, unexplained, thin)
        forward, unexplained = _towards_identity(self._pairs, self._features, ridge, _MOVEMENTS)
        backward, _ = _towards_identity(turned, self._features, ridge)
        return Drift(forward, backward, unexplained)


@dataclass(frozen=True, eq=False)
class Drift:
    """`after = before @ forward.T` and `before = after @ backward.T`, each `(f, f)` float64, to first order.

    `unexplained` `(n, f)` float64 is what a linear map leaves of the movement of the first few hundred images, each
    seen by the map of all others: of fewer images than features, a map that has seen them explains almost everything.
    """

    forward: Float64
    backward: Float64
    unexplained: Float64
    # `forward` is the identity and `left.T @ right`, both `(n, f)`, where it was seen on fewer images than features.
    _thin: tuple[Float64, Float64] | None = None

    def head(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """A head's weight `(n, f)` for the features after, giving the logits that it gave before."""
        return (weight.astype(np.float64) @ self.backward).astype(np.float32)

    def statistics(self, statistics: ClassStatistics) -> ClassStatistics:
        """Class statistics as the features after would have given them; counts stay."""
        return statistics.mapped(self._around, statistics.sums @ self.forward.T)

    def behind(self, matrix: Float64) -> Float64:
        """`forward @ matrix`, `(f, f)`."""
        if self._thin is None:
            return np.asarray(self.forward @ matrix)
        left, right = self._thin
        return np.asarray(matrix + left.T @ (right @ matrix))

    def _around(self, matrix: Float64) -> Float64:
        """`forward @ matrix @ forward.T`, of a symmetric one."""
        if self._thin is None:
            return np.asarray(self.forward @ matrix @ self.forward.T)
        left, right = self._thin
        seen = right @ matrix
        # G + L^T S + (L^T S)^T + L^T (S R^T) L, half of the last on either side, so that it is one product.
        once = left.T @ (seen + 0.5 * (seen @ right.T) @ left)
        return np.asarray(matrix + (once + once.T))


def _by_images(
    pairs: Sequence[Pair], features: int, ridge: float, kept: int = 0
) -> tuple[Float64, Float64, tuple[Float64, Float64]]:
    """`_towards_identity` of `n` images, fewer than features, and `left` and `right` of the map.

    With sources `X` and differences `D`, both `(n, f)`, `M - I` is `D^T X (X^T X + a)^-1 = D^T (X X^T + a)^-1 X`: a
    system of `n` in the place of `f`.
    """
    sources, targets = _first(pairs, features, features)
    kernel = sources @ sources.T
    pull = ridge * float(np.trace(kernel)) / features or 1.0
    np.einsum("ii->i", kernel)[:] += pull
    inverse = np.linalg.inv(kernel)
    left = inverse @ (targets - sources)
    change = left.T @ sources
    np.einsum("ii->i", change)[:] += 1.0
    # 1 less the image's leverage, as the residuals of ridge regression left out one by one.
    rest = pull * np.diag(inverse)[:kept]
    unexplained = (targets[:kept] - sources[:kept] @ change.T) / rest[:, None]
    return change, unexplained, (left, sources)


def _towards_identity(
    pairs: Sequence[Pair], features: int, ridge: float, kept: int = 0
) -> tuple[Float64, Float64]:
    """`M = argmin sum |target - M source|^2 + a |M - I|^2` over pairs of sources and targets `(n, f)`.

    And of the first targets, at most `kept`, what the M that all other pairs give leaves, `(n, f)`.
    """
    sources, targets = _first(pairs, features, kept)
    # As few matrices of features by features as can be: they are the peak of learning on a small network.
    energy, right = np.zeros((features, features)), np.zeros((features + len(sources), features))
    moved, right[features:] = right[:features], sources
    for source, target in pairs:
        x = source.astype(np.float64)
        energy += x.T @ x
        moved += (target - x).T @ x
    np.einsum("ii->i", energy)[:] += ridge * float(np.trace(energy)) / features or 1.0
    # Exactly no drift leaves exactly the identity: the right-hand side is then zero.
    solved = np.linalg.solve(energy, right.T).T.astype(np.float64, copy=False)
    change = solved[:features]
    np.einsum("ii->i", change)[:] += 1.0
    # By the matrix inversion lemma, as the residuals of ridge regression left out one by one.
    share = np.einsum("nf,nf->n", sources, solved[features:])
    return change, (targets - sources @ change.T) / (1.0 - share)[:, None]


def _first(pairs: Sequence[Pair], features: int, count: int) -> tuple[Float64, Float64]:
    """The first `count` sources and targets, or as many as there are."""
    taken: list[Pair] = [(np.zeros((0, features), np.float32),) * 2]
    for source, target in pairs:
        room = count - sum(len(part) for part, _ in taken)
        taken.append((source[:room], target[:room]))
    sources, targets = (np.concatenate(side).astype(np.float64) for side in zip(*taken, strict=True))
    return sources, targets
