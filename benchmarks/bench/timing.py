"""From seconds to medians and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.driver import Measured


def median(seconds: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return float(np.median(seconds)) if seconds else float("nan")


def quartiles(seconds: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; NaN of nothing."""
    if not seconds:
        return float("nan"), float("nan")
    low, high = np.percentile(seconds, [25, 75])
    return float(low), float(high)


def medians(rows: Sequence[Measured]) -> dict[str, float]:
    """Median CPU seconds of a step by method, of those that were measured."""
    return {row.key: median(row.cpu) for row in rows if row.cpu}


def ratio(found: Mapping[str, float], slow: str, fast: str) -> float | None:
    """How many times as long `slow` takes as `fast`; None where one is missing."""
    if slow not in found or fast not in found:
        return None
    return found[slow] / found[fast]
