"""Columns of selected channels out of dense centers: the inverse of `add_to_centers` on zeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csk_sdk.method.projection import add_to_centers, gather


def test_by_hand() -> None:
    """Two groups of two output and three input channels: channel 4 is the second group's second."""
    centers = np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1)
    np.testing.assert_array_equal(gather(centers, np.array([4, 0]), groups=2), [[7, 0], [10, 3]])


@pytest.mark.parametrize("ones", [(), (1,), (1, 1)])
@given(groups=st.integers(1, 3), rows=st.integers(1, 3), width=st.integers(1, 4), seed=st.integers(0, 99))
def test_undoes_adding(ones: tuple[int, ...], groups: int, rows: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    selected = rng.permutation(groups * width)[: rng.integers(1, groups * width + 1)]
    delta = rng.normal(size=(rows, len(selected))).astype(np.float32)
    dense = np.zeros((groups * rows, width, *ones), np.float32)
    add_to_centers(dense, delta, selected, groups)
    got = gather(dense, selected, groups)
    np.testing.assert_array_equal(got, delta)
    got[...] = 0.0  # a copy, not a view
    np.testing.assert_array_equal(gather(dense, selected, groups), delta)
