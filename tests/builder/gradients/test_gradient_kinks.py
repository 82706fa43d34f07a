"""The portable gradient at every kink is the one of docs/gradients.md."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from gradient_check import gradient_model, run_ort
from kinks import KINKS, Kink

from conftest import REPOSITORY
from csk_artifacts_builder.gradients import registered_ops


@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_gradient_at_a_kink(kink: Kink) -> None:
    gradient = gradient_model(ir.to_proto(kink.forward()))
    g = np.ones([int(dim) for dim in kink.out.split(",")], np.float32)
    found = run_ort(gradient, kink.feeds | {"g": g})
    for name, dx in zip(kink.feeds, kink.dx, strict=True):
        np.testing.assert_allclose(found[name].ravel(), dx, rtol=1e-6, atol=0, err_msg=name)


def test_the_page_has_every_op_with_a_kink() -> None:
    page = (REPOSITORY / "docs" / "gradients.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- kinks -->\n(.*?)<!-- end of kinks -->", page, re.DOTALL)
    written = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert written == {kink.op for kink in KINKS}
    assert written <= registered_ops()
