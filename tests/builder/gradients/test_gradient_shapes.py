"""Every gradient rule on random shapes, against the same oracle as the tables."""

from __future__ import annotations

import pytest
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from random_shapes import SHAPES, finished

from csk_artifacts_builder.gradients import registered_ops


def test_every_rule_has_random_shapes() -> None:
    assert registered_ops() == set(SHAPES)


@pytest.mark.parametrize("op", sorted(SHAPES))
@given(st.data())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_gradient_on_random_shapes(op: str, data: st.DataObject) -> None:
    # A single element may be clipped, or never the maximum.
    check(finished(SHAPES[op](data.draw)), may_be_zero=True)
