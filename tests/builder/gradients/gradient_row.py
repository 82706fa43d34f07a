"""What a row of the gradient tables is, and how to write one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy.typing import NDArray

BATCH = 2


@dataclass(frozen=True)
class Row:
    """One case of one op: inputs of `text` are differentiated; `tensors` are constants, or their shapes.

    Values are drawn from `low` to `high`, all different, and none of them near a kink in `away`. The gradient
    graph also runs on onnx.reference, unless that has a `reference_fault` (seen in onnx 1.23) in an op of it.
    """

    op: str
    case: str
    text: str
    tensors: Mapping[str, tuple[int, ...] | NDArray] = field(default_factory=dict)
    away: tuple[float, ...] = ()
    low: float = -2.0
    high: float = 2.3
    reference_fault: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.case}"


def unary(op: str, case: str, attributes: str = "", **options: object) -> Row:
    return Row(
        op, case, f"(float[N,3,4,5] x) => (float[N,3,4,5] y) {{ y = {op} {attributes} (x) }}", **options
    )  # type: ignore[arg-type]


def of(op: str, case: str, dims: str, call: str, **tensors: tuple[int, ...] | NDArray) -> Row:
    """`dims` are those of `x`, perhaps `; those of x2`, and `-> those of y`."""
    inputs, output = dims.split(" -> ")
    typed = ", ".join(
        f"float[{one}] {name}" for one, name in zip(inputs.split("; "), ("x", "x2"), strict=False)
    )
    return Row(op, case, f"({typed}) => (float[{output}] y) {{ y = {op}{call} }}", tensors)
