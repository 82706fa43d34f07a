"""Sizes as people write them: 64MiB, 1.5 GB."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}


def bytes_in(text: str) -> int | None:
    """How many bytes `text` says; None where it is no size above 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        return None
    return int(float(found[1]) * unit) or None


def size_of(count: int) -> str:
    """Bytes as people write them: 64 MiB, 4.9 KiB."""
    for unit in ("MIB", "KIB"):
        if count >= _UNITS[unit]:
            return f"{round(count / _UNITS[unit], 1):g} {unit[0]}iB"
    return f"{count} bytes"
