"""Numbers as a report says them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from csk_sdk.formats.wording import rounded


def percentage(value: float) -> str:
    """78.9 %; "-" where nothing was measured."""
    return "-" if math.isnan(value) else f"{rounded(value, '.1f')} %"


def change(points: float) -> str:
    """+0.4, −1.2, 0.0; "-" where nothing was measured."""
    if math.isnan(points):
        return "-"
    return rounded(points, "+.1f").replace("-", "−")


def time_spent(seconds: float) -> str:
    """8.1 s, 3 min 05 s, 2 h 10 min; whole where that says enough."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"


def in_one_unit(seconds: Sequence[float]) -> Callable[[float], str]:
    """How times beside each other are written, so that they can be compared: all in seconds, minutes or hours."""
    longest = max(seconds, default=0.0)
    if longest < 100:
        return lambda value: f"{value:.0f} s" if longest >= 10 or not value else f"{value:.1f} s"
    size, unit = (60.0, "min") if longest < 6000 else (3600.0, "h")
    return lambda value: f"{value / size:.1f} {unit}" if value else f"0 {unit}"


def memory(size: float) -> str:
    """Bytes as megabytes."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB"
