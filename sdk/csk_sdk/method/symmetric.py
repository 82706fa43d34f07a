"""Symmetric matrices by their Cholesky factor: NumPy's own inverse takes twice the time, and knows no triangle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
# Up to so many rows a triangle is inverted at once.
_AT_ONCE = 64


def inverse_of(matrix: Float64) -> Float64:
    """The inverse `(n, n)` of a symmetric matrix, a new array.

    Where rounding leaves it not positive definite, by LU. Raises LinAlgError where it is singular.
    """
    return root_of_inverse(matrix)[1]


def root_of_inverse(matrix: Float64) -> tuple[Float64, Float64]:
    """A root `(n, n)` of the inverse of a symmetric matrix, `root @ root.T`, and the inverse.

    Where rounding leaves it not positive definite, the inverse is by LU, and its root by eigenvalues, of which none is
    taken for negative. Raises LinAlgError where it is singular.
    """
    try:
        lower = np.linalg.cholesky(matrix).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        inverse = np.asarray(np.linalg.inv(matrix), np.float64)
        values, vectors = np.linalg.eigh((inverse + inverse.T) / 2.0)
        return vectors * np.sqrt(np.maximum(values, 0.0)), inverse
    rows = inverse_of_lower(lower)
    # One factor with itself is half of a product.
    return rows.T, np.asarray(rows.T @ rows)


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
