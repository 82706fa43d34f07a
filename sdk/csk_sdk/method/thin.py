"""A covariance of fewer images than features.

It is `rows.T @ rows` with as many rows as images, so that its inverse takes products of features by images by images,
where that of the whole matrix takes the cube of the features.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.thresholds import number

Float64 = NDArray[np.float64]
# Up to this share as many rows as features, and what they may leave of a feature's variance.
THIN, _LEFT = number("covariance", "thin"), number("covariance", "left")


def thin_rows(covariance: Float64, floor: float) -> Float64 | None:
    """Rows `(n, f)` whose `rows.T @ rows` is a covariance `(f, f)`; None where these are not few.

    Cholesky's factor with complete pivoting (Higham, "Accuracy and Stability of Numerical Algorithms", section 10.3).
    Each feature's own variance is made 1 first, but for a `floor` under it, so that no feature counts for less than
    another.
    """
    own = np.diag(covariance)
    scale = 1.0 / np.sqrt(np.maximum(own, 0.0) + floor)
    left = own * scale**2
    rows = np.empty((int(THIN * len(own)), len(own)))
    for n in range(len(rows) + 1):
        pivot = int(left.argmax())
        if not left[pivot] > _LEFT:
            found: Float64 = rows[:n] / scale
            return found
        if n < len(rows):
            row = covariance[pivot] * scale * scale[pivot] - rows[:n, pivot] @ rows[:n]
            rows[n] = row / np.sqrt(left[pivot])
            left -= rows[n] ** 2
            left[pivot] = 0.0
    return None


class ThinInverse:
    """The inverse of `share * rows.T @ rows` and a diagonal `ridge` above 0 (Woodbury, 1950)."""

    def __init__(self, rows: Float64, ridge: Float64, share: float) -> None:
        self._narrow, self._share = 1.0 / np.sqrt(ridge), share
        wide = np.sqrt(share) * rows * self._narrow
        kernel = wide @ wide.T
        np.einsum("ii->i", kernel)[:] += 1.0
        lower = np.linalg.cholesky(kernel)
        # The inverse is that of the ridge, less `within.T @ within`, from both sides times `narrow`.
        self._within = np.linalg.solve(lower, wide)
        # The identity less `within.T @ within` is `root @ root.T` with the root `1 - within.T @ (lower + 1)^-1 @ wide`
        # (Andrews, "A square root formulation of the Kalman covariance equations", 1968).
        self._lower, self._wide = lower, wide

    @property
    def noise(self) -> float:
        """The trace of the inverse times `rows.T @ rows`."""
        return float(np.vdot(self._within, self._within)) / self._share

    @cached_property
    def _rest(self) -> Float64:
        return np.asarray(np.linalg.solve(self._lower + np.eye(len(self._lower)), self._wide))

    def whiten(self, rows: Float64) -> Float64:
        """`rows` `(m, f)` times a root of it, `root @ root.T`."""
        found = rows * self._narrow
        found -= (found @ self._within.T) @ self._rest
        return found

    def unwhiten(self, rows: Float64) -> Float64:
        """`rows` `(m, f)` times that root, transposed."""
        found = rows - (rows @ self._rest.T) @ self._within
        found *= self._narrow
        return found

    def __call__(self, rows: Float64) -> Float64:
        """`rows` `(m, f)` times it."""
        found = rows * self._narrow
        found -= (found @ self._within.T) @ self._within
        found *= self._narrow
        return found
