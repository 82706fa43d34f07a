"""Every gradient rule on random shapes, against the same oracle as the tables."""

from __future__ import annotations

import pytest
import random_elementwise
import random_layout
import random_pictures
from gradient_check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from random_row import finished

from csk_artifacts_builder.gradients import registered_ops

SHAPES = random_elementwise.SHAPES | random_layout.SHAPES | random_pictures.SHAPES


def test_every_rule_has_random_shapes() -> None:
    assert registered_ops() == set(SHAPES)


@pytest.mark.parametrize("op", sorted(SHAPES))
@given(st.data())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_gradient_on_random_shapes(op: str, data: st.DataObject) -> None:
    # A single element may be clipped, or never the maximum.
    check(finished(SHAPES[op](data.draw)), may_be_zero=True)
