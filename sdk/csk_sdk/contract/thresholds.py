"""Thresholds and constants that both languages share, as `thresholds.json` has them.

What each is for stands there. A module gives those that it uses names of its own:

    USEFUL = number("label_check", "useful")
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

THRESHOLDS: dict[str, dict[str, Any]] = {
    group: values
    for group, values in json.loads(
        (resources.files("csk_sdk.contract") / "thresholds.json").read_text(encoding="utf-8")
    ).items()
    if group != "$comment"
}


def number(group: str, name: str) -> float:
    """The value of a threshold."""
    return float(THRESHOLDS[group][name]["value"])


def integer(group: str, name: str) -> int:
    """The value of a threshold that counts something."""
    value = THRESHOLDS[group][name]["value"]
    assert isinstance(value, int), f"{group}.{name} is no whole number"
    return value
