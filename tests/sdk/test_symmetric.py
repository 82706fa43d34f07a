"""Inverses of symmetric matrices, against LAPACK's driver for definite ones and the definition."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import hilbert, lapack

from csk_sdk.method.symmetric import Factor, Root, add_products, inverse_of, root_of

SIZES = [1, 2, 63, 64, 65, 130, 301]
Float64 = NDArray[np.float64]


def definite(size: int) -> Float64:
    rng = np.random.default_rng(size)
    images = rng.normal(size=(2 * size + 3, size)) * np.exp(rng.normal(size=size))
    return images.T @ images / len(images)


def lapacks(matrix: Float64) -> tuple[Float64, Float64]:
    """Cholesky's lower factor, and the inverse."""
    lower, _ = lapack.dpotrf(matrix, lower=True)
    inverse, _ = lapack.dpotri(lower, lower=True)
    return np.tril(lower), np.tril(inverse) + np.tril(inverse, -1).T


def scale_of(inverse: Float64) -> Float64:
    return np.sqrt(np.outer(np.diag(inverse), np.diag(inverse)))


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_is_lapacks(size: int) -> None:
    matrix = definite(size)
    _, expected = lapacks(matrix)
    before = matrix.copy()
    found = inverse_of(matrix.copy())
    scale = scale_of(expected)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-11)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(matrix, before)


def test_next_to_singular_it_is_as_near_as_another_solution() -> None:
    matrix = hilbert(9)
    left = np.abs(matrix @ inverse_of(matrix.copy()) - np.eye(9)).max()
    assert left <= 30 * max(np.abs(matrix @ np.linalg.inv(matrix) - np.eye(9)).max(), 1e-12)


def test_what_is_not_positive_definite_is_inverted_all_the_same() -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(inverse_of(matrix.copy()), [[-1 / 3, 2 / 3], [2 / 3, -1 / 3]], rtol=1e-12)


@pytest.mark.parametrize("made", [inverse_of, root_of])
def test_a_singular_one_is_refused(made: object) -> None:
    with pytest.raises(np.linalg.LinAlgError):
        made(np.zeros((3, 3)))


@pytest.mark.parametrize("row", [0, 70, 129])
def test_a_block_that_is_not_definite_is_seen_and_the_matrix_is_what_it_was(row: int) -> None:
    matrix = definite(130)
    matrix[row, row] = -1.0
    own = matrix.copy()
    with pytest.raises(np.linalg.LinAlgError):
        Factor(own)
    np.testing.assert_array_equal(own, matrix)
    np.testing.assert_allclose(inverse_of(own) @ matrix, np.eye(130), atol=1e-8)
    # Of its root, only what is not negative is left.
    assert np.isfinite(root_of(matrix).whiten(np.eye(130))).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_factor_in_place_is_lapacks(size: int) -> None:
    matrix = definite(size)
    expected, _ = lapacks(matrix)
    found = Factor(matrix).lower
    assert found is matrix
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("by", ["factor", "eigenvalues"])
def test_a_root_whitens_solves_and_tells_the_diagonal(size: int, by: str, monkeypatch: object) -> None:
    if by == "eigenvalues":

        def refused(matrix: Float64) -> Root:
            raise np.linalg.LinAlgError

        monkeypatch.setattr("csk_sdk.method.symmetric.Factor", refused)
    matrix = definite(size)
    _, inverse = lapacks(matrix)
    scale = scale_of(inverse)
    root = root_of(matrix.copy())
    whole = root.whiten(np.eye(size))
    np.testing.assert_allclose(whole @ whole.T / scale, inverse / scale, atol=1e-10)
    rows = np.random.default_rng(1).normal(size=(5, size))
    np.testing.assert_allclose(
        root.unwhiten(rows), rows @ whole.T, rtol=1e-8, atol=1e-8 * np.abs(whole).max()
    )
    np.testing.assert_allclose(root.diagonal(), np.diag(inverse), rtol=1e-9)
    # Few rows, and so many that the inverse itself is made.
    for count in (1, size + 1):
        some = np.random.default_rng(2).normal(size=(count, size))
        expected = some @ inverse
        np.testing.assert_allclose(root.solve(some), expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES)
def test_products_are_added(size: int) -> None:
    rng = np.random.default_rng(size)
    rows, matrix = rng.normal(size=(7, size)), definite(size)
    expected = matrix + np.einsum("nf,ng->fg", rows, rows)
    add_products(matrix, rows)
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize(
    ("how", "beside"),
    [(Factor, 0.4), (lambda matrix: add_products(matrix, np.ones((2, len(matrix)))), 0.2)],
    ids=["factor", "products"],
)
def test_next_to_a_matrix_no_second_one_is_made(how: object, beside: float) -> None:
    matrix = definite(640)
    tracemalloc.start()
    try:
        how(matrix)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < beside * matrix.nbytes
