"""`csk_sdk/contract/training_fields.py`, so that editors and mypy know the settings."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from tools.contract.shared import HOW, Raw, kind_of, sentences

from csk_sdk.contract.settings import settings_of

TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}


def python_fields(settings: Raw) -> str:
    """`training_fields.py`: a typed dataclass."""
    lines = [
        f'"""The fields of `TrainingConfig`.\n\n{HOW.format("settings.json")}\n"""',
        *("", "from __future__ import annotations", "", "from dataclasses import dataclass", "", ""),
        *("@dataclass(frozen=True)", "class TrainingFields:"),
        '    """Every setting of a training run, its type and its default."""',
    ]
    described = settings_of(settings["properties"])
    for name, raw in settings["properties"].items():
        kind, optional = kind_of(raw)
        default = float(raw["default"]) if kind == "number" and raw["default"] is not None else raw["default"]
        typed = TYPES[kind] + (" | None" if optional else "")
        text = sentences(raw, described[name].rule, raw.get("unset", "")).replace("Null:", "None:")
        shown = json.dumps(default) if isinstance(default, str) else repr(default)
        lines += ["", f"    {name}: {typed} = {shown}", *_docstring(text)]
    return "\n".join(lines) + "\n"


def _docstring(text: str) -> Iterator[str]:
    wrapped = textwrap.wrap(text, 108, initial_indent='    """', subsequent_indent="    ")
    if len(wrapped) == 1:
        yield f'{wrapped[0]}"""'
        return
    yield from wrapped
    yield '    """'
