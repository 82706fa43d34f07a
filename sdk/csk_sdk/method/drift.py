"""Drift compensation: following the features as they move, so that what was learned on the old ones stays valid.

A task moves the features a little even where the projection holds. The drift is visible on the task's own images,
seen by the network before and after, and to first order it is linear: estimated there, it is undone for the old heads
and applied to the old class statistics, without any old image. After learnable drift compensation (Gomez-Villa et
al., ECCV 2024, arXiv 2407.08536); here in closed form, by ridge regression towards the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import integer, number
from csk_sdk.method.heads import ClassStatistics
from csk_sdk.method.symmetric import inverse_of

Float64 = NDArray[np.float64]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
RIDGE, _MOVEMENTS = number("drift", "ridge"), integer("drift", "movements")
# Images in one product.
_AT_ONCE = 256


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
            thin, unexplained = _by_images(self._pairs, self._features, ridge, _MOVEMENTS)
            return Drift(thin, _by_images(turned, self._features, ridge)[0], unexplained)
        whole, unexplained = _towards_identity(self._pairs, self._features, ridge, _MOVEMENTS)
        return Drift(whole, _towards_identity(turned, self._features, ridge)[0], unexplained)


@dataclass(frozen=True, eq=False)
class ThinMap:
    """The identity and `left.T @ right`, both `(n, f)`: a map that was seen on fewer images than features.

    `right` are these images, float32 as they were given: made float64 where they are multiplied.
    """

    left: Float64
    right: tuple[NDArray[np.float32], ...]

    def whole(self) -> Float64:
        """`(f, f)`."""
        found = self._before(self._images())
        np.einsum("ii->i", found)[:] += 1.0
        return found

    def rows(self, x: Float64) -> Float64:
        """`x @ map.T`, of features `(m, f)`."""
        return np.asarray(x + (x @ self._images().T) @ self.left)

    def weights(self, weight: Float64) -> Float64:
        """`weight @ map`, of weights `(m, f)`."""
        return np.asarray(weight + (weight @ self.left.T) @ self._images())

    def undone(self, rows: Float64) -> Float64:
        """What `rows` makes these rows `(m, f)` of: a system of images by images (Woodbury, 1950)."""
        right = self._images()
        within = self.left @ right.T
        np.einsum("ii->i", within)[:] += 1.0
        return np.asarray(rows - np.linalg.solve(within.T, right @ rows.T).T @ self.left)

    def behind(self, matrix: Float64) -> Float64:
        """`map @ matrix`, `(f, f)`."""
        found = self._before(self._images() @ matrix)
        found += matrix
        return found

    def around(self, matrix: Float64) -> Float64:
        """`map @ matrix @ map.T`, of a symmetric one."""
        right = self._images()
        seen = right @ matrix
        # G + L^T S + (L^T S)^T + L^T (S R^T) L, half of the last on either side, so that it is one product.
        seen += 0.5 * (seen @ right.T) @ self.left
        once = self._before(seen)
        del right, seen
        found = once + once.T
        del once
        found += matrix
        return found

    def _before(self, right: Float64) -> Float64:
        return np.asarray(self.left.T @ right)

    def _images(self) -> Float64:
        return np.concatenate(self.right).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Drift:
    """`after = before @ forward.T` and `before = after @ backward.T`, each `(f, f)` float64, to first order.

    `ahead` and `back` are these maps as they were found; the matrices are made where they are asked for.
    `unexplained` `(n, f)` float64 is what a linear map leaves of the movement of the first few hundred images, each
    seen by the map of all others: of fewer images than features, a map that has seen them explains almost everything.
    """

    ahead: Float64 | ThinMap
    back: Float64 | ThinMap
    unexplained: Float64

    @property
    def forward(self) -> Float64:
        """From the features before to those after, `(f, f)`."""
        return self.ahead.whole() if isinstance(self.ahead, ThinMap) else self.ahead

    @property
    def backward(self) -> Float64:
        """From the features after to those before, `(f, f)`."""
        return self.back.whole() if isinstance(self.back, ThinMap) else self.back

    def head(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """A head's weight `(n, f)` for the features after, giving the logits that it gave before."""
        return _weights(weight.astype(np.float64), self.back).astype(np.float32)

    def led_back(self, weight: NDArray[np.float32]) -> Float64:
        """A head's weight `(n, f)` for the features before, giving the logits that `weight` gives of those after."""
        return _weights(weight.astype(np.float64), self.ahead)

    def statistics(self, statistics: ClassStatistics) -> ClassStatistics:
        """Class statistics as the features after would have given them; counts stay."""
        ahead = self.ahead
        if isinstance(ahead, ThinMap):
            return statistics.mapped(ahead.around, ahead.rows(statistics.sums))
        return statistics.mapped(lambda matrix: ahead @ matrix @ ahead.T, statistics.sums @ ahead.T)

    def undone(self, rows: Float64) -> Float64:
        """The features before `(n, f)` of which these are those after."""
        if isinstance(self.ahead, ThinMap):
            return self.ahead.undone(rows)
        return np.asarray(np.linalg.solve(self.ahead, rows.T).T)

    def behind(self, matrix: Float64) -> Float64:
        """`forward @ matrix`, `(f, f)`."""
        if isinstance(self.ahead, ThinMap):
            return self.ahead.behind(matrix)
        return np.asarray(self.ahead @ matrix)


def _weights(weight: Float64, through: Float64 | ThinMap) -> Float64:
    """`weight @ map`, of weights `(m, f)`."""
    return through.weights(weight) if isinstance(through, ThinMap) else np.asarray(weight @ through)


def _by_images(pairs: Sequence[Pair], features: int, ridge: float, kept: int = 0) -> tuple[ThinMap, Float64]:
    """`_towards_identity` of `n` images, fewer than features.

    With sources `X` and differences `D`, both `(n, f)`, `M - I` is `D^T X (X^T X + a)^-1 = D^T (X X^T + a)^-1 X`: a
    system of `n` in the place of `f`.
    """
    sources, targets = _first(pairs, features, features)
    products = sources @ sources.T
    pull = ridge * float(np.trace(products)) / features or 1.0
    kernel = products.copy()
    np.einsum("ii->i", kernel)[:] += pull
    inverse = inverse_of(kernel)
    targets -= sources
    left = inverse @ targets
    found = ThinMap(left, tuple(source for source, _ in pairs))
    # 1 less the image's leverage, as the residuals of ridge regression left out one by one.
    rest = pull * np.diag(inverse)[:kept]
    unexplained = targets[:kept] - products[:kept] @ left
    unexplained /= rest[:, None]
    return found, unexplained


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
    for source, target in _together(pairs):
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


def _together(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The same in fewer and longer parts: a product of a few rows takes the time of writing the matrix."""
    kept: list[Pair] = []
    for pair in pairs:
        kept.append(pair)
        if sum(len(source) for source, _ in kept) >= _AT_ONCE:
            yield _joined(kept)
            kept = []
    if kept:
        yield _joined(kept)


def _joined(pairs: Sequence[Pair]) -> Pair:
    sources, targets = zip(*pairs, strict=True)
    return np.concatenate(sources), np.concatenate(targets)


def _first(pairs: Sequence[Pair], features: int, count: int) -> tuple[Float64, Float64]:
    """The first `count` sources and targets, or as many as there are."""
    taken: list[Pair] = [(np.zeros((0, features), np.float32),) * 2]
    for source, target in pairs:
        room = count - sum(len(part) for part, _ in taken)
        taken.append((source[:room], target[:room]))
    sources, targets = _joined(taken)
    return sources.astype(np.float64), targets.astype(np.float64)
