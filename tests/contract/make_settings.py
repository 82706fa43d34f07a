"""Values of settings, and what both languages must say of each: python tests/contract/make_settings.py

Writes settings.json: for every setting values at its bounds, beyond them and of other types, each with the sentence
that refuses it (null: it is allowed). The sentences are Python's; whether they are right to refuse is judged by
`jsonschema` in test_settings.py, and TypeScript is held to them by settings.test.ts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csk_sdk.contract.settings import SETTINGS, Setting

HERE = Path(__file__).parent


def values(one: Setting) -> list[Any]:
    """Values of every type, and around every bound."""
    found: list[Any] = ["x", True, [], *one.choices, one.default, 3, 0.25, -1]
    for bound in one.bounds.values():
        found += [bound, bound - 1, bound + 1, bound - 0.001, bound + 0.001]
    return list({json.dumps(value): value for value in found if value is not None}.values())


def said(one: Setting) -> list[dict[str, Any]]:
    """What is said of each value. Lists are left out: languages print them in ways of their own."""
    return [
        {"name": one.name, "value": value, "refused": one.problem(value)}
        for value in values(one)
        if not isinstance(value, list | bool) or one.allows(value)
    ]


def main() -> None:
    rows = [row for one in SETTINGS.values() for row in said(one)]
    (HERE / "settings.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{len(rows)} values, {sum(row['refused'] is not None for row in rows)} of them refused")


if __name__ == "__main__":
    main()
