"""What a framework exported is held against what it says itself: one model, that adds one to each pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx_text import model

from csk_artifacts_builder.frameworks.comparing import reason_of, require_same_outputs
from csk_sdk.errors import ModelError

X = np.random.default_rng(0).normal(0, 10, (1, 3, 4, 4)).astype(np.float32)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    onnx.save(
        model("(float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Add(x, one) }", one=np.array(1.0)),
        tmp_path / "model.onnx",
    )
    return tmp_path / "model.onnx"


def test_the_same_but_for_rounding(exported: Path) -> None:
    require_same_outputs(exported, X, [X + 1], "torch", "module")
    # Of the largest output a thousandth, whatever the others are; three hundredths in half precision.
    largest = np.abs(X + 1).max()
    require_same_outputs(exported, X, [X + 1 + 0.0009 * largest], "torch", "module")
    require_same_outputs(exported, X, [X + 1 + 0.02 * largest], "torch", "module", half=True)


@pytest.mark.parametrize(
    ("expected", "half"),
    [
        (X + 1 + 0.002 * np.abs(X + 1).max(), False),
        (X + 1 + 0.04 * np.abs(X + 1).max(), True),
        ((X + 1)[:, :2], False),
    ],
    ids=["further", "further-in-half", "another-shape"],
)
def test_other_outputs_are_refused(exported: Path, expected: NDArray[np.float32], half: bool) -> None:
    with pytest.raises(ModelError) as caught:
        require_same_outputs(exported, X, [expected], "Keras", "model", half)
    assert str(caught.value) == (
        "What Keras exported gives other outputs than the model for the same example: does it draw random numbers, "
        "or change itself as it runs?"
    )


def test_what_does_not_run_is_refused(exported: Path) -> None:
    with pytest.raises(
        ModelError, match=r"ONNX Runtime [0-9.]+ does not run what torch exported \(\w+: .*\)\.$"
    ):
        require_same_outputs(exported, X[:, :2], [X], "torch", "module")
    exported.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="does not run what torch exported"):
        require_same_outputs(exported, X, [X], "torch", "module")


def test_an_error_s_reason_is_its_first_line_and_short() -> None:
    assert reason_of(ValueError("\n  one \n two")) == "ValueError: one"
    assert reason_of(ValueError()) == "ValueError: "
    assert len(reason_of(ValueError("long " * 100))) == 200
