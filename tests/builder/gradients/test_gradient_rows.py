"""Every gradient rule against float64 central differences, one row for each case of an op."""

from __future__ import annotations

import pytest
import rows_activations
import rows_arithmetic
import rows_convolutions
import rows_layout
import rows_pooling
import rows_products
from gradient_check import check
from gradient_row import Row

from csk_artifacts_builder.gradients import registered_ops

TABLES = (rows_activations, rows_arithmetic, rows_convolutions, rows_layout, rows_pooling, rows_products)
ROWS = [row for table in TABLES for row in table.ROWS]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_gradient_equals_central_differences(row: Row) -> None:
    check(row)


def test_every_rule_has_a_row() -> None:
    assert registered_ops() == {row.op for row in ROWS}


def test_row_names_are_unique() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
