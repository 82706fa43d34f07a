"""What the guards say, as `sentences.json` has it: the same in both languages but for how a setting is named."""

from __future__ import annotations

import json
import re
from importlib import resources

_RAW: dict[str, str] = json.loads(
    (resources.files("csk_sdk.contract") / "sentences.json").read_text(encoding="utf-8")
)
_SETTING = re.compile(r"`(\w+)(?: = ([\w{}-]+))?`")


def said(name: str, /, **values: str) -> str:
    """A sentence with these values in it, settings as options of the command line."""
    return _SETTING.sub(_option, _RAW[name]).format(**values)


def _option(found: re.Match[str]) -> str:
    name, value = found[1].replace("_", "-"), found[2]
    if value == "false":
        return f"--no-{name} ({found[1]} = false)"
    return f"--{name} {value}" if value else f"--{name}"
