"""The pages of docs/ that are tables of the contract."""

from __future__ import annotations

import re

from tools.contract.shared import HOW, Raw, camel
from tools.contract.typescript import value_of

from csk_sdk.contract.settings import settings_of

SETTINGS_PAGE = """# Settings

*{how}*

How a task is learned: fields of `csk_sdk.TrainingConfig`, the table `[training]` of a workspace's `csk.toml`, options
of [`csk-sdk train`](cli.md#csk-sdk-train), and in JavaScript properties of `TrainingConfig`. A value out of range is
refused with one sentence, the same in both languages:

```
{sentence}
```

| setting | in JavaScript | default | must be | |
|---|---|---|---|---|
{rows}
"""


def settings_page(settings: Raw) -> str:
    """`docs/settings.md`."""
    described, rows = settings_of(settings["properties"]), []
    for name, raw in settings["properties"].items():
        default = raw.get("unset", "") if raw["default"] is None else f"`{described[name].shown_default}`"
        rule = described[name].rule + (f", in {raw['unit']}" if "unit" in raw else "")
        text = raw["description"]
        if "source" in raw:
            text += f" [Why](decisions/{raw['source']}.md)"
        there = f"`{camel(name)}`" if raw.get("javascript", True) is True else "-"
        rows.append(f"| `{name}` | {there} | {default} | {rule} | {text} |")
    example = described["epochs"].problem(0)
    return SETTINGS_PAGE.format(how=HOW.format("settings.json"), sentence=example, rows="\n".join(rows))


THRESHOLDS_PAGE = """# Thresholds

*{how}*

What the guards ask for, what the fits weigh, and what is too large to be true: in Python and in JavaScript alike, each
read in one place of either. [Conformance](conformance.md) holds ports to them; `python tests/contract/drift.py` shows
that a change in one language is noticed.

| threshold | value | | why |
|---|---|---|---|
{rows}
"""


def thresholds_page(groups: Raw) -> str:
    """`docs/thresholds.md`."""
    rows = []
    for group, values in groups.items():
        if group.startswith("$"):
            continue
        why = f"[{values['source'][:4]}](decisions/{values['source']}.md)" if values["source"] else ""
        for name, one in values.items():
            if name not in ("source", "javascript"):
                value = f"{value_of(one['value'])} {one.get('unit', '')}".rstrip()
                rows.append(f"| `{group}.{name}` | {value} | {one['description']} | {why} |")
    return THRESHOLDS_PAGE.format(how=HOW.format("thresholds.json"), rows="\n".join(rows))


_FIELDS = re.compile(r"(?<=<!-- fields of a task -->\n).*?(?=<!-- end of the fields -->)", re.DOTALL)


def state_page(page: str, record: Raw) -> str:
    """`docs/state.md` with the table of a task's fields in its place."""
    task = record["properties"]["tasks"]["items"]
    rows = ["| of a task | |", "|---|---|"]
    for name, raw in task["properties"].items():
        older = "" if name in task["required"] else "; missing in older states"
        rows.append(f"| `{name}` | {raw['description']}{older} |")
    assert _FIELDS.search(page), "docs/state.md has no place for the fields of a task"
    return _FIELDS.sub(lambda _: "\n" + "\n".join(rows) + "\n\n", page)
