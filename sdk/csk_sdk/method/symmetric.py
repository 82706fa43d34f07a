"""Symmetric matrices by their Cholesky factor: NumPy's own inverse takes twice the time, and knows no triangle.

A matrix of features by features is among the largest arrays of a lesson, and NumPy's Cholesky factor is two more beside
it. So it is made block by block here, in the matrix's own place, and of triangles no more is multiplied than there is.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
# So many rows or columns at once.
_AT_ONCE = 64


class Root(Protocol):
    """A root of the inverse of a symmetric matrix `(n, n)`: that is `root @ root.T`."""

    def whiten(self, rows: Float64) -> Float64:
        """`rows @ root`, `(m, n)`: what is spread as the matrix is has the identity for a covariance then."""

    def unwhiten(self, rows: Float64) -> Float64:
        """`rows @ root.T`, `(m, n)`."""

    def solve(self, rows: Float64) -> Float64:
        """`rows` `(m, n)` times the inverse."""

    def diagonal(self) -> Float64:
        """That of the inverse, `(n,)`."""


class Factor:
    """That which is the inverse of Cholesky's upper factor; it is not made, but rows are divided by the factor.

    `lower` is Cholesky's lower factor, written into the matrix: of each block of columns what those before it leave.
    Raises LinAlgError where the matrix is not positive definite, which is then what it was.
    """

    def __init__(self, matrix: Float64) -> None:
        self.lower = matrix
        # Of the blocks on its diagonal.
        self._inverses: list[Float64] = []
        # These as they were; above them, the matrix is that until the end.
        were: list[Float64] = []
        try:
            for start in range(0, len(matrix), _AT_ONCE):
                end = start + _AT_ONCE
                own, below = matrix[start:end, start:end], matrix[end:, start:end]
                were.append(own.copy())
                matrix[start:, start:end] -= matrix[start:, :start] @ matrix[start:end, :start].T
                own[...] = np.linalg.cholesky(own)
                self._inverses.append(np.tril(np.linalg.inv(own)))
                below[...] = below @ self._inverses[-1].T
        except np.linalg.LinAlgError:
            _restore(matrix, were)
            raise
        for start in range(0, len(matrix), _AT_ONCE):
            matrix[start : start + _AT_ONCE, start + _AT_ONCE :] = 0.0

    def whiten(self, rows: Float64) -> Float64:
        """From the left to the right."""
        return self._whitened(rows, 0)

    def unwhiten(self, rows: Float64) -> Float64:
        """From the right to the left."""
        found = np.empty_like(rows)
        for number in reversed(range(len(self._inverses))):
            start, end = number * _AT_ONCE, (number + 1) * _AT_ONCE
            left = rows[:, start:end] - found[:, end:] @ self.lower[end:, start:end]
            np.matmul(left, self._inverses[number], out=found[:, start:end])
        return found

    def solve(self, rows: Float64) -> Float64:
        """Of few rows, both; for many, the inverse is made."""
        if 2 * len(rows) <= len(self.lower):
            return self.unwhiten(self.whiten(rows))
        return np.asarray(rows @ self.inverse)

    @cached_property
    def inverse(self) -> Float64:
        """The matrix's, `(n, n)`."""
        root = np.empty_like(self.lower)
        for number in range(len(self._inverses)):
            root[number * _AT_ONCE : (number + 1) * _AT_ONCE] = self._rows(number)
        return np.asarray(root @ root.T)

    def diagonal(self) -> Float64:
        """The squares of the root's rows, of which few are made at once."""
        rows = (self._rows(number) for number in range(len(self._inverses)))
        return np.concatenate([np.einsum("ij,ij->i", some, some) for some in rows])

    def _rows(self, number: int) -> Float64:
        """Rows of the root: in front of its own column, each is zero."""
        count = len(self._inverses[number])
        return self._whitened(np.eye(count, len(self.lower), number * _AT_ONCE), number)

    def _whitened(self, rows: Float64, first: int) -> Float64:
        """From the block of columns `first` on; in `rows`, all in front of it is zero."""
        found, begin = np.zeros_like(rows), first * _AT_ONCE
        for number in range(first, len(self._inverses)):
            start, end = number * _AT_ONCE, (number + 1) * _AT_ONCE
            left = rows[:, start:end] - found[:, begin:start] @ self.lower[start:end, begin:start].T
            np.matmul(left, self._inverses[number].T, out=found[:, start:end])
        return found


class _ByEigenvalues:
    """That of an inverse whose eigenvalues may be below zero by rounding: none is taken for negative."""

    def __init__(self, inverse: Float64) -> None:
        values, vectors = np.linalg.eigh((inverse + inverse.T) / 2.0)
        self._root: Float64 = vectors * np.sqrt(np.maximum(values, 0.0))
        self._inverse = inverse

    def whiten(self, rows: Float64) -> Float64:
        return np.asarray(rows @ self._root)

    def unwhiten(self, rows: Float64) -> Float64:
        return np.asarray(rows @ self._root.T)

    def solve(self, rows: Float64) -> Float64:
        return np.asarray(rows @ self._inverse)

    def diagonal(self) -> Float64:
        return np.diag(self._inverse)


def root_of(matrix: Float64) -> Root:
    """Of a symmetric matrix, which is written into: Cholesky's, or that of LU's inverse where it is not definite.

    Raises LinAlgError where it is singular.
    """
    try:
        return Factor(matrix)
    except np.linalg.LinAlgError:
        return _ByEigenvalues(np.asarray(np.linalg.inv(matrix), np.float64))


def inverse_of(matrix: Float64) -> Float64:
    """The inverse `(n, n)` of a symmetric matrix, a new array, as `root_of` has it; the matrix is written into."""
    try:
        return Factor(matrix).inverse
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.inv(matrix), np.float64)


def add_products(matrix: Float64, rows: Float64) -> None:
    """Add `rows.T @ rows` `(n, n)` to a symmetric matrix, of which no more than a block of rows is made beside it."""
    add_below(matrix, rows)
    mirror(matrix)


def add_below(matrix: Float64, rows: Float64) -> None:
    """The same, where what is above the diagonal is still to be made: by `mirror`, behind the last rows."""
    for start in range(0, len(matrix), _AT_ONCE):
        end = start + _AT_ONCE
        matrix[start:end, :end] += rows[:, start:end].T @ rows[:, :end]


def mirror(matrix: Float64) -> None:
    """Make what is above the diagonal `(n, n)` of what is below it."""
    for start in range(0, len(matrix), _AT_ONCE):
        matrix[:start, start : start + _AT_ONCE] = matrix[start : start + _AT_ONCE, :start].T


def _restore(matrix: Float64, blocks: list[Float64]) -> None:
    """What a factor was begun of: the blocks on the diagonal, and what is below them as it is above."""
    for number, block in enumerate(blocks):
        start, end = number * _AT_ONCE, (number + 1) * _AT_ONCE
        matrix[start:end, start:end] = block
        matrix[end:, start:end] = matrix[start:end, end:].T
