"""Symmetric matrices by their Cholesky factor: NumPy's own inverse takes twice the time, and knows no triangle."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
# Up to so many rows a triangle is inverted at once.
_AT_ONCE = 64


class Inverse:
    """The inverse `(n, n)` of a symmetric matrix, and a `root` of it, `root @ root.T`.

    Where rounding leaves the matrix not positive definite, by LU, and the root by eigenvalues, of which none is taken
    for negative. Raises LinAlgError where it is singular.
    """

    def __init__(self, matrix: Float64) -> None:
        try:
            lower = np.linalg.cholesky(matrix).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            self.whole = np.asarray(np.linalg.inv(matrix), np.float64)
            values, vectors = np.linalg.eigh((self.whole + self.whole.T) / 2.0)
            self.root: Float64 = vectors * np.sqrt(np.maximum(values, 0.0))
            return
        self.root = inverse_of_lower(lower).T

    @cached_property
    def whole(self) -> Float64:
        """The inverse itself: where there is a factor, one product of it with itself, which is half of one."""
        return np.asarray(self.root @ self.root.T)


def inverse_of(matrix: Float64) -> Float64:
    """The inverse `(n, n)` of a symmetric matrix, a new array; see `Inverse`."""
    return Inverse(matrix).whole


def inverse_of_lower(lower: Float64) -> Float64:
    """That of a lower triangular matrix: of its two triangles, and the block below is a product of these."""
    count = len(lower)
    if count <= _AT_ONCE:
        return np.asarray(np.tril(np.linalg.inv(lower)), np.float64)
    half = count // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = above = inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = below = inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = -below @ (lower[half:, :half] @ above)
    return inverse
