"""Inverses of symmetric matrices, against LAPACK's driver for definite ones and the definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hilbert, lapack

from csk_sdk.method.symmetric import inverse_of, inverse_of_lower


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 130, 301])
def test_the_inverse_is_lapacks(size: int) -> None:
    rng = np.random.default_rng(size)
    images = rng.normal(size=(2 * size + 3, size)) * np.exp(rng.normal(size=size))
    matrix = images.T @ images / len(images)
    factor, _ = lapack.dpotrf(matrix, lower=True)
    expected, _ = lapack.dpotri(factor, lower=True)
    expected = np.tril(expected) + np.tril(expected, -1).T
    before = matrix.copy()
    found = inverse_of(matrix)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-11)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(matrix, before)


def test_next_to_singular_it_is_as_near_as_another_solution() -> None:
    matrix = hilbert(9)
    left = np.abs(matrix @ inverse_of(matrix) - np.eye(9)).max()
    assert left <= 30 * max(np.abs(matrix @ np.linalg.inv(matrix) - np.eye(9)).max(), 1e-12)


def test_what_is_not_positive_definite_is_inverted_all_the_same() -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(inverse_of(matrix), [[-1 / 3, 2 / 3], [2 / 3, -1 / 3]], rtol=1e-12)


def test_a_singular_one_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        inverse_of(np.zeros((3, 3)))


@pytest.mark.parametrize("size", [1, 5, 64, 65, 200])
def test_the_inverse_of_a_lower_triangle_is_lapacks(size: int) -> None:
    rng = np.random.default_rng(size)
    lower = np.tril(rng.normal(size=(size, size))) + 2.0 * size**0.5 * np.eye(size)
    expected, _ = lapack.dtrtri(lower, lower=True)
    np.testing.assert_allclose(inverse_of_lower(lower), expected, rtol=1e-9, atol=1e-11)
