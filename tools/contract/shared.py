"""What the generators share: names, values and sentences."""

from __future__ import annotations

import re
from typing import Any

HOW = "Generated from csk_sdk/contract/{}: change it there, and run `make contract`."
Raw = dict[str, Any]


def kind_of(raw: Raw) -> tuple[str, bool]:
    """The type of a setting, and whether it may be null."""
    kinds = [raw["type"]] if isinstance(raw["type"], str) else raw["type"]
    return kinds[0], "null" in kinds


def camel(name: str) -> str:
    """A setting's name in TypeScript."""
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def sentences(raw: Raw, rule: str, unset: str) -> str:
    """What a setting does, what it may be, and what null stands for."""
    more = f" Null: {unset}." if unset else ""
    if kind_of(raw)[0] in ("boolean", "string"):
        return raw["description"] + more
    unit = f", in {raw['unit']}" if "unit" in raw else ""
    return f"{raw['description']} {rule[0].upper()}{rule[1:]}{unit}.{more}"
