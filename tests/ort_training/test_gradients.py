"""Every gradient rule in both backends: at the kinks, in all rows of the tables, and in drawn forms."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from kinks import KINKS, Kink

from csk_artifacts_builder.gradients import registered_ops
from csk_artifacts_builder.ort import dialect as ort_dialect
from csk_artifacts_builder.ort.artifacts import quiet
from csk_artifacts_builder.ort.probe import ort_gradients
from ort_training.chains import chain
from ort_training.sweep import EQUAL, ROWS, SHAPES, drawn, outcome

# ONNX Runtime 1.19.2 itself does not run these.
NOT_THERE = {"ReduceSum-no axes is no sum"}
DRAWS, CHAINS = 3, 25


@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_gradient_at_a_kink(kink: Kink) -> None:
    """The table that the portable rules are held to (tests/builder/gradients/test_gradient_kinks.py)."""
    forward = kink.forward()
    g = np.ones([int(dim) for dim in kink.out.split(",")], np.float32)
    with quiet():
        found = ort_gradients(forward, kink.feeds, g)
    for name, dx in zip(kink.feeds, kink.dx, strict=True):
        np.testing.assert_allclose(found[name].ravel(), dx, rtol=1e-5, atol=1e-6, err_msg=name)


def test_every_rule_is_swept() -> None:
    assert registered_ops() == set(SHAPES)


@pytest.mark.parametrize("op", sorted(SHAPES))
def test_both_backends_have_the_same_gradients(op: str) -> None:
    rows = [row for row in ROWS if row.op == op and str(row) not in NOT_THERE]
    found = {str(row): outcome(row) for row in rows}
    found |= {row.text: outcome(row) for row in drawn(op, DRAWS, start=0)}
    assert {row: said for row, (word, said) in found.items() if word != EQUAL} == {}
    assert Counter(word for word, _ in found.values())[EQUAL] >= min(len(rows), 1) + 1


def test_chains_of_blocks_have_the_same_gradients() -> None:
    found = {str(row): outcome(row) for row in map(chain, range(CHAINS))}
    assert {name: said for name, (word, said) in found.items() if word != EQUAL} == {}


@pytest.mark.parametrize("op", sorted(ort_dialect.REWRITES))
def test_what_is_rewritten_would_be_wrong_otherwise(op: str) -> None:
    """So that what a later release can do is not rewritten for ever; kinks of Clip, Max and Min are in the table."""
    if op in ("Clip", "Max", "Min"):
        rows = [kink for kink in KINKS if kink.op == op]
        assert any(not _same_raw(kink) for kink in rows)
        return
    rows = [row for row in ROWS if row.op == op] + drawn(op, DRAWS, start=0)
    assert any(outcome(row, raw=True)[0] != EQUAL for row in rows)


def _same_raw(kink: Kink) -> bool:
    forward = kink.forward()
    g = np.ones([int(dim) for dim in kink.out.split(",")], np.float32)
    try:
        with quiet():
            found = ort_gradients(forward, kink.feeds, g, raw=True)
    except Exception:
        return False
    return all(np.allclose(found[name].ravel(), dx) for name, dx in zip(kink.feeds, kink.dx, strict=True))
