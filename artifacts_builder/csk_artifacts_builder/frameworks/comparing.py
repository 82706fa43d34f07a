"""What a framework exported, held against what the framework itself says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import ModelError
from csk_sdk.runtime.sessions import load_onnxruntime, open_session

# Of the largest output; and of a network in half precision, which rounds after every layer.
_TOLERANCE, _TOLERANCE_HALF = 1e-3, 3e-2
_LONGEST_REASON = 200


def require_same_outputs(
    path: Path,
    x: NDArray[Any],
    expected: Sequence[NDArray[Any]],
    framework: str,
    what: str,
    half: bool = False,
) -> None:
    """Raise ModelError where the file at `path` gives other outputs for `x` than `what` of `framework` gave."""
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = open_session(str(path), options)
        got = session.run(None, {session.get_inputs()[0].name: x})
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {ort.__version__} does not run what {framework} exported ({reason_of(error)})."
        ) from None
    tolerance = _TOLERANCE_HALF if half else _TOLERANCE
    for a, b in zip(got, expected, strict=False):
        if a.shape != b.shape or np.abs(a - b).max(initial=0) > tolerance * max(
            1e-3, np.abs(b).max(initial=0)
        ):
            raise ModelError(
                f"What {framework} exported gives other outputs than the {what} for the same example: does it draw "
                "random numbers, or change itself as it runs?"
            )


def reason_of(error: Exception) -> str:
    """The first line of another library's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_LONGEST_REASON]
