"""Sizes as people write them: 64MiB, 1.5 GB."""

from __future__ import annotations

import re

import typer

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


def parse_size(text: str, option: str) -> int:
    """Bytes. Raises BadParameter for what is no size above 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or int(float(found[1]) * unit) < 1:
        raise typer.BadParameter(f"{text!r} is no size such as 64MiB, 500MB or 1.5GiB.", param_hint=option)
    return int(float(found[1]) * unit)
