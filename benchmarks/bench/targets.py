"""The numbers that csk-sdk set out to reach, as ratios of what one run measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.cases import CASES, REFERENCE
from bench.driver import Measured
from bench.timing import medians

BATCH_16, BATCH_1 = CASES[0].title, CASES[1].title
EXACT, INT8, CACHED = "csk/exact", "csk/int8", "csk/int8-cached"
ORT_FULL, ORT_CENTERS, FORWARD = "ort_training/full", "ort_training/centers", "torch_eager/forward"


@dataclass(frozen=True)
class Target:
    """`above / below` of a case, in time or in peak memory, at least or at most `limit`."""

    label: str
    case: str
    above: str
    below: str
    limit: float
    at_least: bool = True
    memory: bool = False

    @property
    def bound(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"

    def measured(self, results: Mapping[str, Sequence[Measured]]) -> float | None:
        """The ratio; None where one side is missing."""
        rows = results.get(self.case, ())
        found = {row.key: float(row.peak) for row in rows if row.peak} if self.memory else medians(rows)
        if self.above not in found or self.below not in found:
            return None
        return found[self.above] / found[self.below]

    def met(self, value: float) -> bool:
        """Whether a ratio keeps the bound."""
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS = (
    Target("torch, all weights / int8, batch 16", BATCH_16, REFERENCE, INT8, 6.0),
    Target("torch, all weights / int8, batch 1", BATCH_1, REFERENCE, INT8, 9.0),
    Target("onnxruntime-training, centers / int8, batch 16", BATCH_16, ORT_CENTERS, INT8, 4.0),
    Target("onnxruntime-training, centers / int8, batch 1", BATCH_1, ORT_CENTERS, INT8, 3.0),
    Target("int8 / torch's forward pass, batch 16", BATCH_16, INT8, FORWARD, 0.5, at_least=False),
    Target(
        "int8 with cached prefix / torch's forward pass, batch 16",
        BATCH_16,
        CACHED,
        FORWARD,
        0.35,
        at_least=False,
    ),
    Target("torch, all weights / exact, batch 16", BATCH_16, REFERENCE, EXACT, 2.2),
    Target("onnxruntime-training, centers / exact, batch 16", BATCH_16, ORT_CENTERS, EXACT, 1.4),
    Target("peak memory, int8 / torch, all weights", BATCH_16, INT8, REFERENCE, 0.25, False, True),
    Target(
        "peak memory, int8 / onnxruntime-training, all weights", BATCH_16, INT8, ORT_FULL, 0.5, False, True
    ),
)
